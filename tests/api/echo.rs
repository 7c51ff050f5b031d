//! The echo agent, exactly.

use serde_json::{Value, json};

use crate::gateway::{
    TestGateway, play, text, turn_id,
    wire::{is_log, of_type, said},
};

/// Deltas are not gathered: each is an event.
fn server() -> TestGateway {
    TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")])
}

fn deltas(events: &[Value], kind: &str) -> Vec<String> {
    let deltas = of_type(events, "message.delta").into_iter().filter(|event| event["data"]["kind"] == kind);
    deltas.map(|event| event["data"]["delta"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn it_says_the_prompt_in_deltas_of_a_word() {
    let server = server();
    let done = server.run("k", text("Hello,  big\nwörld!")).await;
    assert_eq!(done["response"], "Hello,  big\nwörld!");
    let events = server.events("k").await;
    is_log(&events, 1);
    let words = deltas(&events, "text");
    assert_eq!(words.concat(), "Hello,  big\nwörld!");
    assert!(words.len() >= 3 && words[0].trim() == "Hello,", "{words:?}");
    assert_eq!(done["turn"]["usage"]["output_tokens"], words.len());
    assert_eq!(server.run("k", text("/scripted is no script")).await["response"], "/scripted is no script");
}

#[tokio::test]
async fn a_script_is_played_in_order() {
    let server = server();
    let steps = json!({"reasoning": 2, "tool": {"name": "bash", "input": {"command": "ls"}, "output": "a b", "is_error": false},
        "deltas": 3, "bytes": 20, "delay_ms": 1, "text": "the end"});
    let done = server.run("k", play(steps)).await;
    let events = server.events("k").await;
    is_log(&events, 1);
    assert_eq!(deltas(&events, "reasoning").len(), 2);
    let expected = ["000000 xxxxxxxxxxxxx", "000001 xxxxxxxxxxxxx", "000002 xxxxxxxxxxxxx", "the end"];
    assert_eq!(deltas(&events, "text"), expected);
    let started = of_type(&events, "tool.started")[0];
    assert_eq!((&started["data"]["name"], &started["data"]["input"]), (&json!("bash"), &json!({"command": "ls"})));
    assert_eq!(started["data"]["input_summary"], "ls");
    let finished = of_type(&events, "tool.finished")[0];
    assert_eq!((&finished["data"]["output"], &finished["data"]["is_error"]), (&json!("a b"), &json!(false)));
    assert_eq!(finished["data"]["call_id"], started["data"]["call_id"]);
    assert_eq!(done["response"], expected.concat());
    assert_eq!(done["turn"]["usage"]["output_tokens"], 6);
    let message = of_type(&events, "message.completed")[1]["data"]["message"].clone();
    let parts: Vec<&str> =
        message["parts"].as_array().unwrap().iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(parts, ["reasoning", "tool_call", "text"]);
    assert_eq!((&message["parts"][1]["output"], &message["parts"][1]["is_error"]), (&json!("a b"), &json!(false)));
}

#[tokio::test]
async fn failures_are_failed_turns() {
    let server = server();
    let failed =
        server.run("k", play(json!({"tool": {"name": "t", "output": "x", "is_error": true}, "fail": "no luck"}))).await;
    assert_eq!((&failed["turn"]["state"], &failed["turn"]["error"]["message"]), (&json!("failed"), &json!("no luck")));
    assert_eq!(server.snapshot("k").await["agent_status"], "error");
    let events = server.events("k").await;
    assert_eq!(of_type(&events, "tool.finished")[0]["data"]["is_error"], true);
    for bad in
        ["/script {bad", "/script {\"nope\":1}", "/script []", "/script {\"deltas\":\"x\"}", "/script {\"ask\":\"me\"}"]
    {
        let failed = server.run("k", text(bad)).await;
        assert_eq!(failed["turn"]["state"], "failed", "{bad}");
        let message = failed["turn"]["error"]["message"].as_str().unwrap();
        assert!(message.len() > 10, "it says what is wrong: {message}");
    }
    assert_eq!(server.run("k", text("well again")).await["response"], "well again");
    assert_eq!(server.snapshot("k").await["agent_status"], "idle");
    is_log(&server.events("k").await, 1);
    server.assert_quiet();
}

#[tokio::test]
async fn an_empty_script_says_nothing() {
    let server = server();
    let done = server.run("k", play(json!({}))).await;
    assert_eq!((&done["turn"]["state"], &done["response"]), (&json!("completed"), &json!("")));
    assert_eq!(done["turn"]["usage"]["output_tokens"], 0);
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn deltas_are_gathered_but_the_first_is_not() {
    let server = TestGateway::start();
    let steps = json!({"deltas": 2000, "bytes": 10, "reasoning": 2});
    let turn = turn_id(&server.run("k", play(steps)).await);
    let events = server.events("k").await;
    is_log(&events, 1);
    let text = deltas(&events, "text");
    assert_eq!(text[0], "000000 xxx", "the first goes out at once");
    assert!(text.len() < 1000, "{} events for 2000 deltas", text.len());
    let whole: String = (0..2000).map(|i| format!("{i:06} xxx")).collect();
    assert_eq!(said(&events, &turn, "text"), whole);
    assert_eq!(server.turn("k", &turn).await["usage"]["output_tokens"], 2002);
}
