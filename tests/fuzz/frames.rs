//! WebSockets: ops with something wrong in them, and bytes that are no frames.

use std::cell::RefCell;

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    cases::{check, corpus, lines, messages},
    gateway::{Socket, SocketFrame, TestGateway, in_time, text},
};

/// Sends texts and sees that each is answered: by a reply, or by a close that says why.
async fn ask(server: &TestGateway, texts: &[String]) -> Result<(), TestCaseError> {
    let mut socket = Socket::open(server, "/v1/ws").await;
    for text in texts {
        socket.text(text.clone()).await;
    }
    // What was sent before is answered before this, or the server has closed.
    socket.text(json!({"id": "the-last", "op": "ping"}).to_string()).await;
    let mut replies = 0;
    loop {
        match socket.next().await {
            SocketFrame::Text(frame) => {
                let frame: Value = serde_json::from_str(&frame).unwrap();
                if frame["type"] == "reply" && frame["id"] == "the-last" {
                    break;
                }
                if frame["type"] == "reply" {
                    replies += 1;
                    let honest = frame["ok"] == true || frame["error"]["code"].is_string();
                    prop_assert!(honest && frame["error"]["type"] != "internal_error", "{frame}");
                }
            }
            SocketFrame::Ping => {}
            SocketFrame::Close(code, reason) => {
                prop_assert!([1003, 1007, 1008, 1009].contains(&code) && !reason.is_empty(), "{code} {reason}");
                return Ok(());
            }
            SocketFrame::Gone => return Err(TestCaseError::fail("gone without a word")),
        }
    }
    prop_assert_eq!(replies, texts.len(), "each op has its reply");
    Ok(())
}

#[test]
fn an_op_with_something_wrong_in_it_gets_a_reply() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::start() });
    check("ops", messages(corpus(include_str!("corpus/ops.jsonl")), 12), |ops| {
        runtime.block_on(async {
            server.post("/v1/sessions/k/messages", text("hi")).await.ok(202);
            ask(&server, &ops.iter().map(Value::to_string).collect::<Vec<_>>()).await?;
            prop_assert!(!server.log().contains("panicked"), "{}", server.log());
            Ok(())
        })
    });
}

#[test]
fn a_text_that_is_no_op_gets_a_reply() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::start() });
    let texts =
        prop::collection::vec(prop_oneof!["\\PC{0,60}", lines(corpus(include_str!("corpus/ops.jsonl")), 3)], 1..8);
    check("texts", texts, |texts| runtime.block_on(ask(&server, &texts)));
}

#[test]
// One thread, one case at a time.
#[allow(clippy::await_holding_refcell_ref)]
fn bytes_that_are_no_frames_end_their_own_connection_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::start() });
    let neighbour = RefCell::new(runtime.block_on(Socket::open(&server, "/v1/ws")));
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    check("raw", prop::collection::vec(any::<u8>(), 1..400), |bytes| {
        runtime.block_on(async {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(upgrade.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(in_time("the upgrade", stream.read_u8()).await.unwrap());
            }
            // It may have closed before all is written.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = in_time("the end of the connection", stream.read_to_end(&mut rest)).await;
            let reply = neighbour.borrow_mut().ask(json!({"op": "ping"})).await;
            prop_assert!(reply["ok"] == true, "{reply}");
            prop_assert!(!server.log().contains("panicked"), "{}", server.log());
            Ok(())
        })
    });
}
