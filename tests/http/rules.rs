//! The common rules: envelope, request ids, 404, 405, 415, bad parameters, hosts and origins.

use crate::client::{Server, code};

const JSON: (&str, &str) = ("content-type", "application/json");

#[actix_web::test]
async fn every_error_has_the_envelope_and_the_request_id() {
    let server = Server::start(&[]);
    let none = server.call("GET", "/nothing", &[], "").await;
    assert_eq!(none.refused(), code(404, "route_not_found"));
    assert!(none.header("x-request-id").unwrap().starts_with("req_"));
    let named = server.call("GET", "/v1/sessions/a%2Fb", &[("x-request-id", "mine.7")], "").await;
    assert_eq!(named.refused(), code(400, "invalid_id"));
    assert_eq!(named.header("x-request-id"), Some("mine.7"));
    let healthy = server.call("GET", "/health", &[("x-request-id", "bad id")], "").await;
    assert_eq!(healthy.status, 200);
    assert!(healthy.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(healthy.header("cache-control"), Some("no-store"));
}

#[actix_web::test]
async fn a_wrong_method_is_told_which_are_right() {
    let server = Server::start(&[]);
    for (method, path, allow) in [
        ("PUT", "/health", "GET, HEAD"),
        ("DELETE", "/v1/sessions", "GET, HEAD, POST"),
        ("POST", "/v1/sessions/a", "GET, HEAD, PATCH, DELETE"),
        ("HEAD", "/v1/sessions/a/events", "GET"),
        ("POST", "/v1/ws", "GET"),
        ("BREW", "/v1/sessions/a/turns/turn_x/cancel", "POST"),
        ("OPTIONS", "/v1/me", "GET, HEAD"),
    ] {
        let answer = server.call(method, path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != "HEAD" {
            assert_eq!(answer.refused(), code(405, "method_not_allowed"));
        }
    }
    let head = server.call("HEAD", "/health", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[actix_web::test]
async fn bodies_must_be_json_objects() {
    let server = Server::start(&[]);
    let post = async |headers: &[(&str, &str)], body: &str| {
        server.call("POST", "/v1/sessions/a/messages", headers, body).await.refused()
    };
    assert_eq!(post(&[], "{}").await, code(415, "unsupported_media_type"));
    assert_eq!(post(&[("content-type", "text/plain")], "{}").await, code(415, "unsupported_media_type"));
    for body in ["{", "null", "[]", "\"x\"", "{\"text\":1}", "{\"nope\":1}", "{\"text\":\"\\ud800\"}"] {
        assert_eq!(post(&[JSON], body).await, code(400, "invalid_json"), "{body}");
    }
    // What passes comes to the gateway, which is not what is tested here; an empty body is `{}`, which has no text.
    let passed = server.call("POST", "/v1/sessions/a/messages", &[JSON], "{\"text\":\"a\"}").await;
    assert!(![400, 413, 415].contains(&passed.status), "{passed:?}");
    let empty = server.call("POST", "/v1/sessions/a/messages", &[], "").await.refused();
    assert!(empty.1 != "invalid_json" && empty.0 != 415, "{empty:?}");
    let wrong = server.call("POST", "/v1/sessions/a/messages", &[JSON], "{\"text\":{}}").await;
    assert_eq!(wrong.error()["field"], "text");
    let choice = server.call("POST", "/v1/sessions/a/choices/choice_x", &[JSON], "{}").await;
    assert_eq!(choice.refused(), code(404, "choice_not_found"));
}

#[actix_web::test]
async fn bad_parameters_are_refused_and_unknown_ones_ignored() {
    let server = Server::start(&[]);
    for (path, expected) in [
        ("/v1/sessions?limit=0", code(400, "invalid_limit")),
        ("/v1/sessions?limit=101", code(400, "invalid_limit")),
        ("/v1/sessions?after=nope", code(400, "invalid_cursor")),
        ("/v1/sessions?archived=maybe", code(400, "invalid_parameter")),
        ("/v1/sessions/a/state?messages=1001", code(400, "invalid_limit")),
        ("/v1/sessions/a/turns?state=nope", code(400, "invalid_parameter")),
        ("/v1/sessions/a/turns/turn_xyz", code(404, "turn_not_found")),
        ("/v1/sessions/a/messages/msg_xyz", code(404, "message_not_found")),
        ("/v1/sessions/a/events?after=x", code(400, "invalid_cursor")),
        ("/v1/sessions/%FF", code(400, "invalid_id")),
        ("/v1/sessions/a%zz", code(400, "invalid_id")),
    ] {
        assert_eq!(server.call("GET", path, &[], "").await.refused(), expected, "{path}");
    }
    for path in ["/v1/sessions?unknown=1&limit=5", "/v1/sessions/web%3Aalice%40home"] {
        assert_ne!(server.call("GET", path, &[], "").await.status, 400, "{path}");
    }
    let page = server.call("GET", "/v1/sessions/a/events?limit=1001", &[("accept", "application/json")], "").await;
    assert_eq!(page.refused(), code(400, "invalid_limit"));
}

#[actix_web::test]
async fn strange_hosts_and_origins_come_no_further() {
    let server = Server::start(&[
        ("SERVER__ALLOWED_HOSTS", "['green.example.org']"),
        ("SERVER__ALLOWED_ORIGINS", "['https://chat.example.org']"),
    ]);
    let call = async |headers: &[(&str, &str)]| server.call("GET", "/health", headers, "").await;
    assert_eq!(call(&[("host", "evil.example")]).await.refused(), code(403, "host_not_allowed"));
    let missing = server.send(b"GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(missing.refused(), code(403, "host_not_allowed"));
    let absolute = b"GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(server.send(absolute).await.refused(), code(403, "host_not_allowed"));
    for host in ["localhost:1", "green.example.org", "[::1]:80"] {
        assert_eq!(call(&[("host", host)]).await.status, 200, "{host}");
    }
    for origin in ["null", "http://evil.example", "https://localhost:1"] {
        let refused = call(&[("host", "localhost:1"), ("origin", origin)]).await.refused();
        assert_eq!(refused, code(403, "origin_not_allowed"), "{origin}");
    }
    assert_eq!(call(&[("host", "localhost:1"), ("origin", "http://localhost:1")]).await.status, 200);
    let chat = ("origin", "https://chat.example.org");
    assert_eq!(call(&[chat]).await.header("access-control-allow-origin"), Some("https://chat.example.org"));
    let asked = [chat, ("access-control-request-method", "POST")];
    let preflight = server.call("OPTIONS", "/v1/sessions", &asked, "").await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("idempotency-key"));
}
