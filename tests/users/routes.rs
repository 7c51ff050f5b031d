//! Every route for every kind of caller, from one table. A route that is not in the table fails the test.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::{
    gateway::{Socket, SocketFrame, str_of},
    people::{House, token},
};

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Everybody, without credentials.
    Public,
    /// Whoever has credentials.
    Caller,
    /// With the scope `read`, of the caller's own.
    Read,
    /// With the scope `write`, of the caller's own.
    Write,
    /// Admins.
    Admin,
    /// Whoever has logged in with a browser: no bearer token at all.
    Browser,
    /// Whoever sees the session, with the scope `read`.
    Viewer,
    /// The owner of the session, with the scope `write`.
    Owner,
    /// The owner of the webhook endpoint, with the scope `read`.
    Own,
    /// The owner of the webhook endpoint, with the scope `write`.
    ChangeOwn,
}

use For::{Admin, Browser, Caller, ChangeOwn, Own, Owner, Public, Read, Viewer, Write};

/// Route, who may, body, and the status for those who may.
type Row = (&'static str, For, fn() -> Value, u16);

const fn none() -> Value {
    Value::Null
}

/// A run in a thread of its own: the caller makes it.
fn run() -> Value {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let thread = format!("run:{}", THREADS.fetch_add(1, Ordering::Relaxed));
    let message = json!({"id": "m", "role": "user", "content": "x"});
    json!({"threadId": thread, "runId": "r", "messages": [message]})
}

/// A webhook endpoint that nobody listens at.
fn endpoint() -> Value {
    json!({"url": "http://127.0.0.1:1/", "types": ["error"]})
}

const TABLE: &[Row] = &[
    ("GET /health", Public, none, 200),
    ("GET /ready", Public, none, 200),
    ("POST /v1/logout", Public, none, 204),
    // Whoever has a token may log in; this one is none.
    ("POST /v1/login", Public, || json!({"token": "gr_wrong"}), 401),
    ("GET /openapi.json", Public, none, 200),
    ("GET /docs", Public, none, 200),
    ("GET /docs/{file}", Public, none, 200),
    // Its signature is its credential; this one takes all from this machine.
    ("POST /webhooks/{route}", Public, || json!({"text": "x"}), 202),
    ("GET /metrics", Admin, none, 200),
    ("GET /v1/config", Admin, none, 200),
    ("PATCH /v1/config", Admin, none, 200),
    ("GET /v1/logs", Admin, none, 200),
    ("GET /v1/channels/status", Admin, none, 200),
    ("GET /v1/events", Read, none, 200),
    ("GET /v1/me", Caller, none, 200),
    ("GET /v1/me/tokens", Browser, none, 200),
    ("POST /v1/me/tokens", Browser, none, 201),
    ("GET /v1/me/tokens/{id}", Browser, none, 200),
    ("DELETE /v1/me/tokens/{id}", Browser, none, 204),
    ("GET /v1/audit", Read, none, 200),
    ("GET /v1/agents", Read, none, 200),
    ("POST /v1/agents/refresh", Admin, none, 200),
    ("POST /v1/ag-ui", Write, run, 200),
    ("GET /v1/sessions", Read, none, 200),
    ("POST /v1/sessions", Write, none, 201),
    ("GET /v1/webhook-endpoints", Read, none, 200),
    ("POST /v1/webhook-endpoints", Write, endpoint, 201),
    ("GET /v1/webhook-endpoints/{id}", Own, none, 200),
    ("PATCH /v1/webhook-endpoints/{id}", ChangeOwn, || json!({"types": ["error"]}), 200),
    ("DELETE /v1/webhook-endpoints/{id}", ChangeOwn, none, 204),
    ("POST /v1/webhook-endpoints/{id}/rotate", ChangeOwn, none, 200),
    ("POST /v1/webhook-endpoints/{id}/test", ChangeOwn, none, 202),
    ("POST /v1/webhook-endpoints/{id}/enable", ChangeOwn, none, 200),
    ("GET /v1/webhook-endpoints/{id}/deliveries", Own, none, 200),
    ("GET /v1/webhook-endpoints/{id}/deliveries/{delivery}", Own, none, 200),
    ("POST /v1/webhook-endpoints/{id}/deliveries/{delivery}/redeliver", ChangeOwn, none, 202),
    ("GET /v1/choices", Read, none, 200),
    (
        "POST /v1/chat/completions",
        Write,
        || json!({"model": "echo", "messages": [{"role": "user", "content": "x"}]}),
        200,
    ),
    ("POST /v1/responses", Write, || json!({"model": "echo", "input": "x"}), 200),
    // The id of a token names neither: whoever gets that far is told so.
    ("GET /v1/responses/{id}", Read, none, 404),
    ("POST /v1/responses/{id}/cancel", Write, none, 404),
    ("GET /v1/models", Read, none, 200),
    ("GET /v1/models/{id}", Read, none, 404),
    ("GET /v1/ws", Read, none, 200),
    ("GET /v1/sessions/{key}", Viewer, none, 200),
    ("PATCH /v1/sessions/{key}", Owner, || json!({"title": "x"}), 200),
    ("DELETE /v1/sessions/{key}", Owner, none, 204),
    ("GET /v1/sessions/{key}/state", Viewer, none, 200),
    ("GET /v1/sessions/{key}/messages", Viewer, none, 200),
    ("POST /v1/sessions/{key}/messages", Owner, || json!({"text": "x"}), 202),
    ("GET /v1/sessions/{key}/messages/{id}", Viewer, none, 200),
    ("POST /v1/sessions/{key}/chat", Owner, || json!({"text": "x"}), 200),
    ("GET /v1/sessions/{key}/chat/stream", Viewer, none, 204),
    ("POST /v1/chat", Write, || json!({"id": format!("chat:{}", uuid::Uuid::now_v7()), "text": "x"}), 200),
    // Nothing runs: the same whether the session is there, or to be seen.
    ("GET /v1/chat/{key}/stream", Read, none, 204),
    ("POST /v1/sessions/{key}/reset", Owner, none, 200),
    ("POST /v1/sessions/{key}/reload", Owner, none, 200),
    ("POST /v1/sessions/{key}/continue", Owner, || json!({"text": "x", "profile": "y"}), 202),
    ("PUT /v1/sessions/{key}/feedback", Owner, || json!({"rating": "up"}), 200),
    ("GET /v1/sessions/{key}/brief", Viewer, none, 200),
    ("PUT /v1/sessions/{key}/brief", Owner, || json!({"goal": "x"}), 200),
    // The echo agent has neither models nor modes: whoever gets that far is told so.
    ("PUT /v1/sessions/{key}/model", Owner, || json!({"id": "x"}), 404),
    ("PUT /v1/sessions/{key}/mode", Owner, || json!({"id": "x"}), 404),
    ("GET /v1/sessions/{key}/commands", Viewer, none, 200),
    ("GET /v1/sessions/{key}/turns", Viewer, none, 200),
    ("GET /v1/sessions/{key}/turns/{id}", Viewer, none, 200),
    // The turn is over: whoever gets that far is told so.
    ("PATCH /v1/sessions/{key}/turns/{id}", Owner, || json!({"text": "y"}), 409),
    ("POST /v1/sessions/{key}/turns/{id}/cancel", Owner, none, 409),
    ("POST /v1/sessions/{key}/turns/{id}/move", Owner, || json!({"before": null}), 409),
    ("POST /v1/sessions/{key}/turns/{id}/retry", Owner, none, 409),
    ("POST /v1/sessions/{key}/abort", Owner, none, 200),
    ("DELETE /v1/sessions/{key}/queue", Owner, none, 200),
    ("GET /v1/sessions/{key}/choices", Viewer, none, 200),
    ("POST /v1/sessions/{key}/choices/{id}", Owner, || json!({"allow": true}), 202),
    ("GET /v1/sessions/{key}/events", Viewer, none, 200),
    ("GET /v1/sessions/{key}/ws", Viewer, none, 200),
];

/// The routes of the program, out of its source.
fn routes() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/mod.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let body = source.split("pub fn configure(").nth(1).unwrap();
    let mut found = BTreeSet::new();
    for route in body.split(".add(app)") {
        let code: String =
            route.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().concat();
        let absolute = code.rfind("At::new(\"").map(|at| ("", at + "At::new(\"".len()));
        let relative = code.rfind("session(\"").map(|at| ("/v1/sessions/{key}", at + "session(\"".len()));
        let Some((prefix, at)) = absolute.max_by_place(relative) else { continue };
        let (path, handlers) = code[at..].split_once("\")").unwrap();
        for (call, method) in [
            (".get(", "GET"),
            (".stream(", "GET"),
            (".post(", "POST"),
            (".put(", "PUT"),
            (".patch(", "PATCH"),
            (".delete(", "DELETE"),
        ] {
            if handlers.contains(call) {
                // A pattern, as of a part that may hold slashes, is no part of the path's name.
                found.insert(format!("{method} {prefix}{}", path.replace(":.+}", "}")));
            }
        }
    }
    found
}

