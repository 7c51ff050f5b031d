//! Who sees which session, and who may change it.

use serde_json::{Value, json};

use crate::{
    gateway::{Sse, str_of},
    people::{House, greenroom},
};

async fn keys(house: &House, token: &str, query: &str) -> Vec<String> {
    let page = house.get(token, &format!("/v1/sessions?order=asc&limit=100{query}")).await.ok(200);
    page["data"].as_array().unwrap().iter().map(|one| str_of(one, "key").to_owned()).collect()
}

#[tokio::test]
async fn lists_show_what_may_be_seen_and_nothing_else() {
    let house = House::new();
    for (key, body) in [
        ("a-private", json!({})),
        ("a-org", json!({"visibility": "org", "org_id": "acme"})),
        ("a-public", json!({"visibility": "public"})),
    ] {
        let mut body = body;
        body["key"] = json!(key);
        let made = house.post(&house.alice, "/v1/sessions", body).await.ok(201);
        assert_eq!(str_of(&made, "owner"), "alice");
    }
    house.post(&house.bob, "/v1/sessions", json!({"key": "b"})).await.ok(201);
    assert_eq!(keys(&house, &house.alice, "").await, ["a-private", "a-org", "a-public"]);
    assert_eq!(keys(&house, &house.bob, "").await, ["a-org", "a-public", "b"]);
    assert_eq!(keys(&house, &house.carol, "").await, ["a-public"]);
    assert_eq!(keys(&house, &house.root, "").await, ["main", "a-private", "a-org", "a-public", "b"]);
    assert_eq!(keys(&house, &house.bob, "&owner=alice&q=A-").await, ["a-org", "a-public"]);
    assert_eq!(keys(&house, &house.carol, "&owner=bob").await, Vec::<String>::new());
    // Pages are of what is seen: no gaps where others' sessions are.
    let page = house.get(&house.bob, "/v1/sessions?limit=2").await.ok(200);
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
    let asked = json!({"text": "/script {\"ask\":\"permission\"}"});
    house.post(&house.alice, "/v1/sessions/a-org/messages", asked).await.ok(202);
    let mut stream = Sse::open_with(
        &house.server,
        "/v1/sessions/a-org/events?after=0",
        &[("authorization", &format!("Bearer {}", house.bob))],
    )
    .await;
    stream.until_type("choice.requested").await;
    let pending = async |token| house.get(token, "/v1/choices").await.ok(200)["data"].as_array().unwrap().len();
    assert_eq!((pending(&house.alice).await, pending(&house.bob).await, pending(&house.root).await), (1, 0, 1));
    let seen = house.get(&house.bob, "/v1/sessions/a-org/choices").await.ok(200);
    assert_eq!(seen["data"].as_array().unwrap().len(), 1, "who sees the session sees what it waits on");
}

#[tokio::test]
async fn organisations_are_the_callers_own() {
    let house = House::new();
    greenroom(&house.server, &["org", "create", "other"]);
    let create = |body: Value| house.post(&house.alice, "/v1/sessions", body);
    for bad in [
        json!({"visibility": "org"}),
        json!({"visibility": "org", "org_id": "other"}),
        json!({"visibility": "org", "org_id": "nowhere"}),
        json!({"visibility": "private", "org_id": "acme"}),
        json!({"org_id": "acme"}),
    ] {
        create(bad).await.refused(400, "invalid_parameter");
    }
    create(json!({"visibility": "secret"})).await.refused(400, "invalid_json");
    create(json!({"key": "k"})).await.ok(201);
    let patch = |body: Value| house.call(&house.alice, "PATCH", "/v1/sessions/k", body);
    patch(json!({"visibility": "org"})).await.refused(400, "invalid_parameter");
    patch(json!({"org_id": "acme"})).await.refused(400, "invalid_parameter");
    let now = patch(json!({"visibility": "org", "org_id": "acme"})).await.ok(200);
    assert_eq!((&now["visibility"], &now["org_id"]), (&json!("org"), &json!("acme")));
    patch(json!({"org_id": null})).await.refused(400, "invalid_parameter");
    patch(json!({"org_id": "other"})).await.refused(400, "invalid_parameter");
    patch(json!({"visibility": "org"})).await.ok(200);
    let now = patch(json!({"visibility": "public"})).await.ok(200);
    assert_eq!((&now["visibility"], &now["org_id"]), (&json!("public"), &json!(null)), "leaving org clears it");
    let admin = json!({"visibility": "org", "org_id": "other"});
    house.call(&house.root, "PATCH", "/v1/sessions/k", admin).await.ok(200);
}

