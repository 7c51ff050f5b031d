//! The official library of Standard Webhooks, as a receiver of what the server delivers: the example is run as it is.

use serde_json::{Value, json};

use crate::{
    gateway::{TestGateway, eventually, str_of, text},
    run,
};

const SETTINGS: &[(&str, &str)] = &[
    ("GREENROOM_DELIVERY__ALLOW_ADDRESSES", r#"["127.0.0.0/8"]"#),
    // Longer than a receiver takes to start.
    ("GREENROOM_DELIVERY__SCHEDULE", r#"["0", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s"]"#),
];

/// Runs the example on a port until it has had so many events; gives what it printed.
async fn receive(port: u16, count: usize, secret: &str) -> Vec<Value> {
    let arguments = [port.to_string(), count.to_string(), secret.to_owned()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let script = "examples/standard-webhooks-receiver/receiver.mjs";
    let printed = run::node("webhooks", script, &arguments).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_official_library_believes_what_is_delivered_and_nothing_else() {
    let server = TestGateway::with(SETTINGS);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    let made = server.post("/v1/webhook-endpoints", json!({"url": url, "types": ["turn."]})).await.ok(201);
    let (id, secret) = (str_of(&made, "id"), str_of(&made, "secret"));
    server.run("web:a", text("with an \u{e4}, a \u{1f600} and \"quotes\"")).await;
    let expected: Vec<Value> =
        server.events("web:a").await.into_iter().filter(|event| str_of(event, "type").starts_with("turn.")).collect();
    // While both secrets sign, the receiver may know either.
    let count = expected.len();
    let receiver = tokio::spawn({
        let secret = secret.to_owned();
        async move { receive(port, count + 1, &secret).await }
    });
    let delivered = || async {
        let page = server.get(&format!("/v1/webhook-endpoints/{id}/deliveries?state=delivered")).await.ok(200);
        (page["data"].as_array().unwrap().len() == count).then_some(())
    };
    eventually("all of them are taken", delivered).await;
    let forged = server.request("POST", "/").json(&json!({"type": "x"}));
    let forged =
        forged.header("webhook-id", "msg_1").header("webhook-timestamp", "1").header("webhook-signature", "v1,x");
    let (client, request) = forged.build_split();
    let mut request = request.unwrap();
    *request.url_mut() = url.parse().unwrap();
    assert_eq!(client.execute(request).await.unwrap().status().as_u16(), 401);
    server.act(&format!("/v1/webhook-endpoints/{id}/rotate")).await.ok(200);
    server.act(&format!("/v1/webhook-endpoints/{id}/test")).await.ok(202);
    let seen = receiver.await.unwrap();
    let told = |event: &Value| (event["type"].clone(), event["session"].clone(), event["seq"].clone());
    assert_eq!(seen[..count].iter().map(told).collect::<Vec<_>>(), expected.iter().map(told).collect::<Vec<_>>());
    assert_eq!(seen[count]["type"], "webhook.test");
}
