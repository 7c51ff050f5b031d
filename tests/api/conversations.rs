//! The ends of conversations: reset, delete, leaving memory.

use serde_json::{Value, json};

use crate::gateway::{
    Socket, SocketFrame, Sse, TestGateway, eventually, play, str_of, text, turn_id,
    wire::{is_id, is_log, of_type, types},
};

/// Agents that do not hear a cancel are killed soon.
const IMPATIENT: &[(&str, &str)] = &[("GREENROOM_AGENT__CANCEL_TIMEOUT", "400ms")];

#[tokio::test]
async fn a_reset_begins_anew_and_keeps_the_old_readable() {
    let server = TestGateway::start();
    server.run("k", text("old times")).await;
    let old = server.snapshot("k").await;
    let fresh = server.act("/v1/sessions/k/reset").await.ok(200);
    is_id(&fresh["id"], "ses");
    assert_ne!(fresh["id"], old["id"]);
    assert_eq!((&fresh["message_count"], &fresh["key"]), (&json!(0), &json!("k")));
    let messages = async |query: String| server.get(&format!("/v1/sessions/k/messages{query}")).await.ok(200);
    assert_eq!(messages(String::new()).await["data"], json!([]));
    let kept = messages(format!("?id={}&order=asc", str_of(&old, "id"))).await;
    assert_eq!(kept["data"][0]["parts"][0]["text"], "old times");
    assert_eq!(kept["data"].as_array().unwrap().len(), 2);
    server.run("k", text("new times")).await;
    assert_eq!(messages(format!("?id={}", str_of(&fresh, "id"))).await["data"].as_array().unwrap().len(), 2);
    let events = server.events("k").await;
    is_log(&events, 1);
    let reset = of_type(&events, "session.reset")[0];
    assert_eq!(reset["data"]["changed"], json!({"id": fresh["id"], "previous_id": old["id"]}));
    // A conversation of another key is none of this one.
    server.run("other", text("hi")).await;
    let other = server.snapshot("other").await;
    server.get(&format!("/v1/sessions/k/messages?id={}", str_of(&other, "id"))).await.refused(404, "session_not_found");
}

#[tokio::test]
async fn a_reset_stops_what_runs_and_settles_what_waits() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({"text": "so far"})).await;
    let waiting = turn_id(&server.message("k", text("waits")).await);
    let id = server.snapshot("k").await["id"].clone();
    assert_ne!(server.act("/v1/sessions/k/reset").await.ok(200)["id"], id);
    for (turn, at) in [(&running, "started_at"), (&waiting, "finished_at")] {
        let turn = server.turn("k", turn).await;
        assert_eq!((&turn["state"], &turn["reason"]), (&json!("cancelled"), &json!("session_reset")), "{turn}");
        assert!(turn[at].is_string(), "{turn}");
    }
    let events = server.events("k").await;
    is_log(&events, 1);
    assert_eq!(events.last().unwrap()["type"], "session.reset");
    assert_eq!(of_type(&events, "turn.started").len(), 1, "what waited never ran");
}

#[tokio::test]
async fn a_reset_cancels_what_was_offered_to_the_running_turn() {
    let server = TestGateway::with(IMPATIENT);
    server.hang("k", json!({"ignore_cancel": true, "ask": "permission"})).await;
    server.until("k", |event| event["type"] == "choice.requested").await;
    // The agent waits for an answer: it does not take the text.
    let mut steer = text("offered");
    steer["policy"] = json!("steer");
    server.message("k", steer).await;
    server.act("/v1/sessions/k/reset").await.ok(200);
    let marker = server.run("k", text("after the reset")).await;
    assert_eq!(marker["response"], "after the reset");
    let events = server.events("k").await;
    is_log(&events, 1);
    let ran: Vec<&Value> = of_type(&events, "turn.started");
    assert_eq!(ran.len(), 2, "the text did not run in the new conversation: {:?}", types(&events));
}

