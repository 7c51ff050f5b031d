//! Who may call in open mode: everybody on this machine, no page of another site.

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::gateway::{Socket, TestGateway, text};

#[tokio::test]
async fn open_mode_has_one_user() {
    let server = TestGateway::start();
    let me = server.get("/v1/me").await.ok(200);
    assert_eq!((&me["user"], &me["mode"]), (&json!("local"), &json!("open")), "{me}");
    assert_eq!(me["scopes"], json!(["read", "write", "admin"]));
    assert!(me["version"].is_string() && me["limits"].is_object(), "{me}");
    server.message("k", text("hi")).await;
    assert_eq!(server.snapshot("k").await["owner"], "local");
}

#[tokio::test]
async fn only_known_hosts_are_answered() {
    let server = TestGateway::with(&[("GREENROOM_SERVER__ALLOWED_HOSTS", r#"["green.example.org"]"#)]);
    let port = server.address().port();
    for good in
        ["localhost", "127.0.0.1", &format!("localhost:{port}"), "[::1]", "green.example.org", "GREEN.example.org:80"]
    {
        let reply = server.send(server.request("GET", "/v1/me").header("host", good)).await;
        assert_eq!(reply.status, 200, "{good}");
    }
    for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0"] {
        for path in ["/v1/me", "/health", "/v1/sessions/main/events", "/nowhere"] {
            let reply = server.send(server.request("GET", path).header("host", bad)).await;
            reply.refused(403, "host_not_allowed");
        }
    }
    let none = server.raw(b"GET /v1/me HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 403 ") || none.starts_with("HTTP/1.1 400 "), "{none}");
    let two =
        server.raw(b"GET /v1/me HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    assert!(two.starts_with("HTTP/1.1 403 ") || two.starts_with("HTTP/1.1 400 "), "{two}");
    server.assert_quiet();
}

#[tokio::test]
async fn only_the_servers_own_pages_may_call() {
    let server = TestGateway::with(&[("GREENROOM_SERVER__ALLOWED_ORIGINS", r#"["https://chat.example.org"]"#)]);
    let own = format!("http://{}", server.address());
    let from = |method: &str, origin: &str| {
        let request = server.request(method, "/v1/sessions/k/messages").header("origin", origin.to_owned());
        server.send(if method == "POST" { request.json(&text("hi")) } else { request })
    };
    from("POST", &own).await.ok(202);
    let chat = from("POST", "https://chat.example.org").await;
    chat.ok(202);
    assert_eq!(chat.header("access-control-allow-origin"), "https://chat.example.org");
    for bad in ["http://evil.example", "null", "https://chat.example.org.evil.example", "http://localhost:1", ""] {
        from("POST", bad).await.refused(403, "origin_not_allowed");
        from("GET", bad).await.refused(403, "origin_not_allowed");
    }
    for path in ["/v1/ws", "/v1/sessions/k/ws"] {
        Socket::try_open(&server, path, &[("origin", &own)]).await.unwrap_or_else(|error| panic!("{error}"));
        let refused = Socket::try_open(&server, path, &[("origin", "http://evil.example")]).await.err().unwrap();
        assert!(matches!(&*refused, Error::Http(answer) if answer.status() == 403), "{refused}");
        let refused = Socket::try_open(&server, path, &[("host", "evil.example")]).await.err().unwrap();
        assert!(matches!(&*refused, Error::Http(answer) if answer.status() == 403), "{refused}");
    }
    server.assert_quiet();
}