/// Of two places in a text the later one.
trait Later: Sized {
    fn max_by_place(self, other: Self) -> Self;
}

impl Later for Option<(&'static str, usize)> {
    fn max_by_place(self, other: Self) -> Self {
        self.into_iter().chain(other).max_by_key(|(_, at)| *at)
    }
}

#[test]
fn every_route_is_in_the_table() {
    let routes = routes();
    assert!(
        routes.len() > 40 && routes.contains("GET /v1/sessions/{key}/ws"),
        "the source is not read right: {routes:?}"
    );
    let table: BTreeSet<String> = TABLE.iter().map(|row| row.0.to_owned()).collect();
    let missing: Vec<_> = routes.difference(&table).collect();
    assert!(missing.is_empty(), "say in the table who may call {missing:?}");
    let unknown: Vec<_> = table.difference(&routes).collect();
    assert!(unknown.is_empty(), "there are no routes {unknown:?}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    WrongScope,
    Stranger,
    Member,
    Owner,
    Admin,
}

const EVERYBODY: [Who; 6] = [Who::Nobody, Who::WrongScope, Who::Stranger, Who::Member, Who::Owner, Who::Admin];

/// The refusal that this caller gets, or none.
fn refusal(row: For, who: Who) -> Option<(u16, &'static str)> {
    match (row, who) {
        (Public, _) => None,
        (_, Who::Nobody) | (Browser, _) => Some((401, "missing_credentials")),
        (Caller, _) => None,
        (_, Who::WrongScope) => Some((403, "missing_scope")),
        (_, Who::Admin) => None,
        (Admin, _) => Some((403, "missing_scope")),
        (Own | ChangeOwn, Who::Stranger | Who::Member) => Some((404, "endpoint_not_found")),
        (Viewer | Owner, Who::Stranger) => Some((404, "session_not_found")),
        (Owner, Who::Member) => Some((403, "not_session_owner")),
        _ => None,
    }
}

/// A session of alice's that her organisation sees: its key, and what a `{id}` of the path stands for.
async fn prepare(house: &House, number: usize, path: &str) -> (String, String) {
    let key = format!("k{number}");
    if path.contains("webhook-endpoints/{id}") {
        let made = house.post(&house.alice, "/v1/webhook-endpoints", endpoint()).await.ok(201);
        return (key, str_of(&made, "id").to_owned());
    }
    if !path.contains("{key}") {
        let id = crate::people::token_id(house, &house.alice).await;
        return (key, id);
    }
    let body = json!({"key": key, "visibility": "org", "org_id": "acme"});
    house.post(&house.alice, "/v1/sessions", body).await.ok(201);
    let messages = format!("/v1/sessions/{key}/messages");
    if path.contains("choices/{id}") {
        house.post(&house.alice, &messages, json!({"text": "/script {\"ask\":\"permission\"}"})).await.ok(202);
        let path = format!("/v1/sessions/{key}/choices");
        let pending = crate::gateway::eventually("a choice", || async {
            let pending = house.get(&house.alice, &path).await.ok(200);
            pending["data"].get(0).map(|choice| str_of(choice, "id").to_owned())
        });
        return (key, pending.await);
    }
    let turn = house.post(&house.alice, &format!("{messages}?wait=60"), json!({"text": "hi"})).await.ok(200);
    if path.contains("messages/{id}") {
        let page = house.get(&house.alice, &messages).await.ok(200);
        return (key, str_of(&page["data"][0], "id").to_owned());
    }
    (key, str_of(&turn["turn"], "id").to_owned())
}

/// What a socket comes to, as the status of a call would be.
async fn knock(house: &House, path: &str, token: Option<&str>) -> (u16, String) {
    let protocols = token.map_or("greenroom.v1".to_owned(), |token| format!("greenroom.v1, bearer.{token}"));
    let mut socket = match Socket::try_open(&house.server, path, &[("sec-websocket-protocol", &protocols)]).await {
        Ok(socket) => socket,
        Err(error) => match *error {
            Error::Http(answer) => return (answer.status().as_u16(), "missing_scope".into()),
            other => panic!("{other}"),
        },
    };
    assert_eq!(socket.handshake.headers()["sec-websocket-protocol"], "greenroom.v1", "the token is not told back");
    if path == "/v1/ws" && token.is_some() {
        assert!(socket.ok(json!({"op": "ping"})).await["at"].is_string());
        return (200, String::new());
    }
    match socket.next().await {
        SocketFrame::Close(4001, reason) => (401, reason),
        SocketFrame::Close(4004, reason) => (404, reason),
        SocketFrame::Text(text) => {
            assert!(text.contains("session.hello"), "{text}");
            (200, String::new())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_route_for_every_caller() {
    let house = House::with(&[
        ("GREENROOM_WEBHOOKS__CI__VERIFY", "none"),
        ("GREENROOM_DELIVERY__ALLOW_ADDRESSES", r#"["127.0.0.0/8"]"#),
    ]);
    let (reads, writes) = (token(&house.server, "alice", "read"), token(&house.server, "alice", "write,webhook"));
    let mut wrong = Vec::new();
    for (row, &(route, allowed, body, status)) in TABLE.iter().enumerate() {
        let (method, path) = route.split_once(' ').unwrap();
        for (place, who) in EVERYBODY.into_iter().enumerate() {
            let (key, id) = prepare(&house, row * EVERYBODY.len() + place, path).await;
            let delivery = if path.contains("{delivery}") {
                let test = format!("/v1/webhook-endpoints/{id}/test");
                str_of(&house.post(&house.alice, &test, json!({})).await.ok(202), "id").to_owned()
            } else {
                String::new()
            };
            let path = path
                .replace("{delivery}", &delivery)
                .replace("{key}", &key)
                .replace("{id}", &id)
                .replace("{file}", "swagger-ui.css")
                .replace("{route}", "ci");
            let credentials = match who {
                Who::Nobody => None,
                Who::WrongScope if matches!(allowed, Read | Viewer | Own) => Some(&writes),
                Who::WrongScope => Some(&reads),
                Who::Stranger => Some(&house.carol),
                Who::Member => Some(&house.bob),
                Who::Owner => Some(&house.alice),
                Who::Admin => Some(&house.root),
            };
            let (status_of, code) = if path.ends_with("/ws") {
                knock(&house, &path, credentials.map(String::as_str)).await
            } else {
                let request = house.server.request(method, &path).header("accept", "application/json");
                let request = credentials.into_iter().fold(request, |request, token| request.bearer_auth(token));
                let body = body();
                let reply = house.server.send(if body.is_null() { request } else { request.json(&body) }).await;
                let code = reply.status.ge(&400).then(|| str_of(&reply.assert_envelope(), "code").to_owned());
                if reply.status == 401 {
                    assert!(reply.header("www-authenticate").starts_with("Bearer"), "{route}: {:?}", reply.headers);
                }
                (reply.status, code.unwrap_or_default())
            };
            let expected = refusal(allowed, who);
            let right = match expected {
                Some(refusal) => (status_of, code.as_str()) == refusal,
                None => status_of == status && !["missing_credentials", "missing_scope"].contains(&code.as_str()),
            };
            if !right {
                wrong.push(format!("{route} for {who:?}: {status_of} {code}, not {expected:?} or {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    house.server.assert_quiet();
}