#[tokio::test]
async fn a_message_that_comes_while_a_reset_waits_is_of_the_new_conversation() {
    let server = TestGateway::with(&[("GREENROOM_AGENT__CANCEL_TIMEOUT", "2s")]);
    server.hang("k", json!({"ignore_cancel": true})).await;
    let old = server.snapshot("k").await["id"].clone();
    let reset = server.act("/v1/sessions/k/reset");
    let send = async {
        // The stop shows in nothing but the answer of the reset, so this asks as late as it can and before that.
        tokio::task::yield_now().await;
        let request = server.request("POST", "/v1/sessions/k/messages").header("idempotency-key", "once");
        server.send(request.json(&text("in between"))).await.ok(202)
    };
    let (reset, sent) = tokio::join!(reset, send);
    assert_ne!(reset.ok(200)["id"], old);
    let turn = server.finished("k", &turn_id(&sent)).await;
    if turn["reason"] == "session_reset" {
        // It was accepted before the reset after all.
        assert_eq!(turn["state"], "cancelled");
        return;
    }
    assert_eq!(turn["state"], "completed", "{turn}");
    let messages = server.get("/v1/sessions/k/messages").await.ok(200);
    assert_eq!(messages["data"].as_array().unwrap().len(), 2, "in the new conversation: {messages}");
    let again = server.request("POST", "/v1/sessions/k/messages?wait=5").header("idempotency-key", "once");
    assert_eq!(server.send(again.json(&text("in between"))).await.ok(200)["response"], "in between");
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn a_delete_takes_everything_and_the_key_goes_on_counting() {
    let server = TestGateway::start();
    let turn = turn_id(&server.run("k", text("hi")).await);
    let mut stream = Sse::open(&server, "/v1/sessions/k/events?after=0").await;
    let mut socket = Socket::open(&server, "/v1/sessions/k/ws").await;
    socket.until_type("session.hello").await;
    let last = server.snapshot("k").await["last_seq"].as_u64().unwrap();
    let reply = server.delete("/v1/sessions/k").await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");
    server.get(&format!("/v1/sessions/k/turns/{turn}")).await.refused(404, "session_not_found");
    server.delete("/v1/sessions/k").await.refused(404, "session_not_found");

    let frames = stream.rest().await;
    let deleted = frames.iter().find(|frame| frame["type"] == "session.deleted").unwrap();
    assert_eq!(deleted["seq"], last + 1);
    let end = frames.last().unwrap();
    assert_eq!(
        (&end["type"], &end["data"]),
        (&json!("stream.end"), &json!({"reason": "session_deleted", "retry": false}))
    );
    assert_eq!(socket.close().await.0, 4004);

    let path = format!("/v1/sessions/k/events?after={}", last + 1);
    server.get(&path).await.refused(404, "session_not_found");
    let made = server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    assert_eq!(made["last_seq"], last + 2);
    // Who saw the end of the first life has missed nothing of the second.
    let mut again = Sse::open(&server, &path).await;
    assert_eq!(again.json().await.unwrap()["type"], "session.hello");
    let created = again.json().await.unwrap();
    assert_eq!((&created["type"], &created["seq"]), (&json!("session.created"), &json!(last + 2)));
    server.get(&format!("/v1/sessions/k/turns/{turn}")).await.refused(404, "turn_not_found");
    assert_eq!(server.get("/v1/sessions/k/messages").await.ok(200)["data"], json!([]));
    let events = server.events("k").await;
    assert_eq!(events.last().unwrap()["type"], "session.created");
    is_log(&events, events[0]["seq"].as_u64().unwrap());
    server.assert_quiet();
}

#[tokio::test]
async fn deleting_what_is_busy_needs_force() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    let waiting = turn_id(&server.message("k", text("waits")).await);
    server.delete("/v1/sessions/k").await.refused(409, "session_busy");
    server.delete("/v1/sessions/k?force=false").await.refused(409, "session_busy");
    server.delete("/v1/sessions/k?force=maybe").await.assert_envelope();
    let mut stream = Sse::open(&server, "/v1/sessions/k/events").await;
    stream.until_type("session.hello").await;
    assert_eq!(server.delete("/v1/sessions/k?force=true").await.status, 204);
    let frames = stream.rest().await;
    for turn in [&running, &waiting] {
        let end = frames.iter().find(|frame| frame["type"] == "turn.finished" && frame["turn_id"] == **turn).unwrap();
        assert_eq!(end["data"]["state"], "cancelled");
    }
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");
}

