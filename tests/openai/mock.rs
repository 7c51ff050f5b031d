//! The mock model server itself: every protocol says the same things, streamed and whole.

use reqwest::Client;
use serde_json::{Value, json};

use crate::mock_llm::MockLlm;

/// A protocol: its path, and its body for a text and whether a tool's result came after it.
struct Dialect {
    path: &'static str,
    body: fn(&str, bool) -> Value,
}

const DIALECTS: [Dialect; 4] = [
    Dialect { path: "/v1/chat/completions", body: chat },
    Dialect { path: "/v1/responses", body: responses },
    Dialect { path: "/v1/messages", body: anthropic },
    Dialect { path: "/v1beta/models/m:generateContent", body: gemini },
];

fn schema() -> Value {
    json!({"type": "object", "properties": {"command": {"type": "string"}, "n": {"type": "integer"}}, "required": ["n"]})
}

fn chat(text: &str, result: bool) -> Value {
    let mut messages = vec![json!({"role": "user", "content": [{"type": "text", "text": text}]})];
    if result {
        messages.push(json!({"role": "tool", "tool_call_id": "c", "content": "done"}));
    }
    let tool = json!({"type": "function", "function": {"name": "bash", "parameters": schema()}});
    json!({"messages": messages, "tools": [tool]})
}

fn responses(text: &str, result: bool) -> Value {
    let mut input = vec![json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})];
    if result {
        input.push(json!({"type": "function_call_output", "call_id": "c", "output": "done"}));
    }
    json!({"input": input, "tools": [{"type": "function", "name": "bash", "parameters": schema()}]})
}

fn anthropic(text: &str, result: bool) -> Value {
    let mut messages = vec![json!({"role": "user", "content": text})];
    if result {
        messages
            .push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "done"}]}));
    }
    json!({"messages": messages, "tools": [{"name": "bash", "input_schema": schema()}]})
}

fn gemini(text: &str, result: bool) -> Value {
    let mut contents = vec![json!({"role": "user", "parts": [{"text": text}]})];
    if result {
        contents.push(json!({"role": "user", "parts": [{"functionResponse": {"name": "bash", "response": {}}}]}));
    }
    let tool = json!({"functionDeclarations": [{"name": "bash", "parametersJsonSchema": schema()}]});
    json!({"contents": contents, "tools": [tool]})
}

/// Posts, and returns the status and the body, once all of it has shown to be JSON.
async fn answer(mock: &MockLlm, path: &str, body: &Value) -> (u16, String) {
    let response = Client::new().post(mock.url() + path).json(body).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    if serde_json::from_str::<Value>(&text).is_err() {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        assert!(data.map(serde_json::from_str::<Value>).all(|value| value.is_ok()), "{path}: {text}");
    }
    (status, text)
}

#[tokio::test]
async fn every_protocol_says_the_same_things_streamed_and_whole() {
    let mock = MockLlm::start();
    for Dialect { path, body } in DIALECTS {
        for streamed in [false, true] {
            let path = if streamed { path.replace(":generate", ":streamGenerate") } else { path.to_owned() };
            let ask = async |text: &str, result: bool| {
                let mut body = body(text, result);
                body["stream"] = streamed.into();
                answer(&mock, &path, &body).await
            };
            let has = |(status, said): (u16, String), words: &[&str]| {
                assert_eq!(status, 200, "{path}");
                words.iter().for_each(|word| assert!(said.contains(word), "{path} {streamed}: no {word:?} in {said}"));
            };
            has(ask("hi", false).await, &["Hello ", "from ", "mock"]);
            has(ask("THINK", false).await, &["let me ", "think", "Hello "]);
            has(ask("USE_TOOL TOOL_CMD:[touch made]", false).await, &["bash", "command"]);
            has(ask("USE_TOOL", true).await, &["Tool ", "finished, ", "all done."]);
            for status in [401, 429, 500] {
                let (got, said) = ask(&format!("ERR{status}"), false).await;
                assert_eq!((got, said.contains("mock error")), (status, true), "{path}: {said}");
            }
        }
    }
    let seen = mock.generations();
    assert_eq!(seen.len(), 4 * 2 * 7);
    let numbers: Vec<usize> = seen.iter().map(|request| request.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

#[tokio::test]
async fn a_tool_is_called_with_an_input_that_fits_its_schema() {
    let mock = MockLlm::start();
    let whole = Client::new().post(mock.v1() + "/messages").json(&anthropic("USE_TOOL TOOL_CMD:[ls]", false));
    let answer: Value = whole.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["content"][0]["input"], json!({"command": "ls", "n": 1}));
    assert_eq!(answer["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_router_gets_an_object_of_its_schema() {
    let mock = MockLlm::start();
    let schema =
        json!({"properties": {"model": {"type": "string", "enum": ["flash", "pro"]}, "why": {"type": "string"}}});
    let config = json!({"responseMimeType": "application/json", "responseJsonSchema": schema});
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": config});
    let call = Client::new().post(mock.url() + "/v1beta/models/m:generateContent").json(&body);
    let answer: Value = call.send().await.unwrap().json().await.unwrap();
    let text = answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({"model": "flash", "why": "x"}));
}
