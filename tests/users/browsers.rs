//! Browsers: logging in, the cookie and what it is good for, tokens of one's own.

use serde_json::{Value, json};

use crate::{
    gateway::{Reply, Socket, Sse, str_of},
    people::{House, greenroom, token, token_id},
};

/// The value of the cookie that an answer sets.
pub fn cookie_of(reply: &Reply) -> String {
    let set = reply.header("set-cookie");
    let (pair, attributes) = set.split_once("; ").unwrap_or_else(|| panic!("no cookie: {reply:?}"));
    for attribute in ["Path=/", "HttpOnly", "SameSite=Strict"] {
        assert!(attributes.split("; ").any(|one| one == attribute), "{attribute}: {set}");
    }
    pair.to_owned()
}

pub async fn log_in(house: &House, token: &str) -> String {
    let reply = house.server.post("/v1/login", json!({ "token": token })).await;
    assert!(!reply.text.contains("grc_"), "the cookie is in its header alone: {}", reply.text);
    reply.ok(200);
    cookie_of(&reply)
}

async fn with(house: &House, cookie: &str, method: &str, path: &str, body: Value) -> Reply {
    let request = house.server.request(method, path).header("cookie", cookie);
    house.server.send(if body.is_null() { request } else { request.json(&body) }).await
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_with_the_cookie_only() {
    let house = House::new();
    let cookie = log_in(&house, &house.alice).await;
    let me = with(&house, &cookie, "GET", "/v1/me", Value::Null).await.ok(200);
    assert_eq!((&me["user"], &me["orgs"]), (&json!("alice"), &json!(["acme"])));

    let made = with(&house, &cookie, "POST", "/v1/me/tokens", json!({"label": "ci", "scopes": ["read"]})).await;
    let made_token = made.ok(201);
    let (id, secret) = (str_of(&made_token, "id"), str_of(&made_token, "token"));
    assert_eq!(made.header("location"), format!("/v1/me/tokens/{id}"));
    assert_eq!((&made_token["label"], &made_token["scopes"]), (&json!("ci"), &json!(["read"])));
    house.get(secret, "/v1/sessions").await.ok(200);
    house.post(secret, "/v1/sessions", json!({})).await.refused(403, "missing_scope");

    let list = with(&house, &cookie, "GET", "/v1/me/tokens?limit=1", Value::Null).await;
    let page = list.ok(200);
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(id), &json!(true)));
    assert!(!list.text.contains(secret) && !list.text.contains(&house.alice), "{}", list.text);
    let one = with(&house, &cookie, "GET", &format!("/v1/me/tokens/{id}"), Value::Null).await;
    assert!(one.ok(200)["last_used_at"].is_string() && !one.text.contains(secret), "{}", one.text);

    // A repeated call makes no second one, and the secret is not told again.
    let again = async |body: Value| {
        let request = house.server.request("POST", "/v1/me/tokens").header("cookie", &cookie).json(&body);
        house.server.send(request.header("idempotency-key", "one")).await
    };
    let (first, second) = (again(json!({"label": "x"})).await.ok(201), again(json!({"label": "x"})).await.ok(201));
    assert_eq!((&first["id"], &second["token"]), (&second["id"], &json!(null)));
    again(json!({"label": "y"})).await.refused(409, "idempotency_key_reused");

    // A token cannot do any of it, and nobody else's token is there.
    for (method, path) in [("GET", "/v1/me/tokens"), ("POST", "/v1/me/tokens"), ("DELETE", "/v1/me/tokens/x")] {
        house.call(&house.alice, method, path, Value::Null).await.refused(401, "missing_credentials");
    }
    let bobs = format!("/v1/me/tokens/{}", token_id(&house, &house.bob).await);
    with(&house, &cookie, "DELETE", &bobs, Value::Null).await.refused(404, "token_not_found");
    with(&house, &cookie, "DELETE", "/v1/me/tokens/nonsense", Value::Null).await.refused(404, "token_not_found");

    with(&house, &cookie, "DELETE", &format!("/v1/me/tokens/{id}"), Value::Null).await.ok(204);
    house.get(secret, "/v1/sessions").await.refused(401, "invalid_credentials");
}

