//! Stopping: no new turns, a moment for running ones, honest ends; and what stops a start.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::gateway::{
    Socket, Sse, TestGateway, eventually, play, text, turn_id,
    wire::{is_control, is_log, of_type},
};

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = TestGateway::start();
        server.run("k", text("hi")).await;
        server.signal(signal);
        assert_eq!(server.exit().await.code(), Some(0));
        server.restart();
        assert_eq!(server.snapshot("k").await["message_count"], 2);
        server.assert_quiet();
    }
}

#[tokio::test]
async fn running_turns_get_their_grace() {
    let mut server = TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "20s")]);
    let steps = json!({"deltas": 100, "bytes": 10, "delay_ms": 20});
    let turn = turn_id(&server.message("k", play(steps)).await);
    let waiting = turn_id(&server.message("k", text("next time")).await);
    let mut stream = Sse::open(&server, "/v1/sessions/k/events?after=0").await;
    let mut socket = Socket::open(&server, "/v1/sessions/k/ws").await;
    let mut idle = Socket::open(&server, "/v1/ws").await;
    idle.ok(json!({"op": "ping"})).await;
    socket.until_type("session.hello").await;
    stream.until_type("message.delta").await;
    server.signal(Signal::SIGTERM);
    let refused = eventually("refused", async || {
        let reply = server.post("/v1/sessions/other/messages", text("too late")).await;
        (reply.status != 202).then_some(reply)
    });
    let refused = refused.await;
    refused.refused(503, "shutting_down");
    assert!(!refused.header("retry-after").is_empty(), "{:?}", refused.headers);
    let ready = server.get("/ready").await;
    assert_eq!(ready.status, 503);
    let frames = stream.rest().await;
    let end = frames.last().unwrap();
    is_control(end);
    assert_eq!(
        (&end["type"], &end["data"]),
        (&json!("stream.end"), &json!({"reason": "shutting_down", "retry": true}))
    );
    let finished: Vec<_> = of_type(&frames, "turn.finished");
    assert_eq!((finished.len(), &finished[0]["data"]["state"]), (1, &json!("completed")));
    assert_eq!(socket.close().await.0, 1001);
    assert_eq!(idle.close().await.0, 1001);
    assert_eq!(server.exit().await.code(), Some(0));

    server.restart();
    assert_eq!(server.finished("k", &waiting).await["state"], "completed", "what waited runs after the restart");
    assert_eq!(server.turn("k", &turn).await["state"], "completed");
    is_log(&server.events("k").await, 1);
    server.assert_quiet();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_interrupted() {
    let mut server =
        TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "100ms"), ("GREENROOM_AGENT__CANCEL_TIMEOUT", "100ms")]);
    let hanging = server.hang("k", json!({"text": "so far"})).await;
    let deaf = server.hang("deaf", json!({"ignore_cancel": true})).await;
    let asking = turn_id(&server.message("asks", play(json!({"ask": "permission"}))).await);
    server.until("asks", |event| event["type"] == "choice.requested").await;
    let mut stream = Sse::open(&server, "/v1/sessions/k/events").await;
    stream.until_type("session.hello").await;
    server.signal(Signal::SIGTERM);
    let frames = stream.rest().await;
    assert_eq!(of_type(&frames, "turn.finished")[0]["data"]["state"], "interrupted");
    let end = frames.last().unwrap();
    assert_eq!((&end["type"], &end["data"]["reason"]), (&json!("stream.end"), &json!("shutting_down")));
    assert_eq!(server.exit().await.code(), Some(0));
    server.restart();
    for (key, turn) in [("k", hanging), ("deaf", deaf), ("asks", asking)] {
        let turn = server.turn(key, &turn).await;
        assert_eq!(turn["state"], "interrupted", "{turn}");
        assert!(turn["reason"].is_string(), "{turn}");
        is_log(&server.events(key).await, 1);
    }
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    assert_eq!(messages["data"][1]["parts"][0]["text"], "so far");
    assert_eq!(server.get("/v1/choices").await.ok(200)["data"], json!([]));
}

#[tokio::test]
async fn whoever_waits_for_a_turn_hears_how_it_ended() {
    let mut server = TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "100ms")]);
    let hanging = play(json!({"hang": true, "text": "so far"}));
    let waiting = server.post("/v1/sessions/waited/messages?wait=60", hanging.clone());
    let request = server.request("POST", "/v1/sessions/streamed/messages").header("accept", "text/event-stream");
    let mut stream = Sse::from(request.json(&hanging)).await;
    let stop = async {
        for key in ["waited", "streamed"] {
            eventually("it has begun", async || {
                (server.get(&format!("/v1/sessions/{key}")).await.status == 200).then_some(())
            })
            .await;
            server.until(key, |event| event["type"] == "message.delta").await;
        }
        server.signal(Signal::SIGTERM);
    };
    let (waited, (), frames) = tokio::join!(waiting, stop, stream.rest());
    let waited = waited.ok(200);
    assert_eq!((&waited["turn"]["state"], &waited["response"]), (&json!("interrupted"), &json!("so far")));
    assert_eq!(frames.last().unwrap()["data"]["state"], "interrupted", "{frames:#?}");
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut server = TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "10m")]);
    let turn = server.hang("k", json!({})).await;
    server.signal(Signal::SIGTERM);
    eventually("it drains", async || (server.get("/ready").await.status == 503).then_some(())).await;
    server.signal(Signal::SIGTERM);
    server.exit().await;
    server.restart();
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("interrupted"), &json!("server_restart")));
}

#[tokio::test]
async fn a_mistake_in_the_configuration_stops_the_start() {
    for (name, value) in [
        ("GREENROOM_SESSION__MAX_QUEU", "5"),
        ("GREENROOM_NONSENSE", "1"),
        ("GREENROOM_CHOICE__TIMEOUT", "soon"),
        ("GREENROOM_STREAM__MAX_LAG_BYTES", "many"),
        ("GREENROOM_BIND", "0.0.0.0:0"),
        ("GREENROOM_SESSION__DEFAULT_AGENT", "nobody"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.arg("serve").current_dir(dir.path()).env_clear().env("HOME", dir.path()).env(name, value);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{name}={value}: {output:?}");
    }
}
