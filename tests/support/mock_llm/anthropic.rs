//! Anthropic's `/v1/messages`, streamed and whole.

use serde_json::{Value, json};

use super::{
    plan::{Asked, Plan, Tool, list, text, text_of},
    reply::Reply,
};

/// Answers request `number`.
pub fn reply(body: &Value, number: usize) -> Reply {
    let plan = Plan::of(&asked(body));
    let usage = |output: u64| {
        json!({"input_tokens": 100 + number, "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 10, "output_tokens": output})
    };
    let message = |content: Value, stop: Value, output: u64| {
        json!({"id": format!("msg_mock{number}"), "type": "message",
        "role": "assistant", "model": body["model"], "content": content, "stop_reason": stop, "stop_sequence": null,
        "usage": usage(output)})
    };
    let (thoughts, block, pieces, pause, stop) = match plan {
        Plan::Error(status) => return error(status),
        Plan::Say { thoughts, words, pause } => {
            (thoughts, json!({"type": "text", "text": words.concat()}), words, pause, "end_turn")
        }
        Plan::Call { thoughts, name, input } => {
            let written = input.to_string();
            let (first, second) = written.split_at(written.floor_char_boundary(written.len() / 2));
            let pieces = vec![first.to_owned(), second.to_owned()];
            let block = json!({"type": "tool_use", "id": format!("toolu_mock{number}"), "name": name, "input": input});
            (thoughts, block, pieces, std::time::Duration::ZERO, "tool_use")
        }
    };
    let thinking = json!({"type": "thinking", "thinking": thoughts.concat(), "signature": "c2ln"});
    if body.get("stream") != Some(&Value::Bool(true)) {
        let content = if thoughts.is_empty() { json!([block]) } else { json!([thinking, block]) };
        return Reply::json(200, &message(content, stop.into(), 7));
    }
    let event = |reply: Reply, name: &str, mut data: Value| {
        data["type"] = name.into();
        reply.event(name, &data)
    };
    let mut reply = event(Reply::sse(), "message_start", json!({"message": message(json!([]), Value::Null, 1)}));
    let delta = |reply: Reply, index: usize, delta: Value| {
        event(reply, "content_block_delta", json!({"index": index, "delta": delta}))
    };
    let mut index = 0;
    if !thoughts.is_empty() {
        let begin = json!({"type": "thinking", "thinking": "", "signature": ""});
        reply = event(reply, "content_block_start", json!({"index": index, "content_block": begin}));
        for thought in &thoughts {
            reply = delta(reply, index, json!({"type": "thinking_delta", "thinking": thought}));
        }
        reply = delta(reply, index, json!({"type": "signature_delta", "signature": "c2ln"}));
        reply = event(reply, "content_block_stop", json!({"index": index}));
        index += 1;
    }
    let is_call = stop == "tool_use";
    let mut begin = block;
    begin[if is_call { "input" } else { "text" }] = if is_call { json!({}) } else { "".into() };
    reply = event(reply, "content_block_start", json!({"index": index, "content_block": begin}));
    for piece in pieces {
        let piece = if is_call {
            json!({"type": "input_json_delta", "partial_json": piece})
        } else {
            json!({"type": "text_delta", "text": piece})
        };
        reply = delta(reply, index, piece).pause(pause);
    }
    reply = event(reply, "content_block_stop", json!({"index": index}));
    let stopped = json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage(7)});
    event(event(reply, "message_delta", stopped), "message_stop", json!({}))
}

fn error(status: u16) -> Reply {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        _ => "api_error",
    };
    Reply::json(status, &json!({"type": "error", "error": {"type": kind, "message": "mock error"}}))
}

/// A client writes a tool's result as a user message, and sometimes the user's next text into that same message.
fn asked(body: &Value) -> Asked {
    let tool = |tool: &Value| Some(Tool { name: text(tool, "name").into(), schema: tool.get("input_schema")?.clone() });
    let tools = list(body, "tools").iter().filter_map(tool).collect();
    let mut from_user = list(body, "messages").iter().rev().filter(|message| message["role"] == "user");
    let is_result = |block: &Value| block["type"] == "tool_result";
    let Some(last) = from_user.next() else { return Asked { text: String::new(), tool_result: false, tools } };
    let blocks = last["content"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(result) = blocks.iter().rposition(is_result) else {
        return Asked { text: text_of(&last["content"]), tool_result: false, tools };
    };
    let made_by_client = |text: &str| text.starts_with("<system-reminder") || text.starts_with("[Request interrupted");
    let after = blocks.iter().skip(result + 1).map(|block| text(block, "text"));
    let after: String = after.filter(|text| !made_by_client(text)).collect();
    if !after.is_empty() {
        return Asked { text: after, tool_result: false, tools };
    }
    let has_result = |message: &Value| message["content"].as_array().is_some_and(|blocks| blocks.iter().any(is_result));
    let text = from_user.find(|message| !has_result(message)).map(|message| text_of(&message["content"]));
    Asked { text: text.unwrap_or_default(), tool_result: true, tools }
}
