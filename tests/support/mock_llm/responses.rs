//! OpenAI's `/v1/responses`, streamed and whole.

use serde_json::{Value, json};

use super::{
    plan::{Asked, Plan, Tool, list, text, text_of},
    reply::Reply,
};

/// Answers request `number`.
pub fn reply(body: &Value, number: usize) -> Reply {
    let plan = Plan::of(&asked(body));
    if let Plan::Error(status) = plan {
        return Reply::error(status, "mock error");
    }
    let usage = json!({"input_tokens": 100 + number, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 107 + number});
    let response = |status: &str, output: &[Value]| {
        json!({"id": format!("resp_mock{number}"), "object": "response",
        "created_at": 1, "status": status, "model": body["model"], "output": output})
    };
    let mut events = Events { reply: Reply::sse(), sequence: 0, output: Vec::new() };
    events.emit("response.created", json!({"response": response("in_progress", &[])}));
    events.emit("response.in_progress", json!({"response": response("in_progress", &[])}));
    match plan {
        Plan::Error(_) => {}
        Plan::Say { thoughts, words, pause } => {
            events.thoughts(&thoughts, number);
            events.message(&words, pause, number);
        }
        Plan::Call { thoughts, name, input } => {
            events.thoughts(&thoughts, number);
            events.call(&name, &input.to_string(), number);
        }
    }
    let mut completed = response("completed", &events.output);
    completed["usage"] = usage;
    if body.get("stream") != Some(&Value::Bool(true)) {
        return Reply::json(200, &completed);
    }
    events.emit("response.completed", json!({"response": completed}));
    events.reply
}

/// The stream so far, and the items that it has finished.
struct Events {
    reply: Reply,
    sequence: u64,
    output: Vec<Value>,
}

impl Events {
    fn emit(&mut self, name: &str, mut data: Value) {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.reply = std::mem::replace(&mut self.reply, Reply::sse()).event(name, &data);
    }

    fn pause(&mut self, time: std::time::Duration) {
        self.reply = std::mem::replace(&mut self.reply, Reply::sse()).pause(time);
    }

    fn done(&mut self, item: Value) {
        let index = self.output.len();
        self.emit("response.output_item.done", json!({"output_index": index, "item": item}));
        self.output.push(item);
    }

    fn thoughts(&mut self, thoughts: &[String], number: usize) {
        if thoughts.is_empty() {
            return;
        }
        let (index, id, all) = (self.output.len(), format!("rs_mock{number}"), thoughts.concat());
        let item = |summary: Value| json!({"type": "reasoning", "id": id, "summary": summary});
        let at = |name: &str, value: Value| {
            let mut data = json!({"item_id": id, "output_index": index, "summary_index": 0});
            data[name] = value;
            data
        };
        let part = |text: &str| json!({"type": "summary_text", "text": text});
        self.emit("response.output_item.added", json!({"output_index": index, "item": item(json!([]))}));
        self.emit("response.reasoning_summary_part.added", at("part", part("")));
        for thought in thoughts {
            self.emit("response.reasoning_summary_text.delta", at("delta", thought.as_str().into()));
        }
        self.emit("response.reasoning_summary_text.done", at("text", all.as_str().into()));
        self.emit("response.reasoning_summary_part.done", at("part", part(&all)));
        self.done(item(json!([part(&all)])));
    }

    fn message(&mut self, words: &[String], pause: std::time::Duration, number: usize) {
        let (index, id, all) = (self.output.len(), format!("msg_mock{number}"), words.concat());
        let item = |status: &str, content: Value| json!({"type": "message", "id": id, "role": "assistant", "status": status, "content": content});
        let at = |name: &str, value: Value| {
            let mut data = json!({"item_id": id, "output_index": index, "content_index": 0});
            data[name] = value;
            data
        };
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        self.emit("response.output_item.added", json!({"output_index": index, "item": item("in_progress", json!([]))}));
        self.emit("response.content_part.added", at("part", part("")));
        for word in words {
            self.emit("response.output_text.delta", at("delta", word.as_str().into()));
            self.pause(pause);
        }
        self.emit("response.output_text.done", at("text", all.as_str().into()));
        self.emit("response.content_part.done", at("part", part(&all)));
        self.done(item("completed", json!([part(&all)])));
    }

    fn call(&mut self, name: &str, arguments: &str, number: usize) {
        let (index, id) = (self.output.len(), format!("fc_mock{number}"));
        let item = |status: &str, arguments: &str| {
            json!({"type": "function_call", "id": id, "call_id": format!("call_mock{number}"), "name": name,
                "arguments": arguments, "status": status})
        };
        let at = |key: &str| {
            let mut data = json!({"item_id": id, "output_index": index});
            data[key] = arguments.into();
            data
        };
        self.emit("response.output_item.added", json!({"output_index": index, "item": item("in_progress", "")}));
        self.emit("response.function_call_arguments.delta", at("delta"));
        self.emit("response.function_call_arguments.done", at("arguments"));
        self.done(item("completed", arguments));
    }
}

fn asked(body: &Value) -> Asked {
    let tool = |tool: &Value| Tool { name: text(tool, "name").into(), schema: tool["parameters"].clone() };
    let tools = list(body, "tools").iter();
    let tools = tools.filter(|tool| matches!(text(tool, "type"), "function" | "custom")).map(tool).collect();
    if let Some(text) = body["input"].as_str() {
        return Asked { text: text.into(), tool_result: false, tools };
    }
    let input = list(body, "input");
    let last = input.iter().rposition(|item| item["role"] == "user");
    let after = input.get(last.map_or(0, |at| at + 1)..).unwrap_or_default();
    Asked {
        text: last.and_then(|at| input.get(at)).map(|item| text_of(&item["content"])).unwrap_or_default(),
        tool_result: after.iter().any(|item| text(item, "type").ends_with("_call_output")),
        tools,
    }
}
