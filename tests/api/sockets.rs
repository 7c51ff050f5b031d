//! WebSockets: every op, every reply, the close codes, joining without a gap.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::gateway::{
    Socket, SocketFrame, TestGateway, eventually, play, script, str_of, text, turn_id,
    wire::{SNAPSHOT, TURN, has, is_control, is_log, is_time, of_type, said, types},
};

#[tokio::test]
async fn the_subprotocol_is_chosen_where_it_is_offered() {
    let server = TestGateway::start();
    let offered = [("sec-websocket-protocol", "other, greenroom.v1")];
    let socket = Socket::try_open(&server, "/v1/ws", &offered).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(socket.handshake.headers()["sec-websocket-protocol"], "greenroom.v1");
    let plain = Socket::open(&server, "/v1/ws").await;
    assert!(!plain.handshake.headers().contains_key("sec-websocket-protocol"));
    let reply = server.get("/v1/ws").await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    reply.assert_envelope();
}

#[tokio::test]
async fn ops_and_their_replies() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket.ok(json!({"op": "ping"})).await;
    let sent = socket.ok(json!({"op": "send", "session": "k", "text": "one two", "client_id": "c"})).await;
    has(&sent["turn"], TURN);
    assert_eq!(
        (&sent["position"], &sent["turn"]["source"], &sent["turn"]["client_id"]),
        (&json!(0), &json!("ws"), &json!("c"))
    );
    socket.ok(json!({"op": "subscribe", "session": "k", "after": 0})).await;
    let hello = socket.json().await;
    assert_eq!(hello["type"], "session.hello");
    is_control(&hello);
    let events = socket.until(|event| event["type"] == "turn.finished").await;
    is_log(&events, 1);
    has(&socket.ok(json!({"op": "snapshot", "session": "k"})).await, SNAPSHOT);

    let sent = socket.ok(json!({"op": "send", "session": "k", "text": script(&json!({"hang": true}))})).await;
    let running = turn_id(&sent);
    let queued = socket.ok(json!({"op": "send", "session": "k", "text": "waits"})).await;
    let cancelled = socket.ok(json!({"op": "cancel", "session": "k", "turn_id": turn_id(&queued)})).await;
    assert_eq!(cancelled["turn"]["state"], "cancelled");
    assert_eq!(socket.ok(json!({"op": "abort", "session": "k"})).await, json!({"ok": true, "turn_id": running}));
    socket.until(|event| event["type"] == "turn.finished" && event["turn_id"] == *running).await;
    assert_eq!(socket.ok(json!({"op": "abort", "session": "k"})).await, json!({"ok": false}));
    let gone = json!({"op": "cancel", "session": "k", "turn_id": running});
    socket.refused(gone, "turn_not_cancellable").await;

    socket.ok(json!({"op": "unsubscribe", "session": "k"})).await;
    eventually("nobody follows", async || (server.snapshot("k").await["subscribers"] == 0).then_some(())).await;
    server.run("k", text("unseen")).await;
    socket.ok(json!({"op": "ping"})).await;
    while let SocketFrame::Text(frame) = socket.next().await {
        let frame: Value = serde_json::from_str(&frame).unwrap();
        assert!(!frame.to_string().contains("unseen"), "{frame}");
        if frame["type"] == "reply" {
            break;
        }
        // What was on its way before the unsubscribe may come; a ping that is answered ends the wait.
        socket.text(json!({"id": "last", "op": "ping"}).to_string()).await;
    }
    server.assert_quiet();
}

#[tokio::test]
async fn ops_that_are_refused() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket.refused(json!({"op": "subscribe", "session": "none"}), "session_not_found").await;
    socket.refused(json!({"op": "snapshot", "session": "none"}), "session_not_found").await;
    socket.refused(json!({"op": "abort", "session": "none"}), "session_not_found").await;
    socket.refused(json!({"op": "send", "session": "k", "text": " "}), "missing_text").await;
    socket.refused(json!({"op": "send", "session": "k", "text": 5}), "invalid_json").await;
    socket.refused(json!({"op": "send", "session": "k", "txet": "x"}), "invalid_json").await;
    socket.refused(json!({"op": "cancel", "session": "main", "turn_id": "x"}), "turn_not_found").await;
    for bad in [
        json!({"op": "nope"}),
        json!({}),
        json!({"op": 5}),
        json!({"op": "subscribe"}),
        json!({"op": "subscribe", "session": "main", "after": -1}),
        json!({"op": "subscribe", "session": "a b"}),
    ] {
        let reply = socket.ask(bad.clone()).await;
        assert_eq!(
            (&reply["ok"], &reply["error"]["type"]),
            (&json!(false), &json!("invalid_request_error")),
            "{bad}: {reply}"
        );
    }
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");
    socket.ok(json!({"op": "ping"})).await;
    server.assert_quiet();
}

