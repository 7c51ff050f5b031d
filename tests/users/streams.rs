//! Streams end when the right to them ends.

use serde_json::{Value, json};

use crate::{
    gateway::{Socket, Sse, eventually, script, str_of},
    people::{House, greenroom, token_id},
};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn a_revoked_token_ends_its_open_streams_and_no_others() {
    let house = House::new();
    house.post(&house.alice, "/v1/sessions", json!({"key": "k", "visibility": "public"})).await.ok(201);
    let (alice, carol) = (bearer(&house.alice), bearer(&house.carol));
    let mut revoked = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &carol)]).await;
    let mut kept = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &alice)]).await;
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &carol)]).await.unwrap();
    socket.ok(json!({"op": "subscribe", "session": "k"})).await;
    let mut own = Socket::try_open(&house.server, "/v1/sessions/k/ws", &[("authorization", &carol)]).await.unwrap();
    own.until_type("session.hello").await;

    greenroom(&house.server, &["token", "revoke", &token_id(&house, &house.carol).await]);
    let end = revoked.until_type("stream.end").await;
    assert_eq!(end["data"], json!({"reason": "credentials_revoked", "retry": false}));
    assert_eq!((socket.close().await.0, own.close().await.0), (4001, 4001));
    house.post(&house.alice, "/v1/sessions/k/messages", json!({"text": "hi"})).await.ok(202);
    kept.until(|event| event["type"] == "turn.finished").await;
    house.server.assert_quiet();
}

#[tokio::test]
async fn a_revoked_token_ends_streams_over_all_sessions_and_of_the_log() {
    let house = House::new();
    let admin = crate::people::token(&house.server, "root", "admin");
    let (carol, admin_bearer) = (bearer(&house.carol), bearer(&admin));
    let mut feed = Sse::open_with(&house.server, "/v1/events", &[("authorization", &carol)]).await;
    feed.until_type("stream.hello").await;
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &carol)]).await.unwrap();
    socket.ok(json!({"op": "subscribe", "session": "*"})).await;
    let mut log = Sse::open_with(&house.server, "/v1/logs", &[("authorization", &admin_bearer)]).await;
    let end = json!({"reason": "credentials_revoked", "retry": false});

    greenroom(&house.server, &["token", "revoke", &token_id(&house, &house.carol).await]);
    assert_eq!(feed.until_type("stream.end").await["data"], end);
    assert_eq!(socket.close().await.0, 4001);
    greenroom(&house.server, &["token", "revoke", &token_id(&house, &admin).await]);
    assert_eq!(log.until_type("stream.end").await["data"], end);
    house.server.assert_quiet();
}

#[tokio::test]
async fn a_call_that_waits_ends_with_its_token_and_its_turn_goes_on() {
    let house = House::new();
    let hang = json!({"text": "/script {\"hang\":true}"});
    let waiting = house.post(&house.alice, "/v1/sessions/k/messages?wait=600", hang);
    let revoke = async {
        crate::gateway::eventually("the turn runs", || async {
            let session = house.get(&house.root, "/v1/sessions/k").await;
            (session.status == 200 && session.json()["busy"] == true).then_some(())
        })
        .await;
        greenroom(&house.server, &["token", "revoke", &token_id(&house, &house.alice).await]);
    };
    let (reply, ()) = tokio::join!(crate::gateway::in_time("the end of the call", waiting), revoke);
    reply.refused(401, "invalid_credentials");
    let session = house.get(&house.root, "/v1/sessions/k").await.ok(200);
    assert_eq!(session["current_turn"]["state"], "running", "{session}");
    house.server.assert_quiet();
}

#[tokio::test]
async fn a_session_that_is_made_private_is_out_of_sight_at_once() {
    let house = House::new();
    let org = json!({"key": "k", "visibility": "org", "org_id": "acme"});
    house.post(&house.alice, "/v1/sessions", org).await.ok(201);
    let (alice, bob) = (bearer(&house.alice), bearer(&house.bob));
    let mut member = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &bob)]).await;
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &bob)]).await.unwrap();
    socket.ok(json!({"op": "subscribe", "session": "k"})).await;
    let mut owner = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &alice)]).await;
    house.call(&house.alice, "PATCH", "/v1/sessions/k", json!({"visibility": "private"})).await.ok(200);
    assert_eq!(member.until_type("stream.end").await["data"], json!({"reason": "access_lost", "retry": false}));
    assert_eq!(socket.until_type("stream.end").await["data"]["reason"], "access_lost");
    socket.refused(json!({"op": "subscribe", "session": "k"}), "session_not_found").await;
    house.post(&house.alice, "/v1/sessions/k/messages", json!({"text": "hi"})).await.ok(202);
    owner.until(|event| event["type"] == "turn.finished").await;
}

