//! Faults, one at a time, on a whole server: the store fails and heals, files are damaged, readers stall, sessions cannot
//! be read. What happens when all of it happens at once is the chaos suite's business.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod disk;
mod files;
#[path = "../support/gateway/mod.rs"]
mod gateway;
mod poison;
mod postgres;
mod readers;

use serde_json::Value;

use gateway::{Reply, TestGateway, eventually, text};

/// The refusal of a call while the store cannot be used: it says when to come back.
#[track_caller]
fn is_unavailable(reply: &Reply) {
    reply.refused(503, "store_unavailable");
    assert!(reply.header("retry-after").parse::<u32>().is_ok(), "{:?}", reply.headers);
}

/// Waits until the server says that its store fails; gives what it says.
async fn not_ready(server: &TestGateway) -> String {
    eventually("not ready", async || {
        let reply = server.get("/ready").await;
        (reply.status == 503).then(|| {
            let body: Value = reply.json();
            assert_eq!((&body["ready"], &body["error"]["code"]), (&Value::Bool(false), &"store_unavailable".into()));
            body["store"].as_str().unwrap().to_owned()
        })
    })
    .await
}

/// Waits until it takes work again, without a new start.
async fn healed(server: &TestGateway) {
    eventually("ready again", async || (server.get("/ready").await.status == 200).then_some(())).await;
    let done = eventually("a send is taken", async || {
        let reply = server.post("/v1/sessions/after/messages?wait=30", text("it works")).await;
        if reply.status == 503 {
            is_unavailable(&reply);
            return None;
        }
        Some(reply.ok(200))
    });
    assert_eq!(done.await["turn"]["state"], "completed");
}

/// Sends messages until one is refused for the store; gives the turns that were acknowledged.
async fn send_until_refused(server: &TestGateway, key: &str, words: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    loop {
        let reply = server.post(&format!("/v1/sessions/{key}/messages"), text(words)).await;
        if reply.status == 202 {
            acknowledged.push(reply.json()["turn"]["id"].as_str().unwrap().to_owned());
            assert!(acknowledged.len() < 2_000, "the fault does not show");
        } else if reply.status == 429 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        } else {
            is_unavailable(&reply);
            return acknowledged;
        }
    }
}

/// Each of the turns is in the log, ran once, and ended well.
async fn all_ran_once(server: &TestGateway, key: &str, turns: &[String]) {
    if let Some(last) = turns.last() {
        server.finished(key, last).await;
    }
    let events = server.events(key).await;
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event["seq"], seq, "the log has a gap");
    }
    for turn in turns {
        for (kind, count) in [("turn.queued", 1), ("turn.started", 1), ("turn.finished", 1)] {
            let of_kind = |event: &&Value| event["type"] == kind && event["turn_id"] == **turn;
            assert_eq!(events.iter().filter(of_kind).count(), count, "{turn}: {kind}");
        }
        assert_eq!(server.turn(key, turn).await["state"], "completed", "{turn}");
    }
}
