//! Requests that are hardly HTTP: what is answered is an answer, and the server lives on.

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    cases::check,
    gateway::{TestGateway, in_time},
};

/// A request with a head of its own making.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "(GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS|TRACE|[A-Z]{1,12}) /[ -~]{0,60} HTTP/1\\.[019]",
        "[ -~]{0,80}",
        "(GET|POST) /v1/sessions/(%2e%2e|%00|%ff|\\.\\.|[a-z%0-9/]{1,30})(/events|/messages|/ws)?(\\?[ -~]{0,40})? HTTP/1\\.1",
    ];
    let header = prop_oneof![
        "(content-length|transfer-encoding|host|origin|accept|connection|upgrade|authorization|cookie|last-event-id|expect|content-type|x-request-id|idempotency-key): [ -~]{0,60}",
        "[!-~]{1,20}:[ -~]{0,60}",
        "[ -~]{0,40}",
    ];
    let body = prop::collection::vec(any::<u8>(), 0..100);
    (line, prop::collection::vec(header, 0..8), any::<bool>(), body).prop_map(|(line, headers, host, body)| {
        let host = if host { "host: localhost\r\n" } else { "" };
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        [format!("{line}\r\n{host}{headers}\r\n").as_bytes(), &body].concat()
    })
}

#[test]
fn what_is_hardly_a_request_is_answered_or_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::with(&[("GREENROOM_CALLERS__WRONG_CREDENTIALS", "0")]) });
    check("heads", prop::collection::vec(request(), 1..12), |requests| {
        runtime.block_on(async {
            for request in &requests {
                let mut stream = TcpStream::connect(server.address()).await.unwrap();
                let _ = stream.write_all(request).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = in_time("an answer or the end", stream.read_to_end(&mut answer)).await;
                let shown = String::from_utf8_lossy(request).into_owned();
                let status = answer.get(9..12).map(|code| String::from_utf8_lossy(code).into_owned());
                let status: u16 = status.and_then(|code| code.parse().ok()).unwrap_or(0);
                prop_assert!(status < 500, "{shown}: {}", String::from_utf8_lossy(&answer));
            }
            prop_assert_eq!(server.get("/health").await.status, 200);
            let log = server.log();
            prop_assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{}", log);
            Ok(())
        })
    });
}
