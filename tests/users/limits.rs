//! What each caller may use up.

use serde_json::{Value, json};

use crate::{
    gateway::{Socket, Sse},
    people::House,
};

#[tokio::test]
async fn requests_have_a_rate() {
    let house = House::with(&[
        ("GREENROOM_CALLERS__REQUESTS_PER_SECOND", "1"),
        ("GREENROOM_CALLERS__BURST", "4"),
        ("GREENROOM_CALLERS__USERS", "{ root = { requests_per_second = 0 } }"),
    ]);
    let first = house.get(&house.alice, "/v1/me").await;
    first.ok(200);
    assert_eq!((first.header("ratelimit-limit"), first.header("ratelimit-policy")), ("4", "4;w=4"));
    assert_eq!(first.header("ratelimit-remaining"), "3");
    let mut refused = None;
    for _ in 0..50 {
        let reply = house.get(&house.alice, "/v1/me").await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.refused(429, "rate_limited")["of"], "requests");
    assert_eq!((refused.header("ratelimit-remaining"), refused.header("retry-after")), ("0", "1"));
    assert!(refused.header("ratelimit-reset").parse::<u32>().unwrap() >= 1);
    house.get(&house.bob, "/v1/me").await.ok(200);
    for _ in 0..20 {
        let free = house.get(&house.root, "/v1/me").await;
        assert_eq!((free.status, free.header("ratelimit-limit")), (200, ""), "{free:?}");
    }
    let me = house.get(&house.bob, "/v1/me").await.ok(200);
    assert_eq!(me["limits"]["requests_per_second"], 1);
}

#[tokio::test]
async fn ops_of_a_socket_are_requests_too() {
    let house = House::with(&[("GREENROOM_CALLERS__REQUESTS_PER_SECOND", "1"), ("GREENROOM_CALLERS__BURST", "4")]);
    let bearer = format!("Bearer {}", house.alice);
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &bearer)]).await.unwrap();
    let mut refused = Value::Null;
    for _ in 0..50 {
        let reply = socket.ask(json!({"op": "ping"})).await;
        if reply["ok"] == false {
            refused = reply["error"].clone();
            break;
        }
    }
    assert_eq!((&refused["code"], &refused["retry_after"]), (&json!("rate_limited"), &json!(1)));
}

#[tokio::test]
async fn sessions_turns_and_streams_have_a_count() {
    let house = House::with(&[
        ("GREENROOM_CALLERS__MAX_SESSIONS", "2"),
        ("GREENROOM_CALLERS__MAX_TURNS", "1"),
        ("GREENROOM_CALLERS__MAX_STREAMS", "1"),
    ]);
    let hang = json!({"text": "/script {\"hang\":true}"});
    house.post(&house.alice, "/v1/sessions/one/messages", hang.clone()).await.ok(202);
    house.post(&house.alice, "/v1/sessions", json!({"key": "two"})).await.ok(201);
    let full = house.post(&house.alice, "/v1/sessions", json!({"key": "three"})).await;
    assert_eq!(full.refused(429, "too_many_sessions")["limit"], 2);
    house.post(&house.alice, "/v1/sessions/three/messages", hang.clone()).await.refused(429, "too_many_sessions");
    house.post(&house.bob, "/v1/sessions", json!({"key": "three"})).await.ok(201);

    let busy = house.post(&house.alice, "/v1/sessions/two/messages", hang.clone()).await;
    assert_eq!(busy.refused(429, "rate_limited")["of"], "turns");
    // A session that is at work already takes more: they wait in its queue.
    house.post(&house.alice, "/v1/sessions/one/messages", json!({"text": "x"})).await.ok(202);

    let bearer = format!("Bearer {}", house.alice);
    let open = [("authorization", bearer.as_str())];
    let stream = Sse::open_with(&house.server, "/v1/sessions/one/events", &open).await;
    let second = house.get(&house.alice, "/v1/sessions/two/events").await;
    assert_eq!(second.refused(429, "rate_limited")["of"], "streams");
    let mut socket = Socket::try_open(&house.server, "/v1/sessions/two/ws", &open).await.unwrap();
    assert_eq!(socket.close().await, (1013, "rate_limited".into()));
    // Streams over all sessions take a place like those of one.
    let feed = house.get(&house.alice, "/v1/events").await;
    assert_eq!(feed.refused(429, "rate_limited")["of"], "streams");
    let mut all = Socket::try_open(&house.server, "/v1/ws", &open).await.unwrap();
    all.refused(json!({"op": "subscribe", "session": "*"}), "rate_limited").await;
    let log = house.request(&house.root, "GET", "/v1/logs", Value::Null).header("accept", "text/event-stream");
    let root = format!("Bearer {}", house.root);
    let kept = Sse::open_with(&house.server, "/v1/logs", &[("authorization", &root)]).await;
    assert_eq!(house.server.send(log).await.refused(429, "rate_limited")["of"], "streams");
    drop((stream, kept));
    let again = crate::gateway::eventually("a free place", || async {
        let mut socket = Socket::try_open(&house.server, "/v1/sessions/two/ws", &open).await.unwrap();
        socket.frame().await.ok()
    });
    assert!(again.await.contains("session.hello"));
}

#[tokio::test]
async fn the_archive_is_no_way_around_the_count() {
    let house = House::with(&[("GREENROOM_CALLERS__MAX_SESSIONS", "1")]);
    let archived = |key: &str, archived: bool| {
        let (path, body) = (format!("/v1/sessions/{key}"), json!({ "archived": archived }));
        let house = &house;
        async move { house.call(&house.alice, "PATCH", &path, body).await }
    };
    house.post(&house.alice, "/v1/sessions", json!({"key": "one"})).await.ok(201);
    archived("one", false).await.ok(200);
    archived("one", true).await.ok(200);
    house.post(&house.alice, "/v1/sessions", json!({"key": "two"})).await.ok(201);
    assert_eq!(archived("one", false).await.refused(429, "too_many_sessions")["limit"], 1);
    archived("two", true).await.ok(200);
    archived("one", false).await.ok(200);
}

#[tokio::test]
async fn two_calls_at_once_do_not_both_take_the_last_place() {
    let house = House::with(&[("GREENROOM_CALLERS__MAX_SESSIONS", "3")]);
    let create = || house.post(&house.alice, "/v1/sessions", json!({}));
    let (a, b, c, d, e, f) = tokio::join!(create(), create(), create(), create(), create(), create());
    let made = [a, b, c, d, e, f].iter().filter(|reply| reply.status == 201).count();
    assert_eq!(made, 3);
}
