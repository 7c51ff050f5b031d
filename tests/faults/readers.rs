//! Readers that stall, vanish, or come back all at once, while a session floods them. Nothing here is timed: what counts
//! is who is cut and why, what waits meanwhile, and that nobody loses an event.

use std::net::SocketAddr;

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    gateway::{Socket, Sse, TestGateway, eventually, in_time, play, script, text, wire::is_log},
    healed,
};

const BOUND: u64 = 256 * 1024;
/// What one commit of a flood has at most: it waits whole, whatever the bound.
const COMMIT: u64 = 1 << 20;

fn flooded() -> TestGateway {
    TestGateway::with(&[
        ("GREENROOM_STREAM__FLUSH_INTERVAL", "0s"),
        ("GREENROOM_STREAM__MAX_LAG_BYTES", "256KiB"),
        ("GREENROOM_STREAM__MAX_LAG", "3s"),
    ])
}

/// A connection that has asked and then takes nothing; its own buffers are small, too.
async fn stalled(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const SSE: &str = "accept: text/event-stream\r\nconnection: close\r\n";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn metric(server: &TestGateway, name: &str) -> u64 {
    let text = server.get("/metrics").await.text;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    lines.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// Everything that is left in a connection.
async fn drained(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The kernel may break it off in the end.
    in_time("the end of a stalled stream", async { drop(stream.read_to_end(&mut bytes).await) }).await;
    bytes
}

/// The payloads of a server's frames with their opcodes, after the head of its answer. A frame that is cut off is left out.
fn frames(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let (mut rest, mut found) = (&bytes[head..], Vec::new());
    while let [first, second, ..] = rest {
        let (skip, length) = match second & 0x7f {
            126 if rest.len() >= 4 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 if rest.len() >= 10 => {
                (10, usize::try_from(u64::from_be_bytes(rest[2..10].try_into().unwrap())).unwrap())
            }
            126 | 127 => break,
            short => (2, usize::from(short)),
        };
        let Some(payload) = rest.get(skip..skip + length) else { break };
        found.push((first & 0x0f, payload.to_vec()));
        rest = &rest[skip + length..];
    }
    found
}

/// The numbers of the events, which must be the log's from its beginning.
fn numbers(events: impl Iterator<Item = Option<u64>>) -> u64 {
    let all: Vec<u64> = events.flatten().collect();
    assert!(all.iter().zip(1..).all(|(seq, expected)| *seq == expected), "a gap in what a stalled reader got");
    *all.last().expect("it got something before it stalled")
}

#[tokio::test]
async fn stalled_readers_are_cut_with_a_reason_and_a_cursor_and_nobody_else_loses_anything() {
    let server = flooded();
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let path = "/v1/sessions/k/events?after=0";
    let mut sse = stalled(server.address(), path, SSE).await;
    let mut socket = stalled(server.address(), "/v1/sessions/k/ws?after=0", UPGRADE).await;
    let (mut good, mut other) =
        (Sse::open(&server, path).await, Socket::open(&server, "/v1/sessions/k/ws?after=0").await);
    let subscribers = async || (server.snapshot("k").await["subscribers"] == 4).then_some(());
    eventually("all follow", subscribers).await;
    let before = server.memory();

    let flood = async {
        let mut peak = 0;
        // Much more than all buffers on the way can hold.
        for _ in 0..15 {
            server.run("k", play(json!({"deltas": 200, "bytes": 4000}))).await;
            peak = peak.max(metric(&server, "greenroom_stream_waiting_bytes").await);
        }
        let last = server.run("k", text("the last")).await;
        (peak, last["turn"]["id"].as_str().unwrap().to_owned())
    };
    let done = |event: &Value| event["type"] == "turn.finished" && event["data"]["summary"] == "the last";
    // They wake up when they were cut, and before the kernel gives them up.
    let wake_up = async {
        let cut = async || (metric(&server, "greenroom_streams_cut_total").await == 2).then_some(());
        eventually("both are cut", cut).await;
        tokio::join!(drained(&mut sse), drained(&mut socket))
    };
    let (seen, by_socket, (peak, last), (by_sse, by_ws)) =
        tokio::join!(good.until(done), other.until(done), flood, wake_up);
    is_log(&seen, 1);
    assert_eq!(by_socket, seen, "the others are shown all of it");
    assert_eq!(server.snapshot("k").await["subscribers"], 2);
    assert!(peak <= 4 * (BOUND + COMMIT), "{peak} bytes waited for four readers");
    let grown = server.memory().saturating_sub(before) >> 20;
    assert!(grown < 96, "memory has grown by {grown} MiB");

    // Who reads again is told why, and has a cursor to come back with.
    let text = String::from_utf8_lossy(&by_sse).into_owned();
    assert!(text.contains("event: stream.end"), "no reason: {:?}", &text[text.len().saturating_sub(500)..]);
    let end = text.rsplit_once("event: stream.end\ndata: ").unwrap().1.lines().next().unwrap();
    let end: Value = serde_json::from_str(end).unwrap();
    assert_eq!((&end["data"]["reason"], &end["data"]["retry"]), (&json!("too_slow"), &json!(true)));
    let by_sse = numbers(text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().ok()));
    let got = frames(&by_ws);
    let (opcode, close) = got.last().unwrap();
    assert_eq!((*opcode, u16::from_be_bytes([close[0], close[1]]), &close[2..]), (8, 1013, b"too_slow".as_slice()));
    let event = |(_, payload): &(u8, Vec<u8>)| serde_json::from_slice::<Value>(payload).ok()?["seq"].as_u64();
    let by_ws = numbers(got.iter().map(event));
    for cursor in [by_sse, by_ws] {
        let mut again = Sse::open(&server, &format!("/v1/sessions/k/events?after={cursor}")).await;
        let rest = again.until(|event| event["type"] == "turn.finished" && event["turn_id"] == *last).await;
        assert_eq!(rest, seen[usize::try_from(cursor).unwrap()..], "it goes on from its cursor");
    }
    server.assert_quiet();
}

/// Behind a call without a session there is no log to come back to: its agent is stopped, and who reads again is told why.
#[tokio::test]
async fn a_call_whose_reader_stalls_is_stopped_and_says_so() {
    let server = flooded();
    let content = script(&json!({"deltas": 4000, "bytes": 5000}));
    let body = json!({"model": "echo", "stream": true, "messages": [{"role": "user", "content": content}]}).to_string();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let ended = "greenroom_turns_total{agent=\"echo\",outcome=\"cancelled\"}";
    eventually("the call to be stopped", async || (metric(&server, ended).await == 1).then_some(())).await;
    assert_eq!(metric(&server, "greenroom_running_turns").await, 0);
    let told = drained(&mut stream).await;
    let told = String::from_utf8_lossy(&told);
    let end = &told[told.len().saturating_sub(400)..];
    assert!(end.contains("\"code\":\"overloaded\"") && end.contains("was not taken in time"), "{end}");
    assert!(!told.contains("[DONE]"));
    server.assert_quiet();
}

/// A peer that takes nothing for ever, as one whose machine is gone: the kernel ends the connection, though the task that
/// would notice is frozen in its write.
#[tokio::test]
async fn connections_to_nobody_end() {
    let server = TestGateway::with(&[
        ("GREENROOM_STREAM__FLUSH_INTERVAL", "0s"),
        ("GREENROOM_STREAM__MAX_LAG", "500ms"),
        ("GREENROOM_STREAM__HEARTBEAT", "200ms"),
        ("GREENROOM_STREAM__DEAD_AFTER", "1s"),
    ]);
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let quiet = metric(&server, "greenroom_http_connections").await;
    let held = [
        stalled(server.address(), "/v1/sessions/k/events?after=0", SSE).await,
        stalled(server.address(), "/v1/sessions/k/ws?after=0", UPGRADE).await,
        stalled(server.address(), "/v1/ws", UPGRADE).await,
        stalled(server.address(), "/v1/events", SSE).await,
    ];
    for _ in 0..20 {
        server.run("k", play(json!({"deltas": 200, "bytes": 5000}))).await;
    }
    // They are still there on this side, and took nothing.
    let gone = async || (metric(&server, "greenroom_http_connections").await <= quiet).then_some(());
    eventually("the server has let go of them", gone).await;
    assert_eq!(server.snapshot("k").await["subscribers"], 0);
    assert_eq!(metric(&server, "greenroom_websockets").await, 0);
    assert_eq!(metric(&server, "greenroom_stream_waiting_bytes").await, 0, "nothing is held for them");
    drop(held);
    healed(&server).await;
}

/// All clients of a server that was killed come back in the same moment, each from where it was.
#[tokio::test]
async fn a_storm_of_returning_readers_gives_each_exactly_what_it_missed() {
    const READERS: usize = 300;
    let mut server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")]);
    let keys: Vec<String> = (0..10).map(|i| format!("k{i}")).collect();
    let mut logs = Vec::new();
    for key in &keys {
        server.run(key, play(json!({"deltas": 300}))).await;
        logs.push(server.events(key).await);
    }
    server.kill9();
    server.restart();
    let mut rng = StdRng::seed_from_u64(1);
    let readers = (0..READERS).map(|n| {
        let (key, log) = (&keys[n % keys.len()], &logs[n % keys.len()]);
        let cursor = rng.random_range(0..log.len());
        let server = &server;
        async move {
            let last = |event: &Value| event["data"]["summary"] == "new";
            let seen = if n % 2 == 0 {
                Sse::open(server, &format!("/v1/sessions/{key}/events?after={cursor}")).await.until(last).await
            } else {
                Socket::open(server, &format!("/v1/sessions/{key}/ws?after={cursor}")).await.until(last).await
            };
            assert_eq!(seen[..log.len() - cursor], log[cursor..], "{key} after {cursor}");
            for (event, seq) in seen.iter().zip(cursor + 1..) {
                assert_eq!(event["seq"], seq, "{key} after {cursor}: a gap or a duplicate");
            }
        }
    });
    let storm = join_all(readers.collect::<Vec<_>>());
    let work = async {
        for key in &keys {
            server.message(key, text("new")).await;
        }
    };
    tokio::join!(storm, work);
    server.assert_quiet();
}
