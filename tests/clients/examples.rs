//! The examples of the repository, run as they are.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};

use crate::{
    cuts::Network,
    gateway::{TestGateway, script, str_of, turn_id},
    run::{file, node, node_within, to_its_end},
};

/// What a turn of the echo agent tells in many small pieces.
fn long() -> String {
    script(&json!({"deltas": 800, "bytes": 20, "delay_ms": 2}))
}

/// All that the agent has said in a session.
async fn stored(server: &TestGateway, key: &str, role: &str) -> Vec<String> {
    let page = server.get(&format!("/v1/sessions/{key}/messages?order=asc&limit=100")).await.ok(200);
    let messages = page["data"].as_array().unwrap().iter().filter(|message| message["role"] == role);
    let parts = messages.flat_map(|message| message["parts"].as_array().unwrap().clone());
    parts.filter(|part| part["type"] == "text").map(|part| str_of(&part, "text").to_owned()).collect()
}

/// Serves the page as a user's own server does: from an origin that is not Greenroom's. Gives the origin.
async fn serve_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let page = std::fs::read_to_string(file("examples/browser/index.html")).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{page}", page.len());
            tokio::spawn(async move {
                // The request is short; what matters is that something was asked.
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn the_page_shows_every_word_once_over_a_hundred_cuts() {
    let origin = serve_page().await;
    let origins = json!([origin]).to_string();
    let settings =
        [("GREENROOM_SERVER__ALLOWED_ORIGINS", origins.as_str()), ("GREENROOM_STREAM__FLUSH_INTERVAL", "0ms")];
    let server = TestGateway::with(&settings);
    let network = Network::that_cuts(server.address(), 100, 200..4000).await;
    let (markup, end) = ("<img src=x onerror=\"document.title='owned'\">", "That is all.");
    let messages = [&long(), markup, &long(), &long(), &long(), end];
    let page = format!("{origin}/index.html?server={}&session=web:page", network.url(""));
    let todo = json!({"page": page, "messages": messages, "until": end}).to_string();
    let said = node_within(Duration::from_secs(300), "page", "tests/clients/browser.mjs", &[&todo]).await;
    let shown: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();

    assert_eq!(network.left(), 0, "it was cut a hundred times");
    assert_eq!(shown["assistant"], json!(stored(&server, "web:page", "assistant").await));
    assert_eq!(shown["user"], json!(messages), "nothing was sent twice");
    assert_eq!((&shown["fault"], &shown["faults"]), (&json!([]), &json!([])));
    assert_eq!(shown["title"], "Greenroom chat", "what the agent says is text");
}

#[tokio::test]
async fn a_reader_of_server_sent_events_gets_every_event_once_over_a_hundred_cuts() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0ms")]);
    let network = Network::that_cuts(server.address(), 100, 300..5000).await;
    let mut last = String::new();
    for _ in 0..3 {
        last = turn_id(&server.message("k", json!({"text": long()})).await);
    }
    let todo = json!({"url": network.url("/v1/sessions/k"), "until": last}).to_string();
    let said = node("page", "tests/clients/events.mjs", &[&todo]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let seen: Vec<u64> = said["seen"].as_array().unwrap().iter().map(|seq| seq.as_u64().unwrap()).collect();
    assert!(seen.iter().copied().eq(1..=seen.len() as u64), "no gap and no event twice");
    assert_eq!(str_of(&said, "text"), stored(&server, "k", "assistant").await.concat());
    assert_eq!((network.left(), said["lost"].as_u64().unwrap() >= 100), (0, true));
}

#[tokio::test]
async fn the_tour_with_curl_goes_through() {
    let server = TestGateway::start();
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    let settings = [("GREENROOM_URL", server.url(""))];
    command.arg(file("examples/curl/tour.sh")).arg("curl:test").current_dir(home.path());
    let said = to_its_end(command, home.path(), &settings).await;

    let parts: Vec<&str> = said.split("\n# ").collect();
    assert_eq!(parts.len(), 5, "{said}");
    assert!(parts[0].contains("\"state\":\"queued\"") || parts[0].contains("\"state\":\"running\""), "{said}");
    assert!(parts[1].contains("\"response\":\"Are you there?\""), "{said}");
    assert!(parts[2].contains("event: turn.queued") && parts[2].contains("event: turn.finished"), "{said}");
    let ids =
        |part: &str| part.lines().filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok()).collect::<Vec<_>>();
    let (before, after) = (ids(parts[3]), ids(parts[4]));
    assert!(!before.is_empty() && !after.is_empty(), "{said}");
    let all = server.events("curl:test").await;
    let told = before.iter().chain(&after).copied();
    assert!(told.eq(1..=all.len() as u64), "nothing is missing and nothing comes twice: {said}");
}