#[tokio::test]
async fn what_comes_with_the_loss_of_sight_is_not_shown() {
    let house = House::new();
    house.post(&house.alice, "/v1/sessions", json!({"key": "k", "visibility": "public"})).await.ok(201);
    let carol = bearer(&house.carol);
    let mut stream = Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &carol)]).await;
    stream.until_type("session.hello").await;
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &carol)]).await.unwrap();
    socket.ok(json!({"op": "subscribe", "session": "k"})).await;
    socket.until_type("session.hello").await;
    let hidden = json!({"visibility": "private", "title": "hidden", "metadata": {"x": "hidden"}});
    house.call(&house.alice, "PATCH", "/v1/sessions/k", hidden).await.ok(200);
    loop {
        let (_, frame) = stream.frame().await.unwrap();
        assert!(!frame.contains("hidden"), "{frame}");
        if frame.contains("access_lost") {
            break;
        }
    }
    loop {
        let frame = socket.frame().await.unwrap();
        assert!(!frame.contains("hidden"), "{frame}");
        if frame.contains("access_lost") {
            break;
        }
    }
}

#[tokio::test]
async fn who_leaves_an_organisation_leaves_its_streams() {
    let house = House::new();
    let org = json!({"key": "k", "visibility": "org", "org_id": "acme"});
    house.post(&house.alice, "/v1/sessions", org).await.ok(201);
    let mut member =
        Sse::open_with(&house.server, "/v1/sessions/k/events", &[("authorization", &bearer(&house.bob))]).await;
    greenroom(&house.server, &["org", "remove", "acme", "bob"]);
    assert_eq!(member.until_type("stream.end").await["data"]["reason"], "access_lost");
    house.get(&house.bob, "/v1/sessions/k").await.refused(404, "session_not_found");
}

#[tokio::test]
async fn sockets_follow_the_same_rules_as_calls() {
    let house = House::new();
    let mine = json!({"text": "mine"});
    let turn = house.post(&house.alice, "/v1/sessions/k/messages?wait=60", mine).await.ok(200);
    let turn = str_of(&turn["turn"], "id");
    let mut socket =
        Socket::try_open(&house.server, "/v1/ws", &[("authorization", &bearer(&house.carol))]).await.unwrap();
    for op in [
        json!({"op": "subscribe", "session": "k", "after": 0}),
        json!({"op": "snapshot", "session": "k"}),
        json!({"op": "send", "session": "k", "text": "x"}),
        json!({"op": "abort", "session": "k"}),
        json!({"op": "cancel", "session": "k", "turn_id": turn}),
    ] {
        socket.refused(op, "session_not_found").await;
    }
    let reads = crate::people::token(&house.server, "alice", "read");
    let mut reader = Socket::try_open(&house.server, "/v1/ws", &[("authorization", &bearer(&reads))]).await.unwrap();
    reader.ok(json!({"op": "snapshot", "session": "k"})).await;
    reader.refused(json!({"op": "send", "session": "k", "text": "x"}), "missing_scope").await;
    let page = house.get(&house.alice, "/v1/sessions/k/messages").await.ok(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 2, "{page}");
    assert_ne!(page["data"][0]["parts"], Value::Null);
}

#[tokio::test]
async fn a_revoked_token_ends_its_calls_without_a_session_and_they_say_so() {
    let house = House::new();
    let running = async |count: &str| {
        let metrics = house.get(&house.root, "/metrics").await.text;
        metrics.lines().any(|line| line == format!("greenroom_running_turns {count}")).then_some(())
    };
    let id = token_id(&house, &house.carol).await;
    let message = json!({"role": "user", "content": script(&json!({"hang": true}))});
    let call = house.post(&house.carol, "/v1/chat/completions", json!({"model": "echo", "messages": [message]}));
    let revoked = async {
        eventually("the call to run", || running("1")).await;
        greenroom(&house.server, &["token", "revoke", &id]);
    };
    let (told, ()) = tokio::join!(call, revoked);
    told.refused(401, "invalid_credentials");
    eventually("the call to be over", || running("0")).await;
    house.server.assert_quiet();
}
