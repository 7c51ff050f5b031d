//! WebSockets: handshake, ops, what closes a connection and with which code.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::frame::{
            Frame, FrameHeader,
            coding::{Control, Data, OpCode},
        },
    },
};

use crate::client::{Server, code};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(server: &Server) -> Socket {
    let mut request = format!("ws://{}/v1/ws", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "other, greenroom.v1".parse().unwrap());
    request.headers_mut().insert("x-request-id", "socket-1".parse().unwrap());
    let (socket, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "greenroom.v1");
    assert_eq!(response.headers()["x-request-id"], "socket-1");
    socket
}

/// The next text as JSON.
async fn text(socket: &mut Socket) -> Value {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("a frame");
        match next.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code that the server closes with, after any number of texts.
async fn closed(socket: &mut Socket) -> u16 {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("a close");
        match next.unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code.into(),
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[actix_web::test]
async fn ops_are_answered_in_order_with_their_ids() {
    let server = Server::start(&[]);
    let mut socket = connect(&server).await;
    for id in 0..200 {
        let op = if id % 2 == 0 {
            json!({"id": id, "op": "ping"})
        } else {
            json!({"id": id, "op": "cancel", "session": "a", "turn_id": "turn_x"})
        };
        socket.feed(Message::text(op.to_string())).await.unwrap();
    }
    socket.flush().await.unwrap();
    for id in 0..200 {
        let reply = text(&mut socket).await;
        assert_eq!((&reply["type"], &reply["id"]), (&json!("reply"), &json!(id)));
        assert_eq!(reply["ok"], id % 2 == 0);
        if id % 2 == 1 {
            assert_eq!(reply["error"]["request_id"], "socket-1");
        }
    }
}

#[actix_web::test]
async fn bad_frames_are_answered_until_there_are_too_many() {
    let server = Server::start(&[]);
    let mut socket = connect(&server).await;
    socket.send(Message::text("{")).await.unwrap();
    let reply = text(&mut socket).await;
    assert_eq!(
        (&reply["ok"], &reply["id"], &reply["error"]["code"]),
        (&json!(false), &json!(null), &json!("invalid_json"))
    );
    socket.send(Message::text(r#"{"id":"x","op":"fly","session":"a"}"#)).await.unwrap();
    let reply = text(&mut socket).await;
    assert_eq!(reply["id"], "x");
    assert!(reply["error"]["message"].as_str().unwrap().contains("subscribe"));
    socket.send(Message::text(r#"{"id":"y","op":"ping"}"#)).await.unwrap();
    assert_eq!(text(&mut socket).await["ok"], true);
    for _ in 0..20 {
        socket.feed(Message::text("{")).await.unwrap();
    }
    socket.flush().await.unwrap();
    assert_eq!(closed(&mut socket).await, 1008);
}

#[actix_web::test]
async fn what_is_no_small_text_closes_with_its_code() {
    let server = Server::start(&[("LIMITS__MAX_FRAME", "1KiB")]);
    let raw = |payload: Vec<u8>, kind, last| Message::Frame(Frame::message(payload, OpCode::Data(kind), last));
    for (messages, expected) in [
        (vec![Message::binary(Bytes::from_static(b"{}"))], 1003),
        (vec![Message::text("x".repeat(1025))], 1009),
        (vec![raw(vec![b'x'; 600], Data::Text, false), raw(vec![b'x'; 600], Data::Continue, true)], 1009),
        (vec![raw(vec![0xff], Data::Text, true)], 1007),
        (vec![raw(vec![b'x'], Data::Continue, true)], 1002),
    ] {
        let mut socket = connect(&server).await;
        for message in messages {
            socket.send(message).await.unwrap();
        }
        assert_eq!(closed(&mut socket).await, expected);
    }
    let mut socket = connect(&server).await;
    let (start, rest) = r#"{"id":1,"op":"ping"}"#.split_at(5);
    socket.send(raw(start.into(), Data::Text, false)).await.unwrap();
    socket.send(Message::Ping(Bytes::from_static(b"between"))).await.unwrap();
    socket.send(raw(rest.into(), Data::Continue, true)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"between")));
    assert_eq!(text(&mut socket).await["ok"], true);
}

/// The ping that a page's script sees.
fn is_ping(message: &Message) -> bool {
    matches!(message, Message::Text(text) if text.starts_with(r#"{"type":"ping","#))
}

#[actix_web::test]
async fn a_client_that_closes_is_answered_and_one_that_is_silent_is_closed() {
    let server = Server::start(&[("STREAM__HEARTBEAT", "50ms"), ("STREAM__DEAD_AFTER", "300ms")]);
    let mut socket = connect(&server).await;
    socket.close(None).await.unwrap();
    while let Some(message) = socket.next().await {
        let message = message.unwrap();
        assert!(!message.is_text() || is_ping(&message), "{message:?}");
    }
    // Pongs are sent by reading: a client that reads lives on, one that does not is closed.
    let mut lively = connect(&server).await;
    let silent = connect(&server).await;
    let alive = tokio::time::timeout(Duration::from_secs(1), lively.next());
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    assert!(matches!(alive.await, Ok(Some(Ok(Message::Ping(_))))));
    while let Ok(message) = tokio::time::timeout_at(until, lively.next()).await {
        let message = message.unwrap().unwrap();
        assert!(matches!(message, Message::Ping(_)) || is_ping(&message), "{message:?}");
    }
    let mut silent = silent;
    assert_eq!(closed(&mut silent).await, 1008);
}

#[actix_web::test]
async fn a_request_that_is_no_handshake_is_told_so() {
    let server = Server::start(&[]);
    for path in ["/v1/ws", "/v1/sessions/a/ws"] {
        assert_eq!(server.call("GET", path, &[], "").await.refused(), code(400, "invalid_parameter"), "{path}");
    }
}

#[actix_web::test]
async fn a_handshake_is_of_version_13_and_has_a_key() {
    let server = Server::start(&[]);
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let shake = async |headers: &[(&str, &str)]| {
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        let head: String =
            [&upgrade, headers].concat().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        server.first(format!("GET /v1/ws HTTP/1.1\r\nhost: {}\r\n{head}\r\n", server.address).as_bytes()).await
    };
    for version in ["8", "7", "0", "14", "13, 8", "x", ""] {
        let answer = shake(&[("sec-websocket-version", version), key]).await;
        assert_eq!(answer.refused(), code(426, "upgrade_required"), "{version}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{version}");
        assert_eq!(answer.header("upgrade"), Some("websocket"), "{version}");
    }
    let version = ("sec-websocket-version", "13");
    assert_eq!(shake(&[key]).await.refused(), code(400, "invalid_parameter"), "no version");
    assert_eq!(shake(&[version]).await.refused(), code(400, "invalid_parameter"), "no key");
    for bad in ["", "x", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "dGhlIHNhbXBsZSBub25jZ!=="] {
        let answer = shake(&[version, ("sec-websocket-key", bad)]).await;
        assert_eq!(answer.refused(), code(400, "invalid_parameter"), "{bad}");
    }
    assert_eq!(shake(&[version, key, key]).await.refused(), code(400, "invalid_parameter"), "two keys");
    assert_eq!(shake(&[version, key]).await.status, 101);
}

#[actix_web::test]
async fn a_close_that_no_client_may_send_is_a_fault() {
    let server = Server::start(&[]);
    let close = |payload: &[u8]| {
        let header = FrameHeader { opcode: OpCode::Control(Control::Close), ..FrameHeader::default() };
        Message::Frame(Frame::from_payload(header, payload.to_vec().into()))
    };
    for (payload, expected) in [
        (vec![], 1000),
        (4321_u16.to_be_bytes().to_vec(), 4321),
        (1005_u16.to_be_bytes().to_vec(), 1002),
        (999_u16.to_be_bytes().to_vec(), 1002),
        (vec![3], 1002),
        ([&1000_u16.to_be_bytes()[..], &[0xff]].concat(), 1007),
    ] {
        let mut socket = connect(&server).await;
        socket.send(close(&payload)).await.unwrap();
        assert_eq!(closed(&mut socket).await, expected, "{payload:?}");
    }
}

#[actix_web::test]
async fn pages_of_other_sites_get_no_socket() {
    let server = Server::start(&[]);
    let mut request = format!("ws://{}/v1/ws", server.address).into_client_request().unwrap();
    request.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    let Err(Error::Http(response)) = connect_async(request).await else { panic!("upgraded") };
    assert_eq!(response.status(), 403);
    assert!(String::from_utf8_lossy(response.body().as_deref().unwrap()).contains("origin_not_allowed"));
}

#[actix_web::test]
async fn everything_that_is_open_ends_with_a_word_when_the_server_stops() {
    let mut server = Server::start(&[]);
    let json = [("content-type", "application/json")];
    assert_eq!(server.call("POST", "/v1/sessions", &json, r#"{"key":"a"}"#).await.status, 201);
    let mut idle = connect(&server).await;
    let mut follower = connect(&server).await;
    follower.send(Message::text(r#"{"id":1,"op":"subscribe","session":"a"}"#)).await.unwrap();
    assert_eq!(text(&mut follower).await["type"], "reply");
    assert_eq!(text(&mut follower).await["type"], "session.hello");
    let mut stream = server.open("/v1/sessions/a/events").await;
    stream.until("session.hello").await;

    server.stop();
    assert_eq!(closed(&mut idle).await, 1001);
    let mut last = text(&mut follower).await;
    while last["type"] != "stream.end" {
        last = text(&mut follower).await;
    }
    assert_eq!((&last["data"]["reason"], &last["data"]["retry"]), (&json!("shutting_down"), &json!(true)));
    assert_eq!(closed(&mut follower).await, 1001);
    let rest = stream.rest().await;
    assert!(rest.contains("event: stream.end") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert!(server.ended().await);
}

#[actix_web::test]
async fn a_session_that_does_not_exist_is_told_by_the_close_code() {
    let server = Server::start(&[]);
    let (mut socket, _) = connect_async(format!("ws://{}/v1/sessions/nobody/ws", server.address)).await.unwrap();
    assert_eq!(closed(&mut socket).await, 4004);
}

#[actix_web::test]
async fn a_later_subscription_to_a_session_takes_the_place_of_the_earlier() {
    let server = Server::start(&[]);
    let mut socket = connect(&server).await;
    for op in [
        json!({"id": "send", "op": "send", "session": "a", "text": "one two three"}),
        json!({"id": "first", "op": "subscribe", "session": "a", "types": ["nothing."]}),
        json!({"id": "second", "op": "subscribe", "session": "a", "after": 0}),
    ] {
        socket.send(Message::text(op.to_string())).await.unwrap();
    }
    let mut seqs = Vec::new();
    let mut replies = Vec::new();
    let mut finished = false;
    while !finished {
        let frame = text(&mut socket).await;
        match frame["seq"].as_u64() {
            Some(seq) => seqs.push(seq),
            None if frame["type"] == "reply" => replies.push(frame["id"].clone()),
            None => {}
        }
        finished = frame["type"] == "turn.finished";
    }
    assert_eq!(replies, ["send", "first", "second"]);
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let other = json!({"id": 9, "op": "unsubscribe", "session": "a"});
    socket.send(Message::text(other.to_string())).await.unwrap();
    loop {
        let frame = text(&mut socket).await;
        if frame["type"] == "reply" {
            break assert_eq!(frame["result"]["subscribed"], true);
        }
    }
}

#[actix_web::test]
async fn a_session_that_is_deleted_ends_its_streams() {
    let server = Server::start(&[]);
    let json = [("content-type", "application/json")];
    assert_eq!(server.call("POST", "/v1/sessions", &json, r#"{"key":"a"}"#).await.status, 201);
    let (mut own, _) = connect_async(format!("ws://{}/v1/sessions/a/ws", server.address)).await.unwrap();
    assert_eq!(text(&mut own).await["type"], "session.hello");
    assert_eq!(server.call("DELETE", "/v1/sessions/a", &[], "").await.status, 204);
    let mut last = text(&mut own).await;
    while last["type"] != "stream.end" {
        last = text(&mut own).await;
    }
    assert_eq!((&last["data"]["reason"], &last["data"]["retry"]), (&json!("session_deleted"), &json!(false)));
    assert_eq!(closed(&mut own).await, 4004);
}