#[tokio::test]
async fn frames_that_are_no_op_are_told_and_too_many_of_them_end_it() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    for bad in ["", "{bad", "null", "[]", "\"x\"", "5", "{\"id\":{},\"op\":\"ping\"}", "{}"] {
        socket.text(bad).await;
        let reply = socket.reply(&Value::Null).await;
        assert_eq!(
            (&reply["ok"], &reply["error"]["code"]),
            (&json!(false), &json!("invalid_json")),
            "{bad:?}: {reply}"
        );
    }
    assert!(socket.ok(json!({"op": "ping"})).await.is_object());
    for _ in 0..100 {
        socket.text("{bad").await;
    }
    assert_eq!(socket.close().await.0, 1008);
    server.assert_quiet();
}

#[tokio::test]
async fn close_codes() {
    let server = TestGateway::start();
    let mut none = Socket::open(&server, "/v1/sessions/none/ws").await;
    assert_eq!(none.close().await.0, 4004);
    let mut none = Socket::open(&server, "/v1/sessions/none/ws?after=7").await;
    assert_eq!(none.close().await.0, 4004);

    let mut big = Socket::open(&server, "/v1/ws").await;
    let fits = json!({"op": "send", "session": "k", "text": "x".repeat(1_000_000)});
    big.ok(fits).await;
    big.text("x".repeat((1 << 20) + 1)).await;
    assert_eq!(big.close().await.0, 1009);

    let mut binary = Socket::open(&server, "/v1/ws").await;
    binary.message(Message::binary(b"{}".to_vec())).await;
    assert!((1002..=1008).contains(&binary.close().await.0));

    let mut polite = Socket::open(&server, "/v1/ws").await;
    polite.message(Message::Close(None)).await;
    assert!(matches!(polite.next().await, SocketFrame::Close(..) | SocketFrame::Gone));
    for path in ["/v1/sessions/k/ws?after=x", "/v1/sessions/a%20b/ws"] {
        assert!(Socket::try_open(&server, path, &[]).await.is_err(), "{path}");
    }
    server.assert_quiet();
}

#[tokio::test]
async fn the_server_pings() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__HEARTBEAT", "50ms"), ("GREENROOM_STREAM__DEAD_AFTER", "30s")]);
    let mut socket = Socket::open(&server, "/v1/ws").await;
    for _ in 0..2 {
        assert_eq!(socket.next().await, SocketFrame::Ping);
        // The same for a page's script, which does not see the protocol's pings.
        let SocketFrame::Text(frame) = socket.next().await else { panic!("no ping that a script can see") };
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        assert_eq!((&frame["type"], &frame["session"]), (&json!("ping"), &json!(null)));
        assert!(frame.get("seq").is_none());
        is_time(&frame["data"]["at"]);
    }
}

#[tokio::test]
async fn the_sessions_socket_subscribes_itself() {
    let server = TestGateway::start();
    server.run("k", text("before")).await;
    let last = server.snapshot("k").await["last_seq"].as_u64().unwrap();
    let mut socket = Socket::open(&server, "/v1/sessions/k/ws").await;
    let hello = socket.json().await;
    assert_eq!((&hello["type"], &hello["data"]["last_seq"]), (&json!("session.hello"), &json!(last)));
    is_time(&hello["data"]["at"]);
    // Ops without a session mean this one.
    socket.ok(json!({"op": "send", "text": "after"})).await;
    let events = socket.until(|event| event["type"] == "turn.finished").await;
    assert_eq!(events[0]["seq"], last + 1);
    let mut from = Socket::open(&server, &format!("/v1/sessions/k/ws?after={last}")).await;
    assert_eq!(from.until(|event| event["type"] == "turn.finished").await, events);
    let mut gap = Socket::open(&server, "/v1/sessions/k/ws?after=100000").await;
    gap.until_type("session.hello").await;
    let frame = gap.json().await;
    assert_eq!(frame["type"], "stream.gap");
    is_control(&frame);
    assert_eq!(serde_json::from_str::<Value>(&gap.stored().await).unwrap()["seq"], 1);
}

