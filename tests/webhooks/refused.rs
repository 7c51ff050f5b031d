//! Addresses that are not called: nobody makes the server look at what only it can reach.

use serde_json::json;

use crate::{
    gateway::{TestGateway, eventually, str_of, text},
    outbound::{QUICK, deliveries, endpoint, server},
    receiver::Receiver,
};

#[tokio::test]
async fn addresses_inside_are_refused_however_they_are_written() {
    let server = TestGateway::start();
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "LocalHost.",
        "a.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ] {
        for scheme in ["http", "https"] {
            let body = json!({"url": format!("{scheme}://{host}:{port}/"), "types": ["turn."]});
            let error = server.post("/v1/webhook-endpoints", body).await.refused(400, "url_not_allowed");
            assert!(str_of(&error, "message").contains("not a public address"), "{scheme} {host}: {error}");
        }
    }
    for url in [
        "http://1.1.1.1/",
        "https://me:pw@1.1.1.1/",
        "https://me@1.1.1.1/",
        "ftp://1.1.1.1/",
        "file:///etc/passwd",
        "x",
    ] {
        let body = json!({"url": url, "types": ["turn."]});
        server.post("/v1/webhook-endpoints", body).await.refused(400, "url_not_allowed");
    }
    assert_eq!(receiver.seen().len(), 0);
}

#[tokio::test]
async fn an_address_is_looked_at_with_every_attempt() {
    // Allowed when the endpoints are made; then the operator, or the answer of a name server, changes.
    let mut server = server(&[]);
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let mut made = Vec::new();
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433"] {
        let url = format!("http://{host}:{port}/");
        made.push(endpoint(&server, json!({"url": url, "types": ["turn.finished"]})).await.0);
    }
    server.stop();
    server.restart_with(&[(QUICK[0].0, "[]")]);
    server.run("a", text("x")).await;
    for id in made {
        let failed =
            eventually("it is given up", || async { deliveries(&server, &id, "&state=failed").await.pop() }).await;
        assert!(str_of(&failed, "last_error").contains("not a public address"), "{failed}");
        assert_eq!(failed["last_status"], json!(null));
    }
    assert_eq!(receiver.seen().len(), 0);
}