#[tokio::test]
async fn a_message_accepted_while_a_delete_waits_is_not_lost() {
    let server = TestGateway::with(&[("GREENROOM_AGENT__CANCEL_TIMEOUT", "1s")]);
    server.hang("k", json!({"ignore_cancel": true})).await;
    let mut stream = Sse::open(&server, "/v1/sessions/k/events").await;
    stream.until_type("session.hello").await;
    let delete = server.delete("/v1/sessions/k?force=true");
    let send = async {
        tokio::task::yield_now().await;
        server.post("/v1/sessions/k/messages", text("in between")).await
    };
    let (deleted, sent) = tokio::join!(delete, send);
    assert_eq!(deleted.status, 204);
    if sent.status != 202 {
        sent.assert_envelope();
        return;
    }
    // Accepted is durable: it is told how it ended.
    let turn = turn_id(&sent.json());
    let frames = stream.rest().await;
    let end = frames.iter().find(|frame| frame["type"] == "turn.finished" && frame["turn_id"] == *turn);
    let ran_later = server.get(&format!("/v1/sessions/k/turns/{turn}")).await.status == 200;
    assert!(end.is_some() || ran_later, "accepted, and never heard of again: {:?}", types(&frames));
}

/// Waits until a session has left memory, or fails.
async fn leaves(server: &TestGateway, key: &str) {
    let gone = async || (server.snapshot(key).await["live"] == false).then_some(());
    eventually("the session leaves memory", gone).await;
}

