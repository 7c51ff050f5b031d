//! Bodies that are too large, never end, or stop: refused in a way that a client can read, and not kept.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::client::{Answer, Server, code};

const PATH: &str = "/v1/sessions/a/messages";

fn head(server: &Server, length: &str) -> String {
    let host = server.address;
    format!("POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{length}\r\n\r\n")
}

#[actix_web::test]
async fn a_client_that_writes_all_before_it_reads_gets_its_answer() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let total = 55_000_000;
    stream.write_all(head(&server, &format!("content-length: {total}")).as_bytes()).await.unwrap();
    let piece = vec![b'a'; 100_000];
    for _ in 0..total / piece.len() {
        stream.write_all(&piece).await.expect("the server goes on reading");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = Answer::parse(&answer);
    assert_eq!(answer.refused(), code(413, "body_too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[actix_web::test]
async fn an_endless_body_is_refused_and_then_cut() {
    let server = Server::start(&[("LIMITS__MAX_UPLOAD", "100KiB")]);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(head(&server, "transfer-encoding: chunked").as_bytes()).await.unwrap();
    let flood = actix_web::rt::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
        while writer.write_all(&chunk).await.is_ok() {}
    });
    let mut answer = vec![0; 4096];
    let length = reader.read(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer[..length]).refused(), code(413, "body_too_large"));
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the connection is cut").unwrap();
}

#[actix_web::test]
async fn a_body_that_stops_arriving_is_not_waited_for() {
    let server = Server::start(&[("LIMITS__HEAD_TIMEOUT", "200ms")]);
    let answer = server.send(format!("{}{{", head(&server, "content-length: 10")).as_bytes()).await;
    assert_eq!(answer.refused(), code(408, "request_timeout"));
}

#[actix_web::test]
async fn a_body_that_trickles_in_for_ever_is_cut() {
    let server = Server::start(&[("LIMITS__BODY_TIMEOUT", "500ms")]);
    for length in ["content-length: 1000000", "transfer-encoding: chunked"] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(head(&server, length).as_bytes()).await.unwrap();
        let piece: &[u8] = if length.ends_with("chunked") { b"1\r\n \r\n" } else { b" " };
        // Each piece comes long before it would be missed; only the whole is late.
        let trickle = actix_web::rt::spawn(async move {
            while writer.write_all(piece).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut answer = Vec::new();
        let read = reader.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("the end of the connection").unwrap();
        let answer = Answer::parse(&answer);
        assert_eq!(answer.refused(), code(408, "request_timeout"), "{length}");
        assert!(answer.body.contains("took too long"), "{answer:?}");
        tokio::time::timeout(Duration::from_secs(60), trickle).await.expect("the connection is cut").unwrap();
    }
}

#[actix_web::test]
async fn only_attachments_may_be_larger_than_a_body() {
    let server = Server::start(&[("LIMITS__MAX_BODY", "1KiB")]);
    let json = [("content-type", "application/json")];
    let large = "a".repeat(2000);
    let text = format!("{{\"text\":\"{large}\"}}");
    assert_eq!(server.call("POST", PATH, &json, &text).await.refused(), code(413, "body_too_large"));
    let file = format!(
        "{{\"attachments\":[{{\"name\":\"a\",\"media_type\":\"text/plain\",\"content_base64\":\"{large}\"}}]}}"
    );
    assert_ne!(server.call("POST", PATH, &json, &file).await.status, 413);
    assert_eq!(server.call("POST", "/v1/sessions", &json, &text).await.refused(), code(413, "body_too_large"));
    // In chunks nothing is announced: it is counted.
    let chunked =
        format!("{}7d0\r\n{large}\r\n0\r\n\r\n", head(&server, "connection: close\r\ntransfer-encoding: chunked"));
    let chunked = chunked.replace(PATH, "/v1/sessions");
    assert_eq!(server.send(chunked.as_bytes()).await.refused(), code(413, "body_too_large"));
}