#[tokio::test]
async fn many_sessions_on_one_connection() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    for key in ["a", "b", "c"] {
        server.post("/v1/sessions", json!({"key": key})).await.ok(201);
        socket.ok(json!({"op": "subscribe", "session": key, "types": ["turn."]})).await;
    }
    for key in ["a", "b", "c"] {
        server.run(key, text(key)).await;
    }
    let mut seen: Vec<Value> = Vec::new();
    while of_type(&seen, "turn.finished").len() < 3 {
        seen.push(serde_json::from_str(&socket.stored().await).unwrap());
    }
    for key in ["a", "b", "c"] {
        let of_key: Vec<Value> = seen.iter().filter(|event| event["session"] == key).cloned().collect();
        assert_eq!(types(&of_key), ["turn.queued", "turn.started", "turn.finished"], "{key}");
    }
    // Subscribing again starts again, it does not double.
    socket.ok(json!({"op": "subscribe", "session": "a", "after": 0})).await;
    let again = socket.until(|event| event["type"] == "turn.finished" && event["session"] == "a").await;
    is_log(&again, 1);
}

#[tokio::test]
async fn a_subscriber_joins_without_a_gap_while_a_turn_streams() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")]);
    let turn = turn_id(&server.message("k", play(json!({"deltas": 300, "bytes": 10, "delay_ms": 2}))).await);
    let whole: String = (0..300).map(|i| format!("{i:06} xxx")).collect();
    let mut joined = 0;
    loop {
        let mut socket = Socket::open(&server, "/v1/ws").await;
        socket.ok(json!({"op": "subscribe", "session": "k", "after": 0})).await;
        let events = socket
            .until(|event| event["type"] == "turn.finished" || event["seq"].as_u64().unwrap() > joined * 25 + 10)
            .await;
        is_log(&events, 1);
        joined += 1;
        if events.last().unwrap()["type"] == "turn.finished" {
            assert_eq!(said(&events, &turn, "text"), whole);
            break;
        }
    }
    assert!(joined > 1, "the turn was over too soon to test anything");
}

#[tokio::test]
async fn what_is_sent_first_is_accepted_first() {
    let server = TestGateway::start();
    server.hang("k", json!({})).await;
    let mut socket = Socket::open(&server, "/v1/ws").await;
    for number in 0..50 {
        socket.text(json!({"id": number, "op": "send", "session": "k", "text": format!("{number}")}).to_string()).await;
    }
    for number in 0..50 {
        let reply = socket.reply(&json!(number)).await;
        assert_eq!(reply["result"]["position"], number, "{reply}");
    }
    let state = server.get("/v1/sessions/k/state").await.ok(200);
    let order: Vec<&str> = state["queue"].as_array().unwrap().iter().map(|turn| str_of(turn, "text")).collect();
    assert_eq!(order, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn sends_with_a_key_happen_once() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    let send = |words: &str| json!({"op": "send", "session": "k", "text": words, "idempotency_key": "once"});
    let first = socket.ok(send("hi")).await;
    assert_eq!(turn_id(&socket.ok(send("hi")).await), turn_id(&first));
    socket.refused(send("ho"), "idempotency_key_reused").await;
    assert_eq!(server.get("/v1/sessions/k/turns").await.ok(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn more_ops_than_may_wait_are_all_answered_in_order() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    // Many times what may wait: meanwhile the server reads no more of them.
    let ops = (0..1000).map(|n| match n % 4 {
        0 => json!({"id": n, "op": "send", "session": format!("k{}", n % 16), "text": "hi"}),
        _ => json!({"id": n, "op": "ping"}),
    });
    for op in ops {
        socket.text(op.to_string()).await;
    }
    for n in 0..1000 {
        assert_eq!(socket.reply(&json!(n)).await["ok"], true, "{n}");
    }
    server.assert_quiet();
}
