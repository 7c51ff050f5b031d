//! What every call over HTTP has in common: envelope, request ids, methods, media types, limits; health.

use serde_json::{Value, json};

use crate::gateway::{TestGateway, eventually, text};

#[tokio::test]
async fn what_does_not_exist_is_told_in_the_envelope() {
    let server = TestGateway::start();
    for path in ["/nowhere", "/v1", "/v1/", "/v1/sessions/", "/v1/sessions/k/nothing", "/v1/sessionss"] {
        server.get(path).await.refused(404, "route_not_found");
    }
    server.assert_quiet();
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_405_with_allow() {
    let server = TestGateway::start();
    for (method, path, allow) in [
        ("DELETE", "/v1/sessions", "GET, HEAD, POST"),
        ("PUT", "/v1/sessions/k", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/v1/sessions/k/abort", "POST"),
        ("POST", "/v1/sessions/k/queue", "DELETE"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/v1/sessions/k/events", "GET"),
        ("PUT", "/v1/sessions/k/messages", "GET, HEAD, POST"),
    ] {
        let reply = server.send(server.request(method, path)).await;
        reply.refused(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
    }
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let head = server.send(server.request("HEAD", "/v1/sessions/k")).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    server.assert_quiet();
}

#[tokio::test]
async fn request_ids_are_the_callers_when_sane() {
    let server = TestGateway::start();
    let id_for = async |id: &str| {
        let reply = server.send(server.request("GET", "/v1/me").header("x-request-id", id)).await;
        reply.header("x-request-id").to_owned()
    };
    assert_eq!(id_for("job-7:step.2_x").await, "job-7:step.2_x");
    for bad in ["a b", "\"", &"a".repeat(1000)] {
        assert_ne!(id_for(bad).await, bad);
    }
    let refused = server.send(server.request("GET", "/v1/sessions/none").header("x-request-id", "mine")).await;
    assert_eq!(refused.refused(404, "session_not_found")["request_id"], "mine");
}

#[tokio::test]
async fn a_body_is_json_or_nothing() {
    let server = TestGateway::start();
    let post = |kind: Option<&'static str>, body: &'static str| {
        let request = server.request("POST", "/v1/sessions").body(body);
        server.send(match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        })
    };
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")] {
        post(kind, "{}").await.refused(415, "unsupported_media_type");
    }
    post(Some("application/json"), "{}").await.ok(201);
    post(Some("application/json; charset=utf-8"), "{}").await.ok(201);
    // An empty body is `{}`, and needs no type.
    post(None, "").await.ok(201);
    post(Some("application/json"), "").await.ok(201);
    server.assert_quiet();
}

#[tokio::test]
async fn sizes_have_limits() {
    let server = TestGateway::start();
    let send = |body: String| {
        let request = server.request("POST", "/v1/sessions/k/messages").header("content-type", "application/json");
        server.send(request.body(body))
    };
    let of = |length: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(length));
    send(of(1_048_577)).await.refused(413, "content_too_large");
    // Characters count, not bytes, and those that are trimmed do not.
    let umlauts = format!(r#"{{"text":"   {}   "}}"#, "ä".repeat(1_048_576));
    let turn = send(umlauts).await.ok(202)["turn"].clone();
    assert_eq!(turn["text"].as_str().unwrap().chars().count(), 1_048_576);
    send(of(9 << 20)).await.refused(413, "body_too_large");
    let big = format!(r#"{{"title":"{}"}}"#, "x".repeat(9 << 20));
    let request = server.request("POST", "/v1/sessions").header("content-type", "application/json").body(big);
    server.send(request).await.refused(413, "body_too_large");
    server.post("/v1/sessions", json!({"title": "x".repeat(201)})).await.refused(400, "title_too_long");
    let metadata = json!({"metadata": {"a": "x".repeat(17_000)}});
    server.post("/v1/sessions", metadata).await.refused(400, "metadata_too_large");
    server.assert_quiet();
}

#[tokio::test]
async fn a_send_with_attachments_may_be_larger() {
    let server = TestGateway::start();
    let file = |bytes: usize| json!({"name": "a.bin", "media_type": "application/octet-stream", "content_base64": "A".repeat(bytes)});
    let body = json!({"attachments": [file(12 << 20)]});
    let turn = server.post("/v1/sessions/k/messages", body).await.ok(202)["turn"].clone();
    assert_eq!(turn["attachments"][0]["bytes"], (12 << 20) * 3 / 4);
    let metadata = json!({"text": "x", "metadata": {"a": "x".repeat(17_000)}});
    server.post("/v1/sessions/k/messages", metadata).await.refused(400, "metadata_too_large");
    server.assert_quiet();
}

#[tokio::test]
async fn health_and_readiness() {
    let server = TestGateway::start();
    let ready = eventually("ready", async || {
        let reply = server.get("/ready").await;
        (reply.status == 200).then(|| reply.json())
    });
    let ready = ready.await;
    assert!(ready["sessions"].is_u64(), "{ready}");
    assert_eq!((&ready["store"], &ready["agents"]["echo"]), (&json!("ok"), &json!("ok")), "{ready}");
    assert_eq!(server.get("/health").await.ok(200), json!({"ok": true, "ready": true}));
    server.assert_quiet();
}

#[tokio::test]
async fn the_agents_are_listed() {
    let server = TestGateway::start();
    let echo = |agents: &Value| agents["data"].as_array().unwrap().iter().find(|agent| agent["id"] == "echo").cloned();
    let found = eventually("the echo agent", async || {
        let agents = server.get("/v1/agents").await.ok(200);
        echo(&agents).filter(|echo| echo["available"] == true)
    });
    let found = found.await;
    crate::gateway::wire::has(
        &found,
        &["id", "name", "kind", "available", "version", "models", "capabilities", "reason"],
    );
    assert!(echo(&server.act("/v1/agents/refresh").await.ok(200)).is_some());
    server.post("/v1/sessions", json!({"agent": "nobody"})).await.assert_envelope();
    let mut body = text("x");
    body["agent"] = json!("nobody");
    server.post("/v1/sessions/k/messages", body).await.assert_envelope();
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");
}
