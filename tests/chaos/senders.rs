//! Clients that send: with all policies, to all agents, over HTTP, as a stream and over WebSocket, with and without an
//! `Idempotency-Key`. What they were told in the end is noted for the judge.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    followers::sse_events,
    world::{Answer, Sent, World, breathe},
};

const POLICIES: [&str; 8] = ["enqueue", "enqueue", "enqueue", "enqueue", "steer", "interrupt", "reject", "replace"];

/// Two lines of messages for each session: one with keys, one without.
pub fn start(world: &Arc<World>, rng: &mut StdRng) -> Vec<JoinHandle<()>> {
    let lines = world.keys.clone().into_iter().flat_map(|key| [(key.clone(), true), (key, false)]);
    let spawn =
        |(line, (key, keyed))| tokio::spawn(send_all(Arc::clone(world), key, keyed, line, StdRng::from_rng(rng)));
    lines.enumerate().map(spawn).collect()
}

async fn send_all(world: Arc<World>, key: String, keyed: bool, line: usize, mut rng: StdRng) {
    for n in 0u64.. {
        if world.finished() {
            return;
        }
        let tag = format!("{key}/{line}/{n}.");
        let policy = POLICIES[rng.random_range(0..POLICIES.len())];
        let (agent, text) = work(&tag, &mut rng);
        let body = json!({ "text": text, "client_id": tag, "policy": policy, "agent": agent });
        let answer = if keyed {
            until_answered(&world, &key, &tag, &body, &mut rng).await
        } else {
            attempt(&world, &key, None, &body, &mut rng).await
        };
        let refused = matches!(answer, Answer::Refused(_));
        world.note(&key, Sent { tag, policy, keyed, answer, line });
        if refused || rng.random_ratio(1, 3) {
            tokio::time::sleep(std::time::Duration::from_millis(rng.random_range(5..60))).await;
        }
    }
}

/// An agent and what it is to do; the text holds the tag.
fn work(tag: &str, rng: &mut StdRng) -> (&'static str, String) {
    let fate = rng.random_range(0..100);
    match fate {
        0..4 => ("shell", format!("{tag} !die")),
        4..7 => ("shell", format!("{tag} !kill")),
        7..12 => ("shell", format!("{tag} !hang")),
        12..16 => ("shell", format!("{tag} !fork")),
        16..22 => ("shell", format!("{tag} !slow")),
        22..32 => ("fake", fake(tag, rng)),
        _ => ("echo", echo(tag, rng)),
    }
}

fn fake(tag: &str, rng: &mut StdRng) -> String {
    let last = match rng.random_range(0..7) {
        0 => json!({ "exit": { "code": 3, "stderr": "gone" } }),
        1 => json!({ "hang": null }),
        2 => json!({ "fork": { "detached": true } }),
        3 => json!({ "until_cancelled": null }),
        4 => json!({ "flood": 100 }),
        _ => json!({ "say": "the end" }),
    };
    json!([{ "say": tag }, last]).to_string()
}

fn echo(tag: &str, rng: &mut StdRng) -> String {
    let mut script = json!({ "deltas": rng.random_range(0..20), "delay_ms": rng.random_range(0..4), "text": tag });
    if rng.random_ratio(1, 4) {
        script["tool"] = json!({ "name": "bash", "input": { "command": "ls" }, "output": "a b" });
    }
    if rng.random_ratio(1, 8) {
        script["ask"] = json!(if rng.random() { "permission" } else { "question" });
    }
    // More than a subscriber may have waiting.
    if rng.random_ratio(1, 20) {
        (script["deltas"], script["bytes"], script["delay_ms"]) = (json!(40), json!(2_000), json!(0));
    }
    if rng.random_ratio(1, 40) {
        (script["hang"], script["ignore_cancel"]) = (json!(true), json!(rng.random::<bool>()));
    }
    format!("/script {script}")
}

/// The same message under its key until there is an answer, each time by another way; and sometimes once more, which
/// must be told the same.
async fn until_answered(world: &World, key: &str, tag: &str, body: &Value, rng: &mut StdRng) -> Answer {
    loop {
        match attempt(world, key, Some(tag), body, rng).await {
            Answer::Unknown => breathe().await,
            // Refused and not done: the same key may be tried again, and must not be held against it.
            Answer::Refused(code) if code != "session_busy" => breathe().await,
            answer => {
                let refused = matches!(answer, Answer::Refused(_));
                if !refused && rng.random_ratio(1, 5) {
                    // A text that was offered may have become a turn of its own since.
                    if let (Answer::Turn(again), Answer::Turn(first)) =
                        (attempt(world, key, Some(tag), body, rng).await, &answer)
                    {
                        assert_eq!(again, *first, "{tag}: it happened twice");
                    }
                }
                return answer;
            }
        }
    }
}

