//! Agents that talk nonsense in the middle of a turn: the turn ends or can be stopped, and the next one is answered.

use std::path::Path;

use proptest::{prop_assert, test_runner::TestCaseError};
use serde_json::{Value, json};

use crate::{
    cases::{check, corpus, lines},
    gateway::{TestGateway, str_of, text, turn_id},
};

/// A scripted agent of `tests/agents`, the steps that say a word, and genuine messages of its protocol.
struct Subject {
    kind: &'static str,
    fake: &'static str,
    /// What a fake says one word with.
    say: fn(&str) -> Value,
    corpus: &'static str,
}

const ACP: Subject = Subject {
    kind: "acp",
    fake: "fake-acp.mjs",
    say: |word| json!([{ "say": word }]),
    corpus: include_str!("corpus/acp.jsonl"),
};
const CLAUDE: Subject = Subject {
    kind: "claude",
    fake: "fake-claude.mjs",
    say: |word| json!([{ "say": word }, {"result": {"result": word}}]),
    corpus: include_str!("corpus/claude.jsonl"),
};
const CODEX: Subject = Subject {
    kind: "codex",
    fake: "fake-codex.mjs",
    say: |word| json!([{ "say": word }]),
    corpus: include_str!("corpus/codex.jsonl"),
};
const PI: Subject = Subject {
    kind: "pi",
    fake: "fake-pi.mjs",
    say: |word| json!([{ "say": word }]),
    corpus: include_str!("corpus/pi.jsonl"),
};

/// A server with that agent as its default.
fn server(subject: &Subject) -> TestGateway {
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents").join(subject.fake);
    let command = json!(["node", fake]).to_string();
    TestGateway::with(&[
        ("GREENROOM_AGENTS__FUZZ__KIND", subject.kind),
        ("GREENROOM_AGENTS__FUZZ__COMMAND", &command),
        ("GREENROOM_AGENTS__FUZZ__ENV", r#"{ FAKE_LOG = "/dev/null" }"#),
        ("GREENROOM_SESSION__DEFAULT_AGENT", "fuzz"),
        ("GREENROOM_AGENT__CANCEL_TIMEOUT", "500ms"),
        ("GREENROOM_AGENT__KILL_GRACE", "500ms"),
    ])
}

/// One turn of nonsense, which is over in the end, and one that is answered; in a session of its own.
async fn talk(server: &TestGateway, subject: &Subject, noise: &str) -> Result<(), TestCaseError> {
    let script = json!([{ "raw": noise }]).to_string();
    let sent = server.post("/v1/sessions", json!({})).await.ok(201);
    let key = str_of(&sent, "key");
    let id = turn_id(&server.post(&format!("/v1/sessions/{key}/messages"), text(&script)).await.ok(202));
    // What the nonsense has made it wait for does not come: it is stopped, which must always work.
    if !over(&server.turn(key, &id).await) {
        server.act(&format!("/v1/sessions/{key}/abort")).await.ok(200);
    }
    server.finished(key, &id).await;
    let next = text(&(subject.say)("fine").to_string());
    let answer = server.post(&format!("/v1/sessions/{key}/messages?wait=60"), next).await.ok(200);
    let fine = answer["turn"]["state"] == "completed" && str_of(&answer, "response").contains("fine");
    prop_assert!(fine, "the turn after it: {answer}");
    let state = server.get(&format!("/v1/sessions/{key}/state")).await.ok(200);
    let open = [&state["tools"], &state["choices"], &state["queue"]];
    prop_assert!(open.iter().all(|list| list == &&json!([])), "something is left open: {state}");
    prop_assert!(!server.log().contains("panicked"), "{}", server.log());
    server.delete(&format!("/v1/sessions/{key}")).await.ok(204);
    Ok(())
}

fn over(turn: &Value) -> bool {
    matches!(str_of(turn, "state"), "completed" | "failed" | "cancelled" | "interrupted")
}

fn survives_nonsense_of(name: &'static str, subject: &Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { server(subject) });
    check(name, lines(corpus(subject.corpus), 24), |noise| runtime.block_on(talk(&server, subject, &noise)));
}

#[test]
fn an_acp_agent_may_say_anything() {
    survives_nonsense_of("acp", &ACP);
}

#[test]
fn claude_may_say_anything() {
    survives_nonsense_of("claude", &CLAUDE);
}

#[test]
fn codex_may_say_anything() {
    survives_nonsense_of("codex", &CODEX);
}

#[test]
fn pi_may_say_anything() {
    survives_nonsense_of("pi", &PI);
}
