//! OpenAI's `/v1/chat/completions`, streamed and whole.

use serde_json::{Value, json};

use super::{
    plan::{Asked, Plan, Tool, list, text, text_of},
    reply::Reply,
};

/// Answers request `number`.
pub fn reply(body: &Value, number: usize) -> Reply {
    let plan = Plan::of(&asked(body));
    let usage = json!({"prompt_tokens": 100 + number, "completion_tokens": 7, "total_tokens": 107 + number,
        "prompt_tokens_details": {"cached_tokens": 10}, "completion_tokens_details": {"reasoning_tokens": 0}});
    let model = body.get("model").and_then(Value::as_str).unwrap_or("mock-model");
    let frame = |object: &str, choices: Value| {
        json!({"id": format!("chatcmpl-mock{number}"), "object": object, "created": 1,
        "model": model, "choices": choices})
    };
    if let Plan::Error(status) = plan {
        return Reply::error(status, "mock error");
    }
    if body.get("stream") != Some(&Value::Bool(true)) {
        let mut whole = frame("chat.completion", whole_choice(plan, number));
        whole["usage"] = usage;
        return Reply::json(200, &whole);
    }
    let chunk = |delta: Value, finish: Value| {
        frame("chat.completion.chunk", json!([{"index": 0, "delta": delta, "finish_reason": finish}]))
    };
    let mut reply = Reply::sse().data(&chunk(json!({"role": "assistant", "content": ""}), Value::Null));
    let finish = match plan {
        Plan::Error(_) => "error",
        Plan::Say { thoughts, words, pause } => {
            for thought in thoughts {
                reply = reply.data(&chunk(json!({"reasoning_content": thought}), Value::Null));
            }
            for word in words {
                reply = reply.data(&chunk(json!({"content": word}), Value::Null)).pause(pause);
            }
            "stop"
        }
        Plan::Call { thoughts, name, input } => {
            for thought in thoughts {
                reply = reply.data(&chunk(json!({"reasoning_content": thought}), Value::Null));
            }
            let call = |call: Value| chunk(json!({"tool_calls": [call]}), Value::Null);
            let begin = json!({"index": 0, "id": format!("call_mock{number}"), "type": "function",
                "function": {"name": name, "arguments": ""}});
            reply = reply.data(&call(begin));
            let written = input.to_string();
            let (first, second) = written.split_at(written.floor_char_boundary(written.len() / 2));
            for piece in [first, second] {
                reply = reply.data(&call(json!({"index": 0, "function": {"arguments": piece}})));
            }
            "tool_calls"
        }
    };
    let mut last = frame("chat.completion.chunk", json!([]));
    last["usage"] = usage;
    reply.data(&chunk(json!({}), finish.into())).data(&last).done()
}

fn whole_choice(plan: Plan, number: usize) -> Value {
    let (message, finish) = match plan {
        Plan::Error(_) => (Value::Null, "error"),
        Plan::Say { thoughts, words, .. } => {
            let mut message = json!({"role": "assistant", "content": words.concat()});
            if !thoughts.is_empty() {
                message["reasoning_content"] = thoughts.concat().into();
            }
            (message, "stop")
        }
        Plan::Call { name, input, .. } => {
            let call = json!({"id": format!("call_mock{number}"), "type": "function",
                "function": {"name": name, "arguments": input.to_string()}});
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
    };
    json!([{"index": 0, "message": message, "finish_reason": finish}])
}

fn asked(body: &Value) -> Asked {
    let messages = list(body, "messages");
    let last = messages.iter().rposition(|message| message["role"] == "user");
    let after = messages.get(last.map_or(0, |at| at + 1)..).unwrap_or_default();
    let tool = |tool: &Value| {
        let function = tool.get("function")?;
        Some(Tool { name: text(function, "name").into(), schema: function["parameters"].clone() })
    };
    Asked {
        text: last.and_then(|at| messages.get(at)).map(|message| text_of(&message["content"])).unwrap_or_default(),
        tool_result: after.iter().any(|message| message["role"] == "tool"),
        tools: list(body, "tools").iter().filter_map(tool).collect(),
    }
}