#[tokio::test]
async fn keys_of_others_lead_nowhere() {
    let house = House::new();
    let secret = json!({"text": "the secret of alice"});
    house.post(&house.alice, "/v1/sessions/web:a/messages?wait=60", secret).await.ok(200);
    // Not there, and there but not to be seen, are told in the same words.
    let same = async |method: &str, rest: &str, body: Value| {
        let of = async |key: &str| {
            let reply = house.call(&house.carol, method, &format!("/v1/sessions/{key}{rest}"), body.clone()).await;
            let error = reply.refused(404, "session_not_found");
            str_of(&error, "message").to_owned()
        };
        assert_eq!(of("web:a").await, of("web:none").await, "{method} {rest}");
    };
    for (method, rest) in [("GET", ""), ("GET", "/state"), ("GET", "/messages"), ("DELETE", ""), ("POST", "/reset")] {
        same(method, rest, Value::Null).await;
    }
    same("PATCH", "", json!({"visibility": "public"})).await;
    // A send makes a session where there is none, and never ends up in somebody else's.
    let send = |body: Value| house.post(&house.carol, "/v1/sessions/web:a/messages", body);
    for policy in ["enqueue", "steer", "interrupt", "reject", "replace"] {
        send(json!({"text": "x", "policy": policy})).await.refused(404, "session_not_found");
    }
    send(json!({"text": "x", "permission_mode": "plan"})).await.refused(404, "session_not_found");
    house.post(&house.carol, "/v1/sessions", json!({"key": "web:a"})).await.refused(409, "session_exists");
    let snapshot = house.get(&house.alice, "/v1/sessions/web:a").await.ok(200);
    assert_eq!((&snapshot["message_count"], &snapshot["visibility"]), (&json!(2), &json!("private")));
}

#[tokio::test]
async fn a_key_that_changes_hands_brings_nothing_along() {
    let house = House::new();
    let text = json!({"text": "the secret of alice"});
    let turn = house.post(&house.alice, "/v1/sessions/k/messages?wait=60", text).await.ok(200);
    let old = house.get(&house.alice, "/v1/sessions/k").await.ok(200);
    house.call(&house.alice, "DELETE", "/v1/sessions/k", Value::Null).await.ok(204);
    house.post(&house.carol, "/v1/sessions/k/messages?wait=60", json!({"text": "mine"})).await.ok(200);
    for path in ["", "/messages", "/turns", "/events?after=0&limit=1000", "/state"] {
        let request = house.request(&house.carol, "GET", &format!("/v1/sessions/k{path}"), Value::Null);
        let reply = house.server.send(request.header("accept", "application/json")).await;
        reply.ok(200);
        assert!(!reply.text.contains("secret of alice") && !reply.text.contains("alice"), "{path}: {}", reply.text);
    }
    let (turn, id) = (str_of(&turn["turn"], "id"), str_of(&old, "id"));
    house.get(&house.carol, &format!("/v1/sessions/k/turns/{turn}")).await.refused(404, "turn_not_found");
    house.get(&house.carol, &format!("/v1/sessions/k/messages?id={id}")).await.refused(404, "session_not_found");
    house.get(&house.alice, "/v1/sessions/k").await.refused(404, "session_not_found");
    let audit = house.get(&house.carol, "/v1/audit?session=k").await;
    assert!(!audit.text.contains("alice"), "{}", audit.text);
    // Whose it was still sees what was done to it.
    let audit = house.get(&house.alice, "/v1/audit?session=k").await.ok(200);
    assert_eq!(audit["data"][0]["action"], "session.delete");
}

#[tokio::test]
async fn two_users_who_race_for_a_key_do_not_share_it() {
    let house = House::new();
    for round in 0..10 {
        let path = format!("/v1/sessions/race-{round}/messages");
        let (a, c) = tokio::join!(
            house.post(&house.alice, &path, json!({"text": "of alice"})),
            house.post(&house.carol, &path, json!({"text": "of carol"})),
        );
        let mut statuses = [a.status, c.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 404], "{} {}", a.text, c.text);
    }
}
