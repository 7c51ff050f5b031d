//! Gemini's `…:generateContent` and `…:streamGenerateContent`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    plan::{Asked, Plan, Tool, list, placeholder, text, text_of},
    reply::Reply,
};

/// Answers request `number`.
pub fn reply(body: &Value, number: usize, streamed: bool) -> Reply {
    let (parts, pause) = match structured(body) {
        Some(object) => (vec![json!({"text": object.to_string()})], Duration::ZERO),
        None => match Plan::of(&asked(body)) {
            Plan::Error(status) => return Reply::error(status, "mock error"),
            Plan::Say { thoughts, words, pause } => {
                let words = words.into_iter().map(|word| json!({"text": word}));
                (thought_parts(thoughts).chain(words).collect(), pause)
            }
            Plan::Call { thoughts, name, input } => {
                let call = json!({"functionCall": {"name": name, "args": input, "id": format!("fc{number}")}});
                (thought_parts(thoughts).chain([call]).collect(), Duration::ZERO)
            }
        },
    };
    let usage = json!({"promptTokenCount": 100 + number, "candidatesTokenCount": 7, "totalTokenCount": 107 + number,
        "cachedContentTokenCount": 10});
    let last = |parts: Value| {
        json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP",
        "index": 0}], "usageMetadata": usage, "modelVersion": "mock", "responseId": format!("r{number}")})
    };
    if !streamed {
        return Reply::json(200, &last(json!(whole(parts))));
    }
    let mut reply = Reply::sse();
    for part in parts {
        let chunk = json!({"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "modelVersion": "mock", "responseId": format!("r{number}")});
        reply = reply.text(format!("data: {chunk}\r\n\r\n")).pause(pause);
    }
    let end = last(json!([{"text": ""}]));
    reply.text(format!("data: {end}\r\n\r\n"))
}

fn thought_parts(thoughts: Vec<String>) -> impl Iterator<Item = Value> {
    thoughts.into_iter().map(|thought| json!({"text": thought, "thought": true}))
}

/// Joins neighbouring text parts, as a whole answer has them.
fn whole(parts: Vec<Value>) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last)
                if last["text"].is_string() && part["text"].is_string() && last["thought"] == part["thought"] =>
            {
                let both = format!("{}{}", text(last, "text"), text(&part, "text"));
                last["text"] = both.into();
            }
            _ => joined.push(part),
        }
    }
    joined
}

/// An object of the schema that the request demands: routers and classifiers of clients ask so.
fn structured(body: &Value) -> Option<Value> {
    let config = body.get("generationConfig")?;
    let schema = config.get("responseJsonSchema").or_else(|| config.get("responseSchema"));
    if schema.is_none() && config["responseMimeType"] != "application/json" {
        return None;
    }
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
    let fields = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), placeholder(schema)));
    Some(Value::Object(fields.collect::<Map<_, _>>()))
}

fn asked(body: &Value) -> Asked {
    let contents = list(body, "contents").iter().rev();
    let mut from_user = contents.filter(|content| matches!(text(content, "role"), "user" | "function" | ""));
    let has_result =
        |content: &&Value| list(content, "parts").iter().any(|part| part.get("functionResponse").is_some());
    let last = from_user.next();
    let tool_result = last.as_ref().is_some_and(has_result);
    let spoken = if tool_result { from_user.find(|content| !has_result(content)) } else { last };
    let declarations = list(body, "tools").iter().flat_map(|tool| list(tool, "functionDeclarations"));
    let tool = |tool: &Value| {
        let schema = tool.get("parametersJsonSchema").or_else(|| tool.get("parameters"));
        Tool { name: text(tool, "name").into(), schema: schema.cloned().unwrap_or_default() }
    };
    Asked {
        text: spoken.map(|content| text_of(&content["parts"])).unwrap_or_default(),
        tool_result,
        tools: declarations.map(tool).collect(),
    }
}
