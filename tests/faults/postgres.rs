//! Postgres that is stopped as by a crash, gone for a while, and back.

use serde_json::json;

use crate::{
    all_ran_once,
    gateway::{TestGateway, play, postgres::Postgres, turn_id},
    healed, is_unavailable, not_ready, send_until_refused, text,
};

#[tokio::test]
async fn a_postgres_that_crashes_and_comes_back_loses_nothing_and_needs_no_new_start() {
    let postgres = tokio::task::spawn_blocking(Postgres::own).await.unwrap();
    let url = postgres.fresh_database();
    let mut server = TestGateway::on_sqlite(&[("GREENROOM_DATABASE", &url), ("GREENROOM_STORE__TIMEOUT", "3s")]);
    let before = turn_id(&server.message("before", play(json!({"deltas": 40, "delay_ms": 50, "bytes": 100}))).await);
    let mut acknowledged = vec![turn_id(&server.message("k", text("one")).await)];
    server.until("before", |event| event["type"] == "message.delta").await;
    for _ in 0..2 {
        postgres.stop();
        acknowledged.extend(send_until_refused(&server, "k", "x").await);
        assert!(!not_ready(&server).await.is_empty());
        is_unavailable(&server.get("/v1/sessions").await);
        postgres.start_again();
        healed(&server).await;
        acknowledged.push(turn_id(&server.message("k", text("again")).await));
    }
    all_ran_once(&server, "k", &acknowledged).await;
    assert_eq!(server.finished("before", &before).await["state"], "completed");
    let events = server.events("before").await;
    assert_eq!(crate::gateway::wire::said(&events, &before, "text").len(), 40 * 100, "nothing of it is missing");
    // The same after a new start.
    let logs = (server.stored("k").await, server.stored("before").await);
    assert!(server.stop().success());
    server.restart();
    assert_eq!((server.stored("k").await, server.stored("before").await), logs);
}
