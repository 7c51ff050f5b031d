//! The audit: who did what to what, from where; who may read it; what never stands in it.

use serde_json::{Value, json};

use crate::{
    gateway::{Reply, str_of},
    people::{House, greenroom, token_id},
};

fn actions(reply: &Reply) -> Vec<String> {
    let page = reply.ok(200);
    page["data"].as_array().unwrap().iter().map(|entry| str_of(entry, "action").to_owned()).collect()
}

#[tokio::test]
async fn what_is_done_is_written_down() {
    let house = House::new();
    let secret = "the-secret-text";
    house.post(&house.alice, "/v1/sessions", json!({"key": "k", "title": secret})).await.ok(201);
    house.post(&house.alice, "/v1/sessions/k/messages?wait=60", json!({"text": secret})).await.ok(200);
    house.call(&house.alice, "PUT", "/v1/sessions/k/brief", json!({"goal": secret})).await.ok(200);
    let patch = json!({"title": secret, "metadata": {"x": secret}, "visibility": "public"});
    house.call(&house.root, "PATCH", "/v1/sessions/k", patch).await.ok(200);
    house.post(&house.alice, "/v1/sessions/k/reset", Value::Null).await.ok(200);
    house.call(&house.alice, "DELETE", "/v1/sessions/k", Value::Null).await.ok(204);
    // Refused calls did nothing.
    house.call(&house.carol, "DELETE", "/v1/sessions/k", Value::Null).await.refused(404, "session_not_found");

    let own = house.get(&house.alice, "/v1/audit?session=k&order=asc").await;
    let expected =
        ["session.create", "turn.send", "session.brief", "session.update", "session.reset", "session.delete"];
    assert_eq!(actions(&own), expected);
    assert!(!own.text.contains(secret), "no texts: {}", own.text);
    for token in [&house.alice, &house.root] {
        assert!(!own.text.contains(token.as_str()), "no secrets: {}", own.text);
    }
    let by_root = &own.json()["data"][3];
    assert_eq!(
        by_root["detail"],
        json!({"fields": ["title", "metadata", "visibility"], "visibility": "public", "org_id": null})
    );
    assert_eq!(
        (&by_root["actor"], &by_root["owner"], &by_root["ip"]),
        (&json!("root"), &json!("alice"), &json!("127.0.0.1"))
    );
    assert_eq!(by_root["token_id"], token_id(&house, &house.root).await);
    assert!(by_root["at"].is_string() && by_root["session"] == "k", "{by_root}");
}

#[tokio::test]
async fn each_reads_of_its_own_and_admins_of_all() {
    let house = House::new();
    house.post(&house.alice, "/v1/sessions", json!({"key": "a", "visibility": "public"})).await.ok(201);
    house.post(&house.bob, "/v1/sessions", json!({"key": "b"})).await.ok(201);
    house.get(&house.bob, "/v1/audit?session=a").await.refused(403, "not_session_owner");
    house.get(&house.alice, "/v1/audit?session=b").await.refused(404, "session_not_found");
    house.get(&house.alice, "/v1/audit?session=none").await.refused(404, "session_not_found");
    let bobs = house.get(&house.bob, "/v1/audit").await;
    assert!(bobs.ok(200)["data"].as_array().unwrap().iter().all(|entry| entry["owner"] == "bob"), "{}", bobs.text);
    let all = house.get(&house.root, "/v1/audit?action=session.create&order=asc").await;
    assert_eq!(actions(&all), ["session.create", "session.create"]);
    let by_bob = house.get(&house.root, "/v1/audit?actor=bob").await;
    assert_eq!(actions(&by_bob), ["session.create"]);

    // Pages, with cursors.
    let first = house.get(&house.root, "/v1/audit?action=session&limit=1").await.ok(200);
    assert_eq!((&first["data"][0]["session"], &first["has_more"]), (&json!("b"), &json!(true)));
    let next = format!("/v1/audit?action=session&limit=1&after={}", str_of(&first, "last_id"));
    let next = house.get(&house.root, &next).await.ok(200);
    assert_eq!((&next["data"][0]["session"], &next["has_more"]), (&json!("a"), &json!(false)));
    house.get(&house.root, "/v1/audit?limit=0").await.refused(400, "invalid_limit");
    house.get(&house.root, "/v1/audit?after=x").await.refused(400, "invalid_cursor");
    house.get(&house.root, "/v1/audit?session=a%20b").await.refused(400, "invalid_id");
}

