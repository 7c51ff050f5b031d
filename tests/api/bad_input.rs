//! Input that no client should send: a clear error of the contract, nothing logged above `info`, memory flat.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::gateway::{TestGateway, in_time, text, turn_id};

/// Every call that takes a body, with the code for JSON of a wrong form; `{turn}` is a turn that waits.
const CALLS: &[(&str, &str, &str)] = &[
    ("POST", "/v1/sessions", "invalid_json"),
    ("PATCH", "/v1/sessions/k", "invalid_json"),
    ("PUT", "/v1/sessions/k/brief", "invalid_json"),
    ("PUT", "/v1/sessions/k/model", "invalid_json"),
    ("PUT", "/v1/sessions/k/mode", "invalid_json"),
    ("POST", "/v1/sessions/k/messages", "invalid_json"),
    ("PATCH", "/v1/sessions/k/turns/{turn}", "invalid_json"),
    ("POST", "/v1/sessions/k/turns/{turn}/move", "invalid_json"),
    ("POST", "/v1/sessions/k/turns/{turn}/retry", "invalid_json"),
    ("POST", "/v1/sessions/k/choices/choice_01h455vb4pex5vsknk084sn02q", "invalid_choice_payload"),
];

#[tokio::test]
async fn bad_bodies_are_refused_with_the_place_or_the_field() {
    let server = TestGateway::start();
    server.hang("k", json!({})).await;
    let turn = turn_id(&server.message("k", text("waits")).await);
    let before = server.snapshot("k").await["last_seq"].clone();
    for (method, path, form) in CALLS {
        let path = path.replace("{turn}", &turn);
        let call = |body: Vec<u8>| {
            let request = server.request(method, &path).header("content-type", "application/json");
            server.send(request.body(body))
        };
        for broken in
            ["{bad", "{", "[1,", "\"x", "nul", "{\"text\":\"x\"} trailing", "{\"text\":\"\\ud800\"}", "\u{feff}{}"]
        {
            let reply = call(broken.into()).await;
            assert_eq!(reply.status, 400, "{method} {path} {broken}: {}", reply.text);
            reply.assert_envelope();
        }
        for broken in [b"{\"text\":\"\xff\xfe\"}".to_vec(), b"\x00\x01".to_vec()] {
            let reply = call(broken).await;
            assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
            reply.assert_envelope();
        }
        for wrong in ["null", "[]", "\"x\"", "5", "true", "[{}]", "{\"no_such_field\":1}"] {
            call(wrong.into()).await.refused(400, form);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(call(deep.into()).await.assert_envelope()["type"], "invalid_request_error");
        let deep = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
        assert_eq!(call(deep.into()).await.assert_envelope()["type"], "invalid_request_error");
    }
    for (path, bodies) in [
        (
            "/v1/sessions",
            vec![
                json!({"key": 5}),
                json!({"title": []}),
                json!({"metadata": "x"}),
                json!({"visibility": "all"}),
                json!({"key": ""}),
                json!({"key": "a b"}),
                json!({"key": "a/b"}),
                json!({"key": "x".repeat(201)}),
                json!({"visibility": "org"}),
                json!({"permission_mode": "x"}),
                json!({"agent": ""}),
            ],
        ),
        (
            "/v1/sessions/k/messages",
            vec![
                json!({"text": 5}),
                json!({"text": ["x"]}),
                json!({"text": "x", "attachments": {}}),
                json!({"text": "x", "attachments": [5]}),
                json!({"text": "x", "attachments": [{"name": "a"}]}),
                json!({"text": "x", "policy": 1}),
                json!({"text": "x", "metadata": []}),
                json!({"text": "x", "client_id": 5}),
                json!({"text": "x", "source": "x".repeat(10_000)}),
                json!({"text": "x", "model": "x".repeat(10_000)}),
            ],
        ),
    ] {
        for body in bodies {
            let reply = server.post(path, body.clone()).await;
            assert_eq!(reply.status, 400, "{path} {}: {}", body.to_string().get(..80).unwrap_or_default(), reply.text);
            reply.assert_envelope();
        }
    }
    assert_eq!(server.snapshot("k").await["last_seq"], before, "nothing of it did anything");
    server.assert_quiet();
}

#[tokio::test]
async fn bad_keys_are_refused() {
    let server = TestGateway::start();
    let long = "x".repeat(201);
    for key in
        ["a%20b", "a%2Fb", "%00", "%C3%A4", "a%0Ab", "%ff", "%25", "a%3Fb", "*", "a%5Cb", "%F0%9F%98%80", long.as_str()]
    {
        for (method, rest) in [("GET", ""), ("POST", "/messages"), ("GET", "/events"), ("DELETE", ""), ("GET", "/ws")] {
            let request = server.request(method, &format!("/v1/sessions/{key}{rest}"));
            let request = if method == "POST" { request.json(&text("x")) } else { request };
            let reply = server.send(request).await;
            assert!(
                reply.status == 400 || reply.status == 404,
                "{method} {key}{rest}: {} {}",
                reply.status,
                reply.text
            );
            reply.assert_envelope();
        }
    }
    // All that a key may hold, also what looks like a path.
    for key in ["..", ".", "A-z_0.9:@b", "%41", &"x".repeat(200)] {
        let body = r#"{"text":"hi"}"#;
        let request = format!(
            "POST /v1/sessions/{key}/messages?wait=30 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{key}: {answer}");
    }
    assert_eq!(server.snapshot("A").await["message_count"], 2);
    server.assert_quiet();
}

#[tokio::test]
async fn bad_queries_and_headers_are_refused_or_ignored() {
    let server = TestGateway::start();
    server.run("k", text("hi")).await;
    for query in ["?%ff", "?limit=%ff", "?a=%", "?&&==", "?limit", "?after=%00", "?id=x", "?around=x", "?wait=5"] {
        for path in ["/v1/sessions", "/v1/sessions/k/messages", "/v1/sessions/k/turns", "/v1/sessions/k/state"] {
            let reply = server.get(&format!("{path}{query}")).await;
            assert!(matches!(reply.status, 200 | 400 | 404), "{path}{query}: {} {}", reply.status, reply.text);
            if reply.status != 200 {
                reply.assert_envelope();
            }
        }
    }
    let raw = |request: &'static str| server.raw(request.as_bytes());
    for request in [
        "GET /%zz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET /v1/sessions/%zz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET /v1/sessions/k/../k HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET //v1//sessions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "NONSENSE /v1/sessions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\nconnection: close\r\n\r\n",
        "POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\nconnection: close\r\n\r\nzz\r\n",
        "not http at all\r\n\r\n",
    ] {
        let answer = raw(request).await;
        let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        assert!((400..500).contains(&status), "{request:?}: {answer}");
    }
    assert_eq!(server.get("/health").await.status, 200);
    server.assert_quiet();
}

/// Sends the head and as much of a body as the server takes; gives the answer and how much went out.
async fn flood(server: &TestGateway, head: &str, piece: &[u8], total: usize) -> (String, usize) {
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(head.as_bytes()).await.unwrap();
    let piece = piece.to_vec();
    let sender = tokio::spawn(async move {
        let mut sent = 0;
        while sent < total && write.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    let mut answer = vec![0; 64 * 1024];
    let length = in_time("an answer to a flood", read.read(&mut answer)).await.unwrap();
    sender.abort();
    let sent = sender.await.unwrap_or(0);
    (String::from_utf8_lossy(&answer[..length]).into_owned(), sent)
}

#[tokio::test]
async fn huge_bodies_are_refused_and_cost_nothing() {
    let server = TestGateway::start();
    server.run("k", text("warm")).await;
    let before = server.memory();
    const SIZE: usize = 55_000_000;
    for path in ["/v1/sessions/k/messages", "/v1/sessions", "/v1/sessions/k/turns/x/retry"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
        let piece = vec![b' '; 64 * 1024];
        let announced = format!("{head}content-length: {SIZE}\r\n\r\n");
        let (answer, _) = flood(&server, &announced, &piece, SIZE).await;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        // An id that names nothing may be told before the body is looked at.
        assert!(status == "413" || (status == "404" && path.contains("/x/")), "{path}: {answer}");
        let chunk = [format!("{:x}\r\n", piece.len()).into_bytes(), piece, b"\r\n".to_vec()].concat();
        let (answer, _) =
            flood(&server, &format!("{head}transfer-encoding: chunked\r\n\r\n"), &chunk, usize::MAX).await;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(status == "413" || (status == "404" && path.contains("/x/")), "{path}, chunked: {answer}");
    }
    assert_eq!(server.run("k", text("well")).await["response"], "well");
    let after = server.memory();
    let grown = after.saturating_sub(before) / (1 << 20);
    assert!(grown < 64, "memory has grown by {grown} MiB");
    server.assert_quiet();
}

#[tokio::test]
async fn a_flood_of_bad_calls_leaves_memory_flat() {
    let server = TestGateway::start();
    let bad = async || {
        server
            .post("/v1/sessions/k/messages", json!({"text": 5, "junk": "x".repeat(1000)}))
            .await
            .refused(400, "invalid_json");
        server.get("/v1/sessions/none/state").await.refused(404, "session_not_found");
        server.get("/v1/sessions/a%20b").await.assert_envelope();
    };
    for _ in 0..100 {
        bad().await;
    }
    let before = server.memory();
    for _ in 0..1000 {
        bad().await;
    }
    let grown = server.memory().saturating_sub(before) / 1024;
    assert!(grown < 4096, "memory has grown by {grown} KiB");
    assert_eq!(server.get("/ready").await.ok(200)["sessions"], 1, "no session came to be");
    server.assert_quiet();
}
