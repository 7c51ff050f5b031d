//! `/metrics`: the text that a scraper gets, and that what happens is counted in it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::gateway::{Sse, TestGateway, eventually, play, text};

/// The samples by name and labels.
async fn scrape(server: &TestGateway) -> BTreeMap<String, f64> {
    let reply = server.get("/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", reply.headers);
    let lines = reply.text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, n)| (name.to_owned(), n.parse().unwrap())).collect()
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = TestGateway::start();
    server.run("web:one", play(json!({"deltas": 3}))).await;
    server.run("web:one", play(json!({"fail": "no"}))).await;
    let turn = server.hang("web:two", json!({})).await;
    server.message("web:two", text("waits")).await;
    let stream = Sse::open(&server, "/v1/sessions/web:one/events").await;
    let all = Sse::open(&server, "/v1/events").await;
    server.get("/v1/sessions/none").await.refused(404, "session_not_found");
    server.get("/no/such/path").await.refused(404, "route_not_found");
    let samples = scrape(&server).await;
    let at = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
    assert_eq!(at(r#"greenroom_turns_total{agent="echo",outcome="completed"}"#), 1.0);
    assert_eq!(at(r#"greenroom_turns_total{agent="echo",outcome="failed"}"#), 1.0);
    assert_eq!(at(r#"greenroom_turn_duration_seconds_count{agent="echo",outcome="completed"}"#), 1.0);
    assert_eq!(at(r#"greenroom_turn_queue_wait_seconds_count{agent="echo"}"#), 3.0);
    assert_eq!(at(r#"greenroom_turn_first_token_seconds_count{agent="echo"}"#), 1.0);
    assert_eq!(at(r#"greenroom_tokens_total{agent="echo",kind="output"}"#), 3.0);
    assert_eq!((at("greenroom_running_turns"), at("greenroom_queued_turns")), (1.0, 1.0));
    assert_eq!(at("greenroom_live_sessions"), 3.0, "with the primary one");
    assert_eq!(at(r#"greenroom_streams{of="session"}"#), 1.0);
    assert_eq!(at(r#"greenroom_streams{of="all"}"#), 1.0);
    assert!(at("greenroom_http_connections") >= 3.0);
    assert!(at("greenroom_store_commit_seconds_count") > 3.0);
    assert_eq!(at("greenroom_store_commit_seconds_count"), at("greenroom_store_batch_jobs_count"));
    assert_eq!(at(r#"greenroom_limit{setting="session.max_queue"}"#), 100.0);
    let send = r#"greenroom_http_requests_total{method="POST",route="/v1/sessions/{key}/messages",status="200"}"#;
    assert_eq!(at(send), 2.0);
    assert_eq!(at(r#"greenroom_http_requests_total{method="GET",route="none",status="404"}"#), 1.0);
    // No label grows with what clients do.
    assert!(!samples.keys().any(|name| name.contains("web:") || name.contains(&turn) || name.contains("/no/such")));

    drop((stream, all));
    server.act("/v1/sessions/web:two/abort").await;
    eventually("all is over", async || {
        let samples = scrape(&server).await;
        let over = samples["greenroom_running_turns"] == 0.0 && samples["greenroom_queued_turns"] == 0.0;
        (over && samples[r#"greenroom_streams{of="session"}"#] == 0.0).then_some(())
    })
    .await;
    let samples = scrape(&server).await;
    assert_eq!(samples[r#"greenroom_turns_total{agent="echo",outcome="cancelled"}"#], 1.0);
}

#[tokio::test]
async fn labels_do_not_grow_with_sessions() {
    let server = TestGateway::start();
    server.run("first", text("x")).await;
    scrape(&server).await;
    let before = scrape(&server).await.len();
    for n in 0..30 {
        server.run(&format!("s{n}"), text("x")).await;
    }
    let after = scrape(&server).await;
    assert_eq!(after.len(), before);
    assert_eq!(after["greenroom_live_sessions"], 32.0);
}
