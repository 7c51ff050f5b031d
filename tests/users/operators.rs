//! What operators see is for operators, and tells nothing of single users.

use serde_json::json;

use crate::{
    gateway::{Socket, Sse},
    people::{House, token_id},
};

#[tokio::test]
async fn metrics_are_for_admins_and_name_nobody() {
    let house = House::new();
    house.server.get("/metrics").await.refused(401, "missing_credentials");
    house.get(&house.alice, "/metrics").await.refused(403, "missing_scope");

    // Everything that could leave a trace: names in paths, queries, bodies, refusals, streams.
    let key = "secret-key:alice";
    let session = format!("/v1/sessions/{key}");
    house.post(&house.alice, &format!("{session}/messages?wait=60"), json!({"text": "hi"})).await.ok(200);
    house.get(&house.bob, &session).await.refused(404, "session_not_found");
    house.get(&house.alice, &format!("/v1/audit?session={key}&actor=alice")).await.ok(200);
    house.server.get(&format!("/{}", house.alice)).await.refused(404, "route_not_found");
    house.get("gr_stolen", &session).await.refused(401, "invalid_credentials");
    let bearer = format!("Bearer {}", house.alice);
    let open = [("authorization", bearer.as_str())];
    let _stream = Sse::open_with(&house.server, &format!("{session}/events"), &open).await;
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &open).await.unwrap();
    socket.ok(json!({"op": "subscribe", "session": key})).await;

    let id = token_id(&house, &house.alice).await;
    let reply = house.get(&house.root, "/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.contains(r#"greenroom_turns_total{agent="echo",outcome="completed"} 1"#), "{}", reply.text);
    for line in reply.text.lines().filter(|line| !line.starts_with('#')) {
        for told in [key, "secret-key", "alice", "bob", "gr_", &house.alice, &id] {
            assert!(!line.contains(told), "{told:?} stands in {line}");
        }
    }
}

#[tokio::test]
async fn public_metrics_need_no_credentials() {
    let house = House::with(&[("GREENROOM_SERVER__PUBLIC_METRICS", "true")]);
    assert_eq!(house.server.get("/metrics").await.status, 200);
    house.server.get("/v1/config").await.refused(401, "missing_credentials");
}
