//! `kill -9`: what was accepted settles once, what waited runs once, what was said is kept.

use serde_json::{Value, json};

use crate::gateway::{
    TestGateway, eventually, play, str_of, text, turn_id,
    wire::{is_log, of_type, types},
};

#[tokio::test]
async fn a_crash_settles_what_ran_and_runs_what_waited() {
    let mut server = TestGateway::start();
    server.run("k", text("before")).await;
    let running = server.hang("k", json!({"reasoning": 1, "text": "so far"})).await;
    server.until("k", |event| event["type"] == "message.delta" && event["data"]["kind"] == "text").await;
    let mut waiting = Vec::new();
    for words in ["one", "two", "three"] {
        waiting.push(turn_id(&server.message("k", text(words)).await));
    }
    server.post(&format!("/v1/sessions/k/turns/{}/move", waiting[2]), json!({"before": waiting[0]})).await.ok(200);
    let before = server.stored("k").await;
    server.kill9();
    server.restart();
    for turn in &waiting {
        assert_eq!(server.finished("k", turn).await["state"], "completed");
    }
    let turn = server.turn("k", &running).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("interrupted"), &json!("server_restart")));
    assert_eq!(turn["summary"], "so far");
    let stored = server.stored("k").await;
    assert_eq!(stored[..before.len()], before, "no seq changed its meaning");
    let events = server.events("k").await;
    is_log(&events, 1);
    let order: Vec<&Value> = of_type(&events, "turn.started").iter().skip(2).map(|event| &event["turn_id"]).collect();
    assert_eq!(order, [&json!(waiting[2]), &json!(waiting[0]), &json!(waiting[1])], "each once, in order");
    let messages = server.get("/v1/sessions/k/messages?order=asc&limit=100").await.ok(200);
    let partial = &messages["data"][3];
    assert_eq!(partial["parts"][1]["text"], "so far", "{partial}");
    assert_eq!(messages["data"].as_array().unwrap().len(), 10);
    assert_eq!(messages["data"].as_array().unwrap().len(), server.snapshot("k").await["message_count"]);
    let snapshot = server.snapshot("k").await;
    assert_eq!((&snapshot["busy"], &snapshot["agent_status"]), (&json!(false), &json!("idle")));
    server.act(&format!("/v1/sessions/k/turns/{running}/retry")).await.ok(202);
    server.assert_quiet();
}

#[tokio::test]
async fn offered_texts_become_turns_after_a_crash() {
    let mut server = TestGateway::start();
    let running = turn_id(&server.message("k", play(json!({"ask": "permission"}))).await);
    server.until("k", |event| event["type"] == "choice.requested").await;
    server.message("k", text("waits")).await;
    for words in ["offered 1", "offered 2"] {
        server.message("k", json!({"text": words, "policy": "steer"})).await;
    }
    server.kill9();
    server.restart();
    let mut wanted = vec!["offered 1", "offered 2", "waits"];
    for words in wanted.clone() {
        server.until("k", |event| event["type"] == "turn.finished" && event["data"]["summary"] == words).await;
    }
    let events = server.events("k").await;
    is_log(&events, 1);
    let mut said: Vec<&str> =
        of_type(&events, "turn.finished")[1..].iter().map(|event| str_of(&event["data"], "summary")).collect();
    assert_eq!(said.len(), 3, "each once: {said:?}");
    said.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(said, wanted);
    assert_eq!(server.turn("k", &running).await["state"], "interrupted");
}

#[tokio::test]
async fn what_was_interrupted_runs_again_where_that_is_configured() {
    let mut server = TestGateway::with(&[("GREENROOM_RECOVERY__RETRY_INTERRUPTED", "1")]);
    let first = server.hang("k", json!({})).await;
    server.kill9();
    server.restart();
    let again = server.until("k", |event| event["type"] == "turn.started" && event["turn_id"] != *first).await;
    let again = str_of(again.last().unwrap(), "turn_id").to_owned();
    let turn = server.turn("k", &again).await;
    assert_eq!((&turn["continued_from"], &turn["attempt"]), (&json!(first), &json!(2)));
    assert_eq!(server.turn("k", &first).await["state"], "interrupted");
    server.kill9();
    server.restart();
    assert_eq!(server.finished("k", &again).await["state"], "interrupted");
    let events = server.events("k").await;
    is_log(&events, 1);
    assert_eq!(of_type(&events, "turn.queued").len(), 2, "at most once more");
}

/// An agent that speaks the Agent Client Protocol, calls a tool and never comes back.
const HALF_A_TOOL: &str = r#"
echo $$ > "$1"
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
    case "$line" in
        *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"protocolVersion":1,"agentCapabilities":{}}}' ;;
        *'"session/new"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"sessionId":"s1"}}' ;;
        *'"session/prompt"'*)
            echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s1","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"let me look"}}}}'
            echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s1","update":{"sessionUpdate":"tool_call","toolCallId":"c1","title":"ls","kind":"execute","status":"in_progress","rawInput":{"command":"ls"}}}}' ;;
    esac
done
sleep 1000
"#;

#[tokio::test]
async fn a_crash_settles_an_open_tool_call_and_kills_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (program, pid) = (dir.path().join("agent.sh"), dir.path().join("pid"));
    std::fs::write(&program, HALF_A_TOOL).unwrap();
    let command = json!(["/bin/sh", program, pid]).to_string();
    let mut server =
        TestGateway::with(&[("GREENROOM_AGENTS__HALF__KIND", "acp"), ("GREENROOM_AGENTS__HALF__COMMAND", &command)]);
    let turn = turn_id(&server.message("k", json!({"text": "go", "agent": "half"})).await);
    server
        .until("k", |event| {
            assert_ne!(event["type"], "turn.finished", "{event}");
            event["type"] == "tool.started"
        })
        .await;
    let state = server.get("/v1/sessions/k/state").await.ok(200);
    assert_eq!(state["tools"].as_array().unwrap().len(), 1, "{state}");
    assert!(state["tools"][0]["name"].is_string(), "{state}");
    let agent: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let agent = nix::unistd::Pid::from_raw(agent);
    server.kill9();
    server.restart();
    let done = server.finished("k", &turn).await;
    assert_eq!(done["state"], "interrupted");
    let events = server.events("k").await;
    is_log(&events, 1);
    let ended = of_type(&events, "tool.finished")[0];
    assert_eq!(ended["data"]["is_error"], true);
    let completed = of_type(&events, "message.completed").last().unwrap()["data"]["message"].clone();
    assert_eq!(completed["parts"][0]["text"], "let me look", "{:?}", types(&events));
    assert_eq!(completed["parts"][1]["status"], "failed");
    let gone = async || nix::sys::signal::kill(agent, None).is_err().then_some(());
    eventually("the agent of the dead server is gone", gone).await;
}
