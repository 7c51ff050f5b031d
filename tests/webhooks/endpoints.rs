//! Endpoints: made, looked at, changed, deleted; by calls and by configuration.

use serde_json::{Value, json};

use crate::{
    gateway::{eventually, play, str_of, text},
    outbound::{QUICK, deliveries, endpoint, server, show},
    receiver::{Receiver, answer},
};

#[tokio::test]
async fn an_endpoint_is_made_once_changed_and_deleted() {
    let server = server(&[]);
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let body = json!({"url": first.url(), "types": ["turn.finished"], "sessions": ["a"], "description": "for ci"});
    let call = || {
        let request = server.request("POST", "/v1/webhook-endpoints").header("idempotency-key", "k").json(&body);
        server.send(request)
    };
    let made = call().await;
    assert_eq!(made.header("location"), format!("/v1/webhook-endpoints/{}", str_of(&made.ok(201), "id")));
    let (made, again) = (made.json(), call().await.ok(201));
    assert!(str_of(&made, "id").starts_with("whe_") && str_of(&made, "secret").starts_with("whsec_"), "{made}");
    assert_eq!((&again["id"], &again["secret"]), (&made["id"], &Value::Null), "the secret is shown once");
    let id = str_of(&made, "id");
    let shown = show(&server, id).await;
    assert!(shown.get("secret").is_none(), "{shown}");
    assert_eq!(
        (&shown["owner"], &shown["description"], &shown["name"]),
        (&json!("local"), &json!("for ci"), &Value::Null)
    );

    let path = format!("/v1/webhook-endpoints/{id}");
    let change = json!({"url": second.url(), "types": ["turn.started"], "sessions": null, "description": null});
    let changed = server.patch(&path, change).await.ok(200);
    assert_eq!((&changed["sessions"], &changed["description"]), (&Value::Null, &Value::Null));
    assert_eq!(changed["types"], json!(["turn.started"]));
    server.run("b", text("x")).await;
    assert_eq!(second.wait(1).await[0].event()["type"], "turn.started");
    assert_eq!(first.seen().len(), 0);

    for (change, code) in [
        (json!({"url": "http://10.0.0.1/"}), "url_not_allowed"),
        (json!({"url": "nonsense"}), "url_not_allowed"),
        (json!({"types": []}), "invalid_json"),
        (json!({"types": ["Turn"]}), "invalid_json"),
        (json!({"sessions": ["a b"]}), "invalid_json"),
        (json!({"secret": "x"}), "invalid_json"),
        (json!({"description": "x".repeat(201)}), "invalid_parameter"),
    ] {
        server.patch(&path, change).await.refused(400, code);
    }
    server.delete(&path).await.ok(204);
    server.get(&path).await.refused(404, "endpoint_not_found");
    server.get("/v1/webhook-endpoints/whe_x").await.refused(404, "endpoint_not_found");
    server.run("b", text("y")).await;
    assert_eq!(server.get("/v1/webhook-endpoints").await.ok(200)["data"], json!([]));
    assert_eq!(second.seen().len(), 1);
    let audit = server.get("/v1/audit?action=webhook").await.ok(200);
    let actions: Vec<&str> = audit["data"].as_array().unwrap().iter().map(|entry| str_of(entry, "action")).collect();
    assert_eq!(actions, ["webhook.delete", "webhook.update", "webhook.create"]);
}

#[tokio::test]
async fn a_test_is_one_delivery_however_often_it_is_asked_for() {
    let server = server(&[]);
    let receiver = Receiver::start().await;
    let (id, secret) = endpoint(&server, json!({"url": receiver.url(), "types": ["turn."]})).await;
    let path = format!("/v1/webhook-endpoints/{id}/test");
    let call = || server.send(server.request("POST", &path).header("idempotency-key", "k"));
    let (first, again) = (call().await, call().await.ok(202));
    assert_eq!(first.ok(202)["id"], again["id"]);
    assert_eq!(first.header("location"), format!("/v1/webhook-endpoints/{id}/deliveries/{}", str_of(&again, "id")));
    let seen = receiver.wait(1).await;
    assert!(seen[0].is_signed(&secret));
    assert_eq!((seen[0].id(), &seen[0].json()["data"]["endpoint"]), (str_of(&again, "id"), &json!(id)));
    assert_eq!(deliveries(&server, &id, "").await.len(), 1);
}

#[tokio::test]
async fn endpoints_have_a_limit() {
    let server = server(&[("GREENROOM_DELIVERY__MAX_ENDPOINTS", "2")]);
    let body = || json!({"url": "http://127.0.0.1:1/", "types": ["turn."]});
    endpoint(&server, body()).await;
    let (id, _) = endpoint(&server, body()).await;
    server.post("/v1/webhook-endpoints", body()).await.refused(429, "too_many_endpoints");
    server.delete(&format!("/v1/webhook-endpoints/{id}")).await.ok(204);
    endpoint(&server, body()).await;
}