#[tokio::test]
async fn changed_settings_are_written_down_with_both_values() {
    let house = House::with(&[
        ("GREENROOM_AGENTS__MODEL__KIND", "openai"),
        ("GREENROOM_AGENTS__MODEL__BASE_URL", "http://127.0.0.1:1/v1"),
        ("GREENROOM_AGENTS__MODEL__API_KEY", "sk-very-secret"),
    ]);
    let patch = async |body: Value| house.call(&house.root, "PATCH", "/v1/config", body).await;
    patch(json!({"session": {"max_queue": 5}, "choice": {"timeout": "1m"}})).await.ok(200);
    // What changes nothing, and what is refused, did nothing.
    patch(json!({"session": {"max_queue": 5}})).await.ok(200);
    patch(json!({"session": {"max_queue": 0}})).await.refused(400, "invalid_json");
    let reply = house.get(&house.root, "/v1/audit?action=config").await;
    assert_eq!(actions(&reply), ["config.update"]);
    let entry = &reply.json()["data"][0];
    let changes = json!({"session.max_queue": {"from": 100, "to": 5}, "choice.timeout": {"from": "10m", "to": "1m"}});
    assert_eq!((&entry["detail"], &entry["actor"]), (&changes, &json!("root")));
    assert_eq!((&entry["session"], &entry["ip"]), (&json!(null), &json!("127.0.0.1")));
    assert!(!reply.text.contains("sk-very-secret"), "{}", reply.text);
    let others = actions(&house.get(&house.alice, "/v1/audit").await);
    assert!(!others.contains(&"config.update".to_owned()), "it is about nobody else: {others:?}");
}

#[tokio::test]
async fn it_is_exported_as_lines_and_outlives_a_crash() {
    let mut house = House::new();
    for number in 0..30 {
        house.post(&house.alice, "/v1/sessions", json!({"key": format!("k{number}")})).await.ok(201);
    }
    let export = async |house: &House, query: &str| {
        let request = house.request(&house.root, "GET", &format!("/v1/audit?{query}"), Value::Null);
        let reply = house.server.send(request.header("accept", "application/x-ndjson")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/x-ndjson"), "{reply:?}");
        let lines = reply.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|entry| str_of(&entry, "session").to_owned()).collect::<Vec<_>>()
    };
    let all = export(&house, "action=session&order=asc").await;
    assert_eq!(all, (0..30).map(|number| format!("k{number}")).collect::<Vec<_>>());
    assert_eq!(export(&house, "action=session&limit=2").await, ["k29", "k28"]);
    // An entry is committed with what it reports: a crash right after the answer takes neither away.
    house.post(&house.alice, "/v1/sessions", json!({"key": "last"})).await.ok(201);
    house.server.kill9();
    house.server.restart();
    assert_eq!(export(&house, "action=session&limit=1").await, ["last"]);
    assert_eq!(export(&house, "action=session&order=asc").await.len(), 31);
    // What the command line does stands there too.
    greenroom(&house.server, &["user", "disable", "carol"]);
    let entry = house.get(&house.root, "/v1/audit?action=user.disable").await.ok(200)["data"][0].clone();
    assert_eq!((&entry["actor"], &entry["owner"], &entry["ip"]), (&json!("cli"), &json!("carol"), &json!(null)));
}

#[tokio::test]
async fn it_is_kept_as_long_as_the_operator_says_and_tells_what_went() {
    let mut house = House::with(&[("GREENROOM_AUDIT__KEEP", "1ms")]);
    for number in 0..5 {
        house.post(&house.alice, "/v1/sessions", json!({"key": format!("k{number}")})).await.ok(201);
    }
    house.server.kill9();
    house.server.restart();
    let entry = crate::gateway::eventually("the old entries to go", || async {
        let page = house.get(&house.root, "/v1/audit?action=audit.shorten").await.ok(200);
        page["data"].as_array().unwrap().iter().find(|entry| entry["detail"]["removed"].as_u64() >= Some(5)).cloned()
    })
    .await;
    assert_eq!((&entry["actor"], &entry["token_id"], &entry["ip"]), (&json!("server"), &json!(null), &json!(null)));
    assert!(entry["detail"]["before"].is_string(), "{entry}");
    assert_eq!(house.get(&house.root, "/v1/audit?action=session.create").await.ok(200)["data"], json!([]));
    house.get(&house.alice, "/v1/sessions/k1").await.ok(200);
}