#[tokio::test]
async fn a_token_made_with_a_login_is_no_more_than_the_one_behind_it() {
    let house = House::new();
    let reads = token(&house.server, "alice", "read");
    let cookie = log_in(&house, &reads).await;
    let create = |body: Value| with(&house, &cookie, "POST", "/v1/me/tokens", body);
    for wider in [json!({"scopes": ["write"]}), json!({"scopes": ["read", "admin"]})] {
        create(wider).await.refused(403, "missing_scope");
    }
    create(json!({"scopes": []})).await.refused(400, "invalid_parameter");
    create(json!({"expires_at": "2001-01-01T00:00:00Z"})).await.refused(400, "invalid_parameter");
    create(json!({"label": "x".repeat(201)})).await.refused(400, "invalid_parameter");
    create(json!({"nonsense": 1})).await.refused(400, "invalid_json");
    let made = create(json!({})).await.ok(201);
    assert_eq!(made["scopes"], json!(["read"]));
    let child = str_of(&made, "token").to_owned();
    house.get(&child, "/v1/me").await.ok(200);
    // Whoever stole the first one keeps nothing.
    greenroom(&house.server, &["token", "revoke", &token_id(&house, &reads).await]);
    house.get(&child, "/v1/me").await.refused(401, "invalid_credentials");
    with(&house, &cookie, "GET", "/v1/me", Value::Null).await.refused(401, "invalid_credentials");
}

#[tokio::test]
async fn logging_out_ends_the_cookie_and_its_streams() {
    let house = House::new();
    house.post(&house.alice, "/v1/sessions", json!({"key": "k"})).await.ok(201);
    let (cookie, other) = (log_in(&house, &house.alice).await, log_in(&house, &house.alice).await);
    assert_ne!(cookie, other, "every login has its own");
    let mut stream = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("cookie", &cookie)]).await;
    let mut socket = Socket::try_open(&house.server, "/v1/sessions/k/ws", &[("cookie", &cookie)]).await.unwrap();
    socket.until_type("session.hello").await;
    let reply = with(&house, &cookie, "POST", "/v1/logout", Value::Null).await;
    reply.ok(204);
    assert!(reply.header("set-cookie").starts_with("greenroom=; ") && reply.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(stream.until_type("stream.end").await["data"]["reason"], "credentials_revoked");
    assert_eq!(socket.close().await.0, 4001);
    with(&house, &cookie, "GET", "/v1/me", Value::Null).await.refused(401, "invalid_credentials");
    with(&house, &other, "GET", "/v1/me", Value::Null).await.ok(200);
    with(&house, &cookie, "POST", "/v1/logout", Value::Null).await.ok(204);
}

#[tokio::test]
async fn a_login_lasts_no_longer_than_its_token() {
    let house = House::new();
    let cookie = log_in(&house, &house.alice).await;
    let soon = json!({"expires_at": "2099-01-01T00:00:00.000Z"});
    let long = with(&house, &cookie, "POST", "/v1/me/tokens", soon).await.ok(201);
    let reply = house.server.post("/v1/login", json!({"token": long["token"]})).await;
    assert_ne!(reply.ok(200)["expires_at"], long["expires_at"], "the login ends first");
    let printed = greenroom(&house.server, &["token", "create", "--user", "alice", "--expires", "1h"]);
    let short = house.server.post("/v1/login", json!({"token": printed.trim_end()})).await;
    let set = short.header("set-cookie");
    let age: u64 = set.rsplit_once("Max-Age=").unwrap().1.parse().unwrap();
    assert!(short.ok(200)["expires_at"].is_string() && age <= 3600, "{set}");
}

#[tokio::test]
async fn a_cookie_is_secure_where_it_could_be_heard() {
    let house = House::with(&[("GREENROOM_SERVER__ALLOWED_HOSTS", r#"["green.example.org"]"#)]);
    let request = house.server.request("POST", "/v1/login").json(&json!({"token": house.alice}));
    let reply = house.server.send(request.header("host", "green.example.org")).await;
    reply.ok(200);
    assert!(reply.header("set-cookie").contains("; Secure"), "{:?}", reply.headers);
    cookie_of(&reply);
    let local = house.server.post("/v1/login", json!({"token": house.alice})).await;
    assert!(!local.header("set-cookie").contains("Secure"), "{:?}", local.headers);
}