#[tokio::test]
async fn the_configuration_can_name_endpoints() {
    let receiver = Receiver::start().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let configured =
        format!("{{ ci = {{ url = \"{}\", types = [\"turn.finished\"], secret = \"{secret}\" }} }}", receiver.url());
    let mut server = server(&[("GREENROOM_WEBHOOK_ENDPOINTS", &configured)]);
    server.run("a", text("x")).await;
    let ghost = configured.replace(" secret =", " owner = \"ghost\", secret =");
    let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
    start.args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(server.data_dir().join("other")).env_clear();
    let refused = start.env("GREENROOM_WEBHOOK_ENDPOINTS", &ghost).output().unwrap();
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && line.contains("webhook_endpoints.ci.owner"), "{line}");
    assert!(receiver.wait(1).await[0].is_signed(secret));
    let listed = server.get("/v1/webhook-endpoints").await.ok(200)["data"].clone();
    assert_eq!((&listed[0]["name"], &listed[0]["owner"]), (&json!("ci"), &Value::Null));
    let path = format!("/v1/webhook-endpoints/{}", str_of(&listed[0], "id"));
    server.patch(&path, json!({"types": ["turn."]})).await.refused(409, "endpoint_configured");
    server.delete(&path).await.refused(409, "endpoint_configured");
    server.act(&format!("{path}/rotate")).await.refused(409, "endpoint_configured");
    assert!(!server.get("/v1/config").await.text.contains("whsec_"));
    server.stop();
    server.restart();
    assert_eq!(server.get(&path).await.ok(200)["id"], listed[0]["id"], "the same one after a restart");
    server.stop();
    server.restart_with(&[("GREENROOM_WEBHOOK_ENDPOINTS", "{}")]);
    assert_eq!(server.get(&path).await.ok(200)["disabled_reason"], "not_configured");
    server.act(&format!("{path}/enable")).await.refused(409, "endpoint_configured");
    server.run("a", text("y")).await;
    server.stop();
    server.restart_with(&[("GREENROOM_WEBHOOK_ENDPOINTS", &configured)]);
    server.run("a", text("z")).await;
    assert_eq!(receiver.wait(2).await.len(), 2, "what happened meanwhile is not made up for");
}

#[tokio::test]
async fn an_event_that_is_too_large_is_told_without_what_it_says() {
    let server = server(&[("GREENROOM_DELIVERY__MAX_EVENT", "1KiB")]);
    let receiver = Receiver::start().await;
    endpoint(&server, json!({"url": receiver.url(), "types": ["message.completed", "turn.finished"]})).await;
    server.run("a", play(json!({"text": "x".repeat(5000)}))).await;
    let seen = receiver.wait(2).await;
    let large = seen.iter().map(|one| one.event()).find(|event| event["truncated"] == true).unwrap();
    let stored = server.events("a").await;
    let whole = stored.iter().find(|event| event["seq"] == large["seq"]).unwrap();
    for field in ["type", "session", "turn_id", "at"] {
        assert_eq!(large[field], whole[field], "{field}");
    }
    assert!(large["data"].is_null() && whole["data"].is_object());
}

#[tokio::test]
async fn a_deleted_session_takes_what_was_delivered_of_it_along() {
    let server = server(&[]);
    let receiver = Receiver::start().await;
    let (id, _) =
        endpoint(&server, json!({"url": receiver.url(), "types": ["turn.finished", "session.deleted"]})).await;
    server.run("a", text("x")).await;
    receiver.wait(1).await;
    eventually("it is noted", || async {
        (deliveries(&server, &id, "&state=delivered").await.len() == 1).then_some(())
    })
    .await;
    server.delete("/v1/sessions/a").await.ok(204);
    let seen = receiver.wait(2).await;
    assert_eq!(seen[1].event()["type"], "session.deleted");
    let kinds: Vec<Value> = deliveries(&server, &id, "").await.iter().map(|one| one["type"].clone()).collect();
    assert_eq!(kinds, ["session.deleted"]);
}

#[tokio::test]
async fn what_was_delivered_is_forgotten_in_time_and_what_waits_is_not() {
    let mut server = server(&[]);
    let (well, never) = (Receiver::start().await, Receiver::answering(|_| answer(503, "retry-after: 3600\r\n")).await);
    let (well_id, _) = endpoint(&server, json!({"url": well.url(), "types": ["turn.finished"]})).await;
    let (never_id, _) = endpoint(&server, json!({"url": never.url(), "types": ["turn.finished"]})).await;
    server.run("k", text("x")).await;
    let delivered = async || (deliveries(&server, &well_id, "&state=delivered").await.len() == 1).then_some(());
    eventually("the delivery", delivered).await;
    never.wait(1).await;
    server.stop();
    let more = [QUICK, &[("GREENROOM_DELIVERY__KEEP", "0s")]].concat();
    server.restart_with(&more);
    eventually("it is forgotten", async || deliveries(&server, &well_id, "").await.is_empty().then_some(())).await;
    assert_eq!(deliveries(&server, &never_id, "&state=pending").await.len(), 1);
    server.assert_quiet();
}