async fn attempt(world: &World, key: &str, once: Option<&str>, body: &Value, rng: &mut StdRng) -> Answer {
    match rng.random_range(0..8) {
        0 => by_stream(world, key, once, body).await,
        1 => by_socket(world, key, once, body).await,
        // The end of a turn does not tell whether the text was its own.
        2 if body["policy"] != "steer" => by_post(world, key, once, body, "?wait=0.3").await,
        _ => by_post(world, key, once, body, "").await,
    }
}

async fn by_post(world: &World, key: &str, once: Option<&str>, body: &Value, query: &str) -> Answer {
    let request = world.request(Method::POST, &format!("/v1/sessions/{key}/messages{query}")).json(body);
    let request = once.into_iter().fold(request, |request, once| request.header("idempotency-key", once));
    let Some((status, answer)) = world.call(request).await else { return Answer::Unknown };
    match status {
        200 | 202 => accepted(&answer),
        _ => refused(&answer["error"]),
    }
}

fn accepted(answer: &Value) -> Answer {
    let turn = answer["turn"]["id"].as_str().unwrap_or_else(|| panic!("no turn in {answer}")).to_owned();
    if answer["steered"] == true { Answer::Steered(turn) } else { Answer::Turn(turn) }
}

/// What a refusal says about whether anything was done. A 503 of the store is taken at its word where the store is a
/// file; a commit over a network may have lost nothing but its answer.
fn refused(error: &Value) -> Answer {
    let code = error["code"].as_str().unwrap_or_else(|| panic!("no code in {error}"));
    match code {
        "session_busy" | "queue_full" | "shutting_down" => Answer::Refused(code.to_owned()),
        "store_unavailable" if std::env::var("GREENROOM_TEST_STORE").is_err() => Answer::Refused(code.to_owned()),
        "store_unavailable" | "overloaded" | "internal" | "agent_error" => Answer::Unknown,
        _ => panic!("a send was answered {error}"),
    }
}

/// Sends and reads what comes of it, unless the connection breaks.
async fn by_stream(world: &World, key: &str, once: Option<&str>, body: &Value) -> Answer {
    let request = world.request(Method::POST, &format!("/v1/sessions/{key}/messages")).json(body);
    let request = once.into_iter().fold(request, |request, once| request.header("idempotency-key", once));
    let Some(answer) = world.head(request.header("accept", "text/event-stream")).await else { return Answer::Unknown };
    if answer.status() != 200 {
        let Ok(body) = answer.json::<Value>().await else { return Answer::Unknown };
        return match refused(&body["error"]) {
            // It may be accepted, and its events cannot be shown.
            Answer::Refused(code) if code == "store_unavailable" => Answer::Unknown,
            answer => answer,
        };
    }
    let (mut turn, mut ended, mut last) = (None, false, 0);
    let mut stream = sse_events(answer);
    while let Some((id, data)) = stream.next().await {
        if id.is_none() {
            continue;
        }
        let event: Value = serde_json::from_str(&data).unwrap();
        let seq = event["seq"].as_u64().unwrap();
        assert!(seq > last && !ended, "{key}: a stream of a turn goes on with {data}");
        last = seq;
        world.saw(key, seq, &data);
        let kind = event["type"].as_str().unwrap();
        // A text that was offered and is asked for again shows the turn that has taken it.
        if kind == "turn.queued" && event["data"]["turn"]["client_id"] == body["client_id"] {
            turn = event["turn_id"].as_str().map(str::to_owned);
        }
        ended = kind == "turn.finished";
    }
    if ended {
        world.count("turns followed by their sender");
    }
    // Without its `turn.queued` it is the running turn that was offered a text, or a stream that broke.
    turn.map_or(Answer::Unknown, Answer::Turn)
}

async fn by_socket(world: &World, key: &str, once: Option<&str>, body: &Value) -> Answer {
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(format!("ws://{}/v1/ws", world.address())).await else {
        return Answer::Unknown;
    };
    let mut op = body.clone();
    (op["op"], op["id"], op["session"]) = (json!("send"), json!("1"), json!(key));
    if let Some(once) = once {
        op["idempotency_key"] = json!(once);
    }
    if socket.send(Message::text(op.to_string())).await.is_err() {
        return Answer::Unknown;
    }
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["type"] == "reply" {
            assert_ne!(frame["error"]["code"], "internal", "{frame}");
            return if frame["ok"] == true { accepted(&frame["result"]) } else { refused(&frame["error"]) };
        }
    }
    Answer::Unknown
}