#[tokio::test]
async fn an_idle_session_leaves_memory_and_comes_back_whole() {
    let server = TestGateway::with(&[
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "100ms"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "50ms"),
    ]);
    server.post("/v1/sessions", json!({"key": "k", "title": "T", "metadata": {"a": 1}})).await.ok(201);
    server.put("/v1/sessions/k/brief", json!({"goal": "g"})).await.ok(200);
    server.run("k", text("hi")).await;
    let before = server.snapshot("k").await;
    leaves(&server, "k").await;
    let mut asleep = server.snapshot("k").await;
    assert_eq!(asleep["live"], false);
    asleep["live"] = before["live"].clone();
    assert_eq!(asleep, before, "asleep it is the same");
    let state = server.get("/v1/sessions/k/state").await.ok(200);
    assert_eq!(state["messages"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/v1/sessions/k/brief").await.ok(200)["goal"], "g");
    assert_eq!(server.snapshot("k").await["live"], false, "looking wakes nothing");
    server.run("k", text("again")).await;
    leaves(&server, "k").await;
    // The primary session is untitled, which fits too, and may have been made last.
    let found = server.get("/v1/sessions?q=T").await.ok(200);
    let found = found["data"].as_array().unwrap().iter().find(|session| session["key"] == "k");
    assert_eq!(found.map(|session| &session["message_count"]), Some(&json!(4)));
    is_log(&server.events("k").await, 1);
    eventually("the primary session is live", async || (server.snapshot("main").await["live"] == true).then_some(()))
        .await;
    server.assert_quiet();
}

#[tokio::test]
async fn what_is_not_idle_stays_in_memory() {
    let server = TestGateway::with(&[
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "50ms"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "20ms"),
    ]);
    server.hang("runs", json!({})).await;
    server.message("asks", play(json!({"ask": "permission"}))).await;
    server.until("asks", |event| event["type"] == "choice.requested").await;
    server.run("followed", text("hi")).await;
    let mut socket = Socket::open(&server, "/v1/sessions/followed/ws").await;
    socket.until_type("session.hello").await;
    // Many sweeps later: another session has come and gone twice.
    for _ in 0..2 {
        server.run("idle", text("hi")).await;
        leaves(&server, "idle").await;
    }
    for key in ["runs", "asks", "followed", "main"] {
        assert_eq!(server.snapshot(key).await["live"], true, "{key}");
    }
    server.run("followed", text("more")).await;
    socket.until(|event| event["type"] == "turn.finished").await;
    socket.message(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    assert!(matches!(socket.next().await, SocketFrame::Close(..) | SocketFrame::Gone | SocketFrame::Text(_)));
    drop(socket);
    leaves(&server, "followed").await;
}

#[tokio::test]
async fn everything_at_once_leaves_a_session_that_works() {
    let server = TestGateway::start();
    let call = async |number: usize| match number % 6 {
        0 => server.delete("/v1/sessions/k?force=true").await,
        1 => server.post("/v1/sessions", json!({"key": "k"})).await,
        2 => server.act("/v1/sessions/k/reset").await,
        3 => server.post("/v1/sessions/k/messages", json!({"text": "x", "policy": "interrupt"})).await,
        4 => server.post("/v1/sessions/k/messages", play(json!({"deltas": 5, "delay_ms": 1}))).await,
        _ => server.post("/v1/sessions/k/messages", json!({"text": "x", "policy": "steer"})).await,
    };
    for _ in 0..10 {
        for reply in futures_util::future::join_all((0..30).map(call)).await {
            assert!(matches!(reply.status, 200..=204 | 404 | 409 | 429), "{} {}", reply.status, reply.text);
        }
    }
    let done = server.run("k", text("well")).await;
    assert_eq!(done["response"], "well");
    let events = server.events("k").await;
    // What an earlier delete told about its turns stands before the session that is there now.
    let made = events.iter().rposition(|event| event["type"] == "session.created").unwrap();
    is_log(&events[made..], events[made]["seq"].as_u64().unwrap());
    assert_eq!(server.snapshot("k").await["last_seq"], events.last().unwrap()["seq"]);
    server.assert_quiet();
}

#[tokio::test]
async fn what_was_said_when_a_delete_stopped_it_is_gone_with_the_session_for_whoever_comes_next() {
    let server = TestGateway::start();
    let secret = json!({"deltas": 3, "hang": true});
    server.message("k", text(&format!("/script {secret}"))).await;
    server.until("k", |event| event["type"] == "message.delta").await;
    server.message("k", text("a secret that waits")).await;
    let mut live = Sse::open(&server, "/v1/sessions/k/events?after=0").await;
    assert_eq!(server.delete("/v1/sessions/k?force=true").await.status, 204);
    let seen = live.rest().await;
    assert_eq!(of_type(&seen, "turn.finished").len(), 2, "who follows it sees how it ends: {seen:?}");
    let deleted = of_type(&seen, "session.deleted")[0]["seq"].as_u64().unwrap();

    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let expected = ["session.deleted", "session.created"];
    assert_eq!(types(&server.events("k").await), expected);
    let all = server.request("GET", "/v1/events?after=0").header("accept", "application/json");
    let all = server.send(all).await.ok(200);
    let of_key: Vec<_> = all["data"].as_array().unwrap().iter().filter(|event| event["session"] == "k").collect();
    assert_eq!(of_key.iter().map(|event| event["type"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    // Every way to read it begins in the same place.
    let mut stream = Sse::open(&server, "/v1/sessions/k/events?after=0").await;
    assert_eq!(stream.json().await.unwrap()["type"], "session.hello");
    let gap = stream.json().await.unwrap();
    assert_eq!((&gap["type"], &gap["data"]["to"]), (&json!("stream.gap"), &json!(deleted - 1)));
    for (kind, seq) in expected.iter().zip(deleted..) {
        let event = stream.json().await.unwrap();
        assert_eq!((&event["type"], &event["seq"]), (&json!(kind), &json!(seq)));
    }
    server.assert_quiet();
}

#[tokio::test]
async fn the_folder_of_a_deleted_session_is_gone_and_the_next_of_that_key_has_an_empty_one() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let environment = json!({"FAKE_LOG": log, "PATH": std::env::var("PATH").unwrap()});
    let mut server = TestGateway::with(&[
        ("GREENROOM_AGENTS__FAKE__KIND", "acp"),
        ("GREENROOM_AGENTS__FAKE__COMMAND", &json!(["node", script]).to_string()),
        ("GREENROOM_AGENTS__FAKE__ENV", &toml::Value::try_from(environment).unwrap().to_string()),
    ]);
    let run = async |server: &TestGateway| {
        server.run("k", json!({"text": "hi", "agent": "fake"})).await;
        let sent = std::fs::read_to_string(&log).unwrap();
        let mut opened = sent.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let opened = opened.rfind(|message| message["method"] == "session/new").unwrap();
        std::path::PathBuf::from(opened["params"]["cwd"].as_str().unwrap())
    };
    let work = run(&server).await;
    std::fs::write(work.join("private"), "x").unwrap();
    server.act("/v1/sessions/k/reset").await.ok(200);
    assert!(work.join("private").exists(), "a new conversation goes on with the files");
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    assert!(!work.exists());
    assert_eq!(run(&server).await, work);
    assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
    // What a crash has kept from being taken away is not for the next one either.
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    server.kill9();
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("private"), "x").unwrap();
    server.restart();
    run(&server).await;
    assert!(!work.join("private").exists());
    server.stop();
    server.restart();
    assert!(!server.data_dir().join("deleted").exists());
}
