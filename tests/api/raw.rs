//! `agent.raw`: the agent's own messages, for those who ask for them, and never in the log.

use serde_json::{Value, json};

use crate::gateway::{Socket, Sse, TestGateway, str_of, text};

/// A program that speaks of itself before it answers.
const TALKER: [(&str, &str); 2] = [
    ("GREENROOM_AGENTS__TALKER__KIND", "command"),
    (
        "GREENROOM_AGENTS__TALKER__COMMAND",
        r#"["sh", "-c", "cat >/dev/null; echo '{\"type\":\"system\",\"subtype\":\"init\",\"mood\":\"fine\"}'; echo '{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"hi\"}'"]"#,
    ),
];

fn mood(frame: &Value) -> &str {
    assert!(frame.get("seq").is_none_or(Value::is_null), "it is no event: {frame}");
    str_of(&frame["data"]["message"], "mood")
}

#[tokio::test]
async fn the_agents_own_messages_go_to_those_who_ask_and_to_nobody_else() {
    let server = TestGateway::with(&TALKER);
    server.post("/v1/sessions", json!({"key": "k", "agent": "talker"})).await.ok(201);
    let mut sse = Sse::open(&server, "/v1/sessions/k/events?raw=true").await;
    let mut plain = Sse::open(&server, "/v1/sessions/k/events").await;
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket.ok(json!({"op": "subscribe", "session": "k", "raw": true})).await;
    server.run("k", text("hello")).await;
    assert_eq!(mood(&sse.until_type("agent.raw").await), "fine");
    assert_eq!(mood(&socket.until_type("agent.raw").await), "fine");
    let told = plain.until(|frame| frame["type"] == "turn.finished").await;
    assert!(told.iter().all(|frame| frame["type"] != "agent.raw"), "{told:?}");
    let stored = server.stored("k").await;
    assert!(stored.iter().all(|event| !event.contains("mood")), "{stored:?}");
}
