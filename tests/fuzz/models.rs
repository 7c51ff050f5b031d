//! Model servers that stream nonsense: the turn ends, and the next one is answered.

use std::sync::{Arc, Mutex};

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    cases::{check, corpus, messages},
    gateway::{TestGateway, str_of, text},
};

/// What the model server sends after its head, and where it takes a breath.
type Pieces = Arc<Mutex<Vec<Vec<u8>>>>;

/// A model server that answers every call with the pieces, and then ends the connection.
async fn serve(listener: TcpListener, pieces: Pieces) {
    while let Ok((stream, _)) = listener.accept().await {
        let pieces = pieces.lock().unwrap().clone();
        tokio::spawn(answer(stream, pieces));
    }
}

async fn answer(mut stream: TcpStream, pieces: Vec<Vec<u8>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n").await?;
    for piece in pieces {
        stream.write_all(&piece).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    stream.shutdown().await
}

/// Server-sent events with chunks of a model, bytes between them, and borders anywhere.
fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let chunks = messages(corpus(include_str!("corpus/model.jsonl")), 12);
    let noise = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 12);
    let prefix =
        prop::sample::select(vec!["data: ", "data:", "event: x\ndata: ", ": comment\ndata: ", "id\ndata: ", ""]);
    let end = prop::sample::select(vec!["\n\n", "\r\n\r\n", "\r\r", "\n", ""]);
    (chunks, noise, prop::collection::vec((prefix, end, any::<bool>()), 12), 1_usize..64).prop_map(
        |(chunks, noise, frames, size)| {
            let mut bytes = Vec::new();
            for ((chunk, noise), (prefix, end, noisy)) in chunks.iter().zip(noise).zip(frames) {
                bytes.extend_from_slice(format!("{prefix}{chunk}{end}").as_bytes());
                if noisy {
                    bytes.extend_from_slice(&noise);
                }
            }
            // Pieces of one size, but not more than a few hundred of them.
            bytes.chunks(size.max(bytes.len() / 300 + 1)).map(<[u8]>::to_vec).collect()
        },
    )
}

/// Greenroom, and the model server behind it.
fn server() -> (TestGateway, Pieces) {
    let pieces = Pieces::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(serve(TcpListener::from_std(listener).unwrap(), Arc::clone(&pieces)));
    let server = TestGateway::with(&[
        ("GREENROOM_AGENTS__FUZZ__KIND", "openai"),
        ("GREENROOM_AGENTS__FUZZ__BASE_URL", &url),
        ("GREENROOM_AGENTS__FUZZ__MODEL", "m"),
        ("GREENROOM_AGENTS__FUZZ__MAX_RETRIES", "0"),
        ("GREENROOM_SESSION__DEFAULT_AGENT", "fuzz"),
    ]);
    (server, pieces)
}

async fn talk(server: &TestGateway, pieces: &Pieces, nonsense: Vec<Vec<u8>>) -> Result<(), TestCaseError> {
    *pieces.lock().unwrap() = nonsense;
    let answer = server.post("/v1/sessions/k/messages?wait=60", text("hi")).await.ok(200);
    let state = str_of(&answer["turn"], "state").to_owned();
    prop_assert!(["completed", "failed"].contains(&state.as_str()), "{answer}");
    let failed_with_a_reason = state != "failed" || answer["turn"]["error"]["message"].is_string();
    prop_assert!(failed_with_a_reason, "{answer}");
    let fine = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"fine\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    *pieces.lock().unwrap() = vec![fine.as_bytes().to_vec()];
    let answer = server.post("/v1/sessions/k/messages?wait=60", text("hi")).await.ok(200);
    prop_assert_eq!(str_of(&answer, "response"), "fine");
    prop_assert!(!server.log().contains("panicked"), "{}", server.log());
    Ok(())
}

#[test]
fn a_model_server_may_stream_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, pieces) = runtime.block_on(async { server() });
    check("models", stream(), |nonsense| runtime.block_on(talk(&server, &pieces, nonsense)));
}

#[test]
fn a_text_does_not_depend_on_the_borders_of_its_pieces() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, pieces) = runtime.block_on(async { server() });
    let words = prop::collection::vec("[a-z \u{e4}\u{1f980}\"\\\\]{1,8}", 1..12);
    check("borders", (words, 1_usize..40), |(words, size)| {
        let chunk = |word: &String| json!({"choices": [{"index": 0, "delta": {"content": word}}]});
        let mut stream: Vec<String> = words.iter().map(|word| format!("data: {}\n\n", chunk(word))).collect();
        stream.push("data: [DONE]\n\n".to_owned());
        *pieces.lock().unwrap() = stream.concat().as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let answer = runtime.block_on(server.post("/v1/sessions/k/messages?wait=60", text("hi"))).ok(200);
        prop_assert_eq!(str_of(&answer, "response"), words.concat());
        Ok(())
    });
}
