//! What is delivered: signed, in order, until it is taken or given up; over crashes; and to whom.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    gateway::{Reply, TestGateway, eventually, play, str_of, text},
    people::{House, token},
    receiver::{Receiver, Seen, answer},
};

/// Settings of a server that may deliver to loopback and does not take its time.
pub const QUICK: &[(&str, &str)] = &[
    ("GREENROOM_DELIVERY__ALLOW_ADDRESSES", r#"["127.0.0.0/8", "::1/128"]"#),
    ("GREENROOM_DELIVERY__SCHEDULE", r#"["0", "30ms", "30ms"]"#),
];

/// A server that may deliver to loopback, with more settings.
pub fn server(more: &[(&str, &str)]) -> TestGateway {
    TestGateway::with(&[QUICK, more].concat())
}

/// Makes an endpoint: its id and its secret.
pub async fn endpoint(server: &TestGateway, body: Value) -> (String, String) {
    let made = server.post("/v1/webhook-endpoints", body).await.ok(201);
    (str_of(&made, "id").to_owned(), str_of(&made, "secret").to_owned())
}

pub async fn show(server: &TestGateway, id: &str) -> Value {
    server.get(&format!("/v1/webhook-endpoints/{id}")).await.ok(200)
}

pub async fn deliveries(server: &TestGateway, id: &str, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/webhook-endpoints/{id}/deliveries?order=asc&limit=100{query}")).await.ok(200);
    page["data"].as_array().unwrap().clone()
}

/// The first arrival of each message, in order of arrival.
fn first_arrivals(seen: &[Seen]) -> Vec<&Seen> {
    let mut known = std::collections::HashSet::new();
    seen.iter().filter(|one| known.insert(one.id().to_owned())).collect()
}

fn seqs(seen: &[&Seen]) -> Vec<u64> {
    seen.iter().map(|one| one.event()["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn events_arrive_signed_whole_and_in_order_whatever_fails_meanwhile() {
    let server = server(&[]);
    let failures = [1, 4, 5, 9];
    let receiver = Receiver::answering(move |n| answer(if failures.contains(&n) { 500 } else { 204 }, "")).await;
    let (id, secret) =
        endpoint(&server, json!({"url": receiver.url(), "types": ["turn."], "sessions": ["web:*"]})).await;
    server.run("other", text("not for it")).await;
    for n in 0..4 {
        server.run("web:a", text(&format!("turn {n}"))).await;
    }
    let stored: Vec<String> =
        server.stored("web:a").await.into_iter().filter(|event| event.contains(r#""type":"turn."#)).collect();
    assert!(stored.len() >= 12, "{stored:?}");
    let seen = receiver.wait(stored.len() + failures.len()).await;
    assert_eq!(seen.len(), stored.len() + failures.len());
    let arrived = first_arrivals(&seen);
    for (one, event) in arrived.iter().zip(&stored) {
        assert!(one.body.ends_with(&format!(r#","data":{event}}}"#)), "the stored bytes: {}", one.body);
        assert_eq!(one.json()["type"], one.event()["type"]);
        assert_eq!(one.json()["timestamp"], one.event()["at"]);
        assert!(one.id().starts_with("msg_") && one.head.starts_with("POST /hook HTTP/1.1"), "{}", one.head);
        assert_eq!(one.header("content-type"), "application/json");
    }
    assert_eq!(arrived.len(), stored.len());
    for (n, one) in seen.iter().enumerate() {
        assert!(one.is_signed(&secret), "{}", one.head);
        if failures.contains(&n) {
            assert_eq!((seen[n + 1].id(), &seen[n + 1].body), (one.id(), &one.body), "nothing goes before what failed");
        }
    }
    let listed = eventually("all deliveries", || async {
        let listed = deliveries(&server, &id, "&state=delivered").await;
        (listed.len() == stored.len()).then_some(listed)
    })
    .await;
    let ids: Vec<&str> = listed.iter().map(|one| str_of(one, "id")).collect();
    assert_eq!(ids, arrived.iter().map(|one| one.id()).collect::<Vec<_>>());
    let retried = &listed[1];
    assert_eq!(
        (&retried["attempts"], &retried["last_status"], &retried["last_error"]),
        (&json!(2), &json!(204), &Value::Null)
    );
    let shown = show(&server, &id).await;
    assert_eq!((&shown["backlog"], &shown["dropped"], &shown["enabled"]), (&json!(0), &json!(0), &json!(true)));
    assert!(str_of(&shown["last_error"], "message").contains("500") && shown["last_success_at"].is_string(), "{shown}");
    server.assert_quiet();
}

#[tokio::test]
async fn a_receiver_can_ask_for_time() {
    let server = server(&[]);
    let receiver = Receiver::answering(|n| match n {
        0 => answer(429, "retry-after: 1\r\n"),
        1 => {
            let until = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
            let until = until.format(&time::format_description::well_known::Rfc2822).unwrap().replace("+0000", "GMT");
            answer(503, &format!("retry-after: {until}\r\n"))
        }
        _ => answer(200, ""),
    })
    .await;
    endpoint(&server, json!({"url": receiver.url(), "types": ["turn.finished"]})).await;
    server.run("a", text("x")).await;
    let seen = receiver.wait(3).await;
    let gap = |n: usize| seen[n + 1].at - seen[n].at;
    assert!(gap(0) >= Duration::from_secs(1), "{:?}", gap(0));
    // A date has whole seconds.
    assert!(gap(1) >= Duration::from_secs(2), "{:?}", gap(1));
    assert_eq!(first_arrivals(&seen).len(), 1);
}

#[tokio::test]
async fn a_receiver_that_asks_for_years_is_asked_again_all_the_same() {
    let server = server(&[("GREENROOM_DELIVERY__MAX_RETRY_AFTER", "1s")]);
    let later = |n| if n == 0 { answer(503, "retry-after: 99999999\r\n") } else { answer(200, "") };
    let receiver = Receiver::answering(later).await;
    endpoint(&server, json!({"url": receiver.url(), "types": ["turn.finished"]})).await;
    server.run("a", text("x")).await;
    let seen = receiver.wait(2).await;
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_has_failed() {
    let server = server(&[("GREENROOM_DELIVERY__TIMEOUT", "200ms")]);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let (id, _) = endpoint(&server, json!({"url": url, "types": ["turn.finished"]})).await;
    server.run("a", text("x")).await;
    let failed =
        eventually("the end of the attempts", || async { deliveries(&server, &id, "&state=failed").await.pop() }).await;
    assert_eq!((&failed["attempts"], &failed["last_status"]), (&json!(3), &Value::Null));
    assert!(!str_of(&failed, "last_error").is_empty(), "{failed}");
    held.abort();
}

#[tokio::test]
async fn who_is_gone_is_disabled_and_the_owner_is_told() {
    let server = server(&[]);
    let (gone, other) = (Receiver::answering(|_| answer(410, "")).await, Receiver::start().await);
    let (id, _) = endpoint(&server, json!({"url": gone.url(), "types": ["turn.finished"]})).await;
    endpoint(&server, json!({"url": other.url(), "types": ["webhook."]})).await;
    server.run("a", text("x")).await;
    let told = other.wait(1).await[0].json();
    assert_eq!((&told["type"], &told["data"]["endpoint"]), (&json!("webhook.disabled"), &json!(id)));
    assert_eq!(told["data"]["reason"], "gone");
    let shown = show(&server, &id).await;
    assert_eq!((&shown["enabled"], &shown["disabled_reason"]), (&json!(false), &json!("gone")));
    let status = server.get("/v1/channels/status").await.ok(200);
    let listed = status["webhook_endpoints"].as_array().unwrap();
    assert!(listed.iter().any(|one| one["id"] == *id && one["disabled_reason"] == "gone"), "{status}");
    let audit = server.get("/v1/audit?action=webhook.disable").await.ok(200);
    assert_eq!(audit["data"][0]["detail"], json!({"endpoint": id, "reason": "gone"}));
    server.post(&format!("/v1/webhook-endpoints/{id}/test"), json!({})).await.refused(409, "endpoint_disabled");
    // Nothing is kept for it while it is disabled.
    server.run("a", text("y")).await;
    gone.now_answers(|_| answer(200, ""));
    let enabled = server.act(&format!("/v1/webhook-endpoints/{id}/enable")).await.ok(200);
    assert_eq!((&enabled["enabled"], &enabled["disabled_reason"]), (&json!(true), &Value::Null));
    let third = server.run("a", text("z")).await;
    let seen = gone.wait(2).await;
    assert_eq!((seen.len(), &seen[1].event()["turn_id"]), (2, &third["turn"]["id"]));
}

#[tokio::test]
async fn what_is_not_taken_is_given_up_and_then_the_endpoint_is_disabled() {
    let server = server(&[]);
    let receiver = Receiver::answering(|_| "HTTP/1.1 500 X\r\ncontent-length: 12\r\n\r\nout\tof\norder".into()).await;
    let (id, _) = endpoint(&server, json!({"url": receiver.url(), "types": ["turn.finished"]})).await;
    server.run("a", text("x")).await;
    let failed =
        eventually("the end of the attempts", || async { deliveries(&server, &id, "&state=failed").await.pop() }).await;
    assert_eq!((&failed["attempts"], &failed["last_status"]), (&json!(3), &json!(500)));
    assert!(
        str_of(&failed, "last_error").ends_with(": out of order") && failed["next_attempt_at"].is_null(),
        "{failed}"
    );
    assert_eq!(show(&server, &id).await["enabled"], true, "one is not enough");
    server.run("a", text("y")).await;
    eventually("the endpoint's end", || async {
        (show(&server, &id).await["disabled_reason"] == "failing").then_some(())
    })
    .await;
    assert_eq!(receiver.seen().len(), 6);
    let path = format!("/v1/webhook-endpoints/{id}/deliveries/{}", str_of(&failed, "id"));
    server.act(&format!("{path}/redeliver")).await.refused(409, "endpoint_disabled");
    receiver.now_answers(|_| answer(200, ""));
    server.act(&format!("/v1/webhook-endpoints/{id}/enable")).await.ok(200);
    let again = server.act(&format!("{path}/redeliver")).await.ok(202);
    assert_eq!((&again["id"], &again["finished_at"]), (&failed["id"], &Value::Null));
    let seen = receiver.wait(7).await;
    assert_eq!((seen[6].id(), &seen[6].body), (seen[0].id(), &seen[0].body));
    let done = eventually("it was taken", || async {
        let now = server.get(&path).await.ok(200);
        (now["state"] == "delivered").then_some(now)
    })
    .await;
    assert_eq!(done["attempts"], 4);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = server(&[]);
    let hidden = Receiver::start().await;
    let location = format!("location: {}\r\n", hidden.url());
    let receiver = Receiver::answering(move |n| answer([301, 302, 307][n % 3], &location)).await;
    let (id, _) = endpoint(&server, json!({"url": receiver.url(), "types": ["turn.finished"]})).await;
    server.run("a", text("x")).await;
    let failed =
        eventually("the end of the attempts", || async { deliveries(&server, &id, "&state=failed").await.pop() }).await;
    assert!(str_of(&failed, "last_error").contains("redirects are not followed"), "{failed}");
    assert_eq!((receiver.seen().len(), hidden.seen().len()), (3, 0));
}

#[tokio::test]
async fn old_and_new_secret_sign_while_they_overlap() {
    let server = server(&[("GREENROOM_DELIVERY__ROTATION", "2s")]);
    let receiver = Receiver::start().await;
    let (id, old) = endpoint(&server, json!({"url": receiver.url(), "types": ["turn."]})).await;
    let rotated = server.act(&format!("/v1/webhook-endpoints/{id}/rotate")).await.ok(200);
    let new = str_of(&rotated, "secret").to_owned();
    assert!(old != new && rotated["old_secret_until"].is_string(), "{rotated}");
    let ping = format!("/v1/webhook-endpoints/{id}/test");
    server.act(&ping).await.ok(202);
    let first = receiver.wait(1).await[0].clone();
    assert!(first.is_signed(&old) && first.is_signed(&new), "{}", first.head);
    assert_eq!(first.json()["type"], "webhook.test");
    eventually("the end of the old secret", || async {
        let before = receiver.seen().len();
        server.act(&ping).await.ok(202);
        let last = receiver.wait(before + 1).await.pop().unwrap();
        assert!(last.is_signed(&new), "{}", last.head);
        (!last.is_signed(&old)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_backlog_has_a_bound_and_what_is_dropped_is_told() {
    let schedule = r#"["0", "1h"]"#;
    let server = server(&[("GREENROOM_DELIVERY__MAX_BACKLOG", "5"), ("GREENROOM_DELIVERY__SCHEDULE", schedule)]);
    let receiver = Receiver::answering(|_| answer(500, "")).await;
    let (id, _) = endpoint(&server, json!({"url": receiver.url(), "types": ["message.delta"]})).await;
    server.run("a", play(json!({"deltas": 40, "bytes": 10, "delay_ms": 30}))).await;
    let deltas: Vec<Value> =
        server.events("a").await.into_iter().filter(|event| event["type"] == "message.delta").collect();
    let shown = show(&server, &id).await;
    assert!(deltas.len() > 6, "{}", deltas.len());
    assert_eq!((&shown["backlog"], &shown["dropped"]), (&json!(5), &json!(deltas.len() - 5)));
    let metrics = server.get("/metrics").await.text;
    let count = format!("greenroom_webhook_deliveries_total{{outcome=\"dropped\"}} {}", deltas.len() - 5);
    assert!(metrics.contains(&count) && metrics.contains("greenroom_webhook_backlog 5"), "{metrics}");
    assert!(server.log().contains("too many deliveries wait"), "{}", server.log());
    receiver.now_answers(|_| answer(200, ""));
    let waiting = deliveries(&server, &id, "&state=pending").await;
    server.act(&format!("/v1/webhook-endpoints/{id}/deliveries/{}/redeliver", str_of(&waiting[0], "id"))).await.ok(202);
    let seen = receiver.wait(6).await;
    let expected: Vec<u64> = deltas.iter().take(5).map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs(&first_arrivals(&seen)), expected, "the oldest are kept");
    server.run("b", text("room again")).await;
    receiver.wait(7).await;
}

#[tokio::test]
async fn kill_9_loses_no_delivery_and_forgets_none() {
    let waits = format!("[\"0\"{}]", ", \"200ms\"".repeat(600));
    let mut server = server(&[
        ("GREENROOM_DELIVERY__SCHEDULE", &waits),
        ("GREENROOM_STREAM__FLUSH_INTERVAL", "0"),
        ("GREENROOM_SESSION__MAX_QUEUE", "1000"),
    ]);
    let receiver = Receiver::answering(|_| answer(503, "")).await;
    let (id, secret) = endpoint(&server, json!({"url": receiver.url(), "types": ["message.delta"]})).await;
    server.run("a", play(json!({"deltas": 1000, "bytes": 10}))).await;
    let deltas = server.events("a").await.into_iter().filter(|event| event["type"] == "message.delta");
    let expected: Vec<u64> = deltas.map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!((expected.len(), &show(&server, &id).await["backlog"]), (1000, &json!(1000)));
    let mut ids = Vec::new();
    let mut after = String::new();
    while let Some(last) = {
        let page = deliveries(&server, &id, &after).await;
        ids.extend(page.iter().map(|one| str_of(one, "id").to_owned()));
        page.last().map(|last| str_of(last, "id").to_owned())
    } {
        after = format!("&after={last}");
    }
    assert_eq!(ids.len(), 1000);
    let refused = receiver.seen().len();
    server.kill9();
    // The receiver is up again, and the server is killed in the middle of delivering, twice.
    receiver.now_answers(|_| answer(204, ""));
    for part in [250, 600] {
        server.restart();
        receiver.wait(refused + part).await;
        server.kill9();
    }
    server.restart();
    eventually("the end of the backlog", || async { (show(&server, &id).await["backlog"] == 0).then_some(()) }).await;
    let seen = receiver.seen();
    let arrived = first_arrivals(&seen);
    assert_eq!(arrived.iter().map(|one| one.id().to_owned()).collect::<Vec<_>>(), ids, "the same ids, in order");
    assert_eq!(seqs(&arrived), expected);
    assert!(seen.iter().all(|one| one.is_signed(&secret)));
    // What came twice came twice in a row.
    for (n, pair) in seen.windows(2).enumerate() {
        let known = seen[..=n].iter().any(|one| one.id() == pair[1].id());
        assert!(!known || pair[0].id() == pair[1].id(), "{} came again later", pair[1].id());
    }
}

#[tokio::test]
async fn of_two_servers_on_one_database_one_delivers_until_it_is_gone() {
    let database = crate::gateway::postgres::server().fresh_database();
    let settings = [QUICK, &[("GREENROOM_DATABASE", database.as_str())]].concat();
    let (mut one, two) = (TestGateway::on_sqlite(&settings), TestGateway::on_sqlite(&settings));
    let receiver = Receiver::start().await;
    let (id, _) = endpoint(&one, json!({"url": receiver.url(), "types": ["turn.finished"]})).await;
    let came = |key: &str| receiver.seen().iter().filter(|seen| seen.event()["session"] == *key).count();
    // The other one hears of the endpoint in a moment.
    eventually("the other server knows of it", || async {
        two.run("warm", text("x")).await;
        (came("warm") > 0).then_some(())
    })
    .await;
    for n in 0..5 {
        one.run(&format!("one{n}"), text("x")).await;
        two.run(&format!("two{n}"), text("x")).await;
    }
    for n in 0..5 {
        for key in [format!("one{n}"), format!("two{n}")] {
            eventually(&key, || async { (came(&key) > 0).then_some(()) }).await;
        }
    }
    // What is sent, and not noted as such when its server is killed, is sent again.
    eventually("all of it is noted", || async {
        let noted = deliveries(&one, &id, "").await;
        noted.iter().all(|delivery| delivery["state"] == "delivered").then_some(())
    })
    .await;
    one.kill9();
    two.run("last", text("x")).await;
    eventually("the other server goes on", || async { (came("last") > 0).then_some(()) }).await;
    let seen = receiver.seen();
    assert_eq!(first_arrivals(&seen).len(), seen.len(), "nothing came twice");
}

#[tokio::test]
async fn an_endpoint_sees_what_its_owner_sees() {
    let house = House::with(QUICK);
    let make = |who: String, receiver: &Receiver| {
        let body = json!({"url": receiver.url(), "types": ["turn.finished"]});
        let house = &house;
        async move { str_of(&house.post(&who, "/v1/webhook-endpoints", body).await.ok(201), "id").to_owned() }
    };
    let (to_alice, to_bob, to_carol, to_root) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let alices = make(house.alice.clone(), &to_alice).await;
    make(house.bob.clone(), &to_bob).await;
    make(house.carol.clone(), &to_carol).await;
    make(house.root.clone(), &to_root).await;
    let run = |who: String, key: &'static str, visibility: Value| {
        let house = &house;
        async move {
            let mut body = json!({"key": key});
            body.as_object_mut().unwrap().extend(visibility.as_object().unwrap().clone());
            house.post(&who, "/v1/sessions", body).await.ok(201);
            house.post(&who, &format!("/v1/sessions/{key}/messages?wait=60"), json!({"text": "x"})).await.ok(200);
        }
    };
    run(house.alice.clone(), "private", json!({})).await;
    run(house.alice.clone(), "ours", json!({"visibility": "org", "org_id": "acme"})).await;
    run(house.alice.clone(), "public", json!({"visibility": "public"})).await;
    run(house.carol.clone(), "last", json!({"visibility": "public"})).await;
    let keys = |seen: Vec<Seen>| -> Vec<String> {
        seen.iter().map(|one| str_of(&one.event(), "session").to_owned()).collect()
    };
    // Each has its own order, and `last` is the end of all of them.
    assert_eq!(keys(to_root.wait(4).await), ["private", "ours", "public", "last"]);
    assert_eq!(keys(to_alice.wait(4).await), ["private", "ours", "public", "last"]);
    assert_eq!(keys(to_bob.wait(3).await), ["ours", "public", "last"]);
    assert_eq!(keys(to_carol.wait(2).await), ["public", "last"]);

    // Nor does anybody else see the endpoint.
    let path = format!("/v1/webhook-endpoints/{alices}");
    let missing = |reply: Reply| reply.refused(404, "endpoint_not_found");
    missing(house.get(&house.bob, &path).await);
    missing(house.get(&house.bob, &format!("{path}/deliveries")).await);
    for action in ["rotate", "test", "enable"] {
        missing(house.post(&house.bob, &format!("{path}/{action}"), json!({})).await);
    }
    missing(house.call(&house.bob, "PATCH", &path, json!({"types": ["turn."]})).await);
    missing(house.call(&house.bob, "DELETE", &path, Value::Null).await);
    let own = house.get(&house.bob, "/v1/webhook-endpoints").await.ok(200);
    assert_eq!((own["data"].as_array().unwrap().len(), &own["data"][0]["owner"]), (1, &json!("bob")));
    assert_eq!(house.get(&house.root, "/v1/webhook-endpoints").await.ok(200)["data"].as_array().unwrap().len(), 4);
    let blind = token(&house.server, "alice", "write");
    let body = json!({"url": to_alice.url(), "types": ["turn."]});
    house.post(&blind, "/v1/webhook-endpoints", body).await.refused(403, "missing_scope");

    // An endpoint of an admin sees everything only while there is an admin behind it.
    let root = crate::people::token_id(&house, &house.root).await;
    crate::people::greenroom(&house.server, &["token", "revoke", &root]);
    eventually("the revocation", || async { (house.get(&house.root, "/v1/me").await.status == 401).then_some(()) })
        .await;
    run(house.alice.clone(), "secret", json!({})).await;
    run(house.alice.clone(), "open", json!({"visibility": "public"})).await;
    assert_eq!(keys(to_root.wait(5).await)[4..], ["open"]);
}
