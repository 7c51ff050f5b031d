//! Lists: limits, cursors, order, filters.

use serde_json::{Value, json};

use crate::gateway::{TestGateway, play, str_of, text};

/// The ids of a list, which has the form of the contract.
#[track_caller]
fn ids(page: &Value) -> Vec<String> {
    let mut fields: Vec<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["data", "first_id", "has_more", "last_id"]);
    let ids: Vec<String> =
        page["data"].as_array().unwrap().iter().map(|entry| str_of(entry, "id").to_owned()).collect();
    assert_eq!(page["first_id"].as_str(), ids.first().map(String::as_str));
    assert_eq!(page["last_id"].as_str(), ids.last().map(String::as_str));
    ids
}

/// All pages of a list, forwards.
async fn walk(server: &TestGateway, path: &str, limit: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), String::new());
    let join = if path.contains('?') { '&' } else { '?' };
    loop {
        let page = server.get(&format!("{path}{join}limit={limit}{after}")).await.ok(200);
        let page_ids = ids(&page);
        assert!(page_ids.len() <= limit);
        all.extend(page_ids);
        if page["has_more"] == false {
            return all;
        }
        after = format!("&after={}", all.last().unwrap());
    }
}

#[tokio::test]
async fn sessions_come_in_pages_newest_first() {
    let server = TestGateway::start();
    let mut made = Vec::new();
    for key in ["a", "b", "c", "d", "e"] {
        made.push(str_of(&server.post("/v1/sessions", json!({"key": key})).await.ok(201), "id").to_owned());
    }
    // The primary session is older than all of them.
    let newest: Vec<String> = walk(&server, "/v1/sessions", 2).await;
    assert_eq!(newest[..5], made.iter().rev().cloned().collect::<Vec<_>>()[..]);
    assert_eq!(newest.len(), 6);
    let oldest = walk(&server, "/v1/sessions?order=asc", 4).await;
    assert_eq!(oldest, newest.iter().rev().cloned().collect::<Vec<_>>());
    let before = server.get(&format!("/v1/sessions?limit=2&before={}", newest[4])).await.ok(200);
    assert_eq!(ids(&before), newest[2..4]);
    assert_eq!(before["has_more"], true);
    assert_eq!(ids(&server.get("/v1/sessions?q=nothing").await.ok(200)).len(), 0);
}

#[tokio::test]
async fn turns_and_messages_come_in_pages() {
    let server = TestGateway::start();
    for number in 0..5 {
        server.run("k", text(&format!("number {number}"))).await;
    }
    let turns = walk(&server, "/v1/sessions/k/turns", 2).await;
    assert_eq!(turns.len(), 5);
    let first = server.turn("k", turns.last().unwrap()).await;
    assert_eq!(first["text"], "number 0");
    let completed = walk(&server, "/v1/sessions/k/turns?state=completed", 3).await;
    assert_eq!(completed, turns);
    assert!(walk(&server, "/v1/sessions/k/turns?state=failed", 3).await.is_empty());

    let messages = walk(&server, "/v1/sessions/k/messages", 3).await;
    assert_eq!(messages.len(), 10);
    let newest = server.get(&format!("/v1/sessions/k/messages/{}", messages[0])).await.ok(200);
    assert_eq!((&newest["role"], &newest["parts"][0]["text"]), (&json!("assistant"), &json!("number 4")));
    let around = server.get(&format!("/v1/sessions/k/messages?around={}&limit=5", messages[5])).await.ok(200);
    let around = ids(&around);
    assert!(around.len() == 5 && around.contains(&messages[5]), "{around:?}");
    assert!(around.contains(&messages[4]) && around.contains(&messages[6]), "{around:?}");
}

#[tokio::test]
async fn bad_limits_and_cursors_are_refused() {
    let server = TestGateway::start();
    server.run("k", text("hi")).await;
    let lists = ["/v1/sessions", "/v1/sessions/k/turns", "/v1/sessions/k/messages"];
    for list in lists {
        for limit in ["0", "101", "-1", "1.5", "x", "", "99999999999999999999"] {
            server.get(&format!("{list}?limit={limit}")).await.refused(400, "invalid_limit");
        }
        for cursor in
            ["after=x", "before=", "after=1", "before=turn_", "after=%00", "after=ses_zzzzzzzzzzzzzzzzzzzzzzzzzz"]
        {
            let reply = server.get(&format!("{list}?{cursor}")).await;
            assert_eq!(reply.status, 400, "{list}?{cursor}: {}", reply.text);
            reply.assert_envelope();
        }
        server.get(&format!("{list}?limit=100")).await.ok(200);
        server.get(&format!("{list}?order=up")).await.assert_envelope();
    }
    let events = async |query: &str| {
        let path = format!("/v1/sessions/k/events?{query}");
        server.send(server.request("GET", &path).header("accept", "application/json")).await
    };
    for limit in ["0", "1001", "x"] {
        events(&format!("limit={limit}")).await.refused(400, "invalid_limit");
    }
    for cursor in ["after=-1", "after=x", "before=1.5", "after=18446744073709551616"] {
        events(cursor).await.refused(400, "invalid_cursor");
    }
    server.get("/v1/sessions/k/events?after=x").await.refused(400, "invalid_cursor");
    let header = server.request("GET", "/v1/sessions/k/events").header("last-event-id", "x");
    server.send(header).await.refused(400, "invalid_cursor");
    server.assert_quiet();
}

#[tokio::test]
async fn sessions_are_filtered() {
    let server = TestGateway::with(&[("GREENROOM_AGENTS__OTHER__KIND", "echo")]);
    server.post("/v1/sessions", json!({"key": "web:alice", "title": "Holiday plans"})).await.ok(201);
    server.post("/v1/sessions", json!({"key": "web:bob", "agent": "other"})).await.ok(201);
    server.post("/v1/sessions", json!({"key": "old"})).await.ok(201);
    server.patch("/v1/sessions/old", json!({"archived": true})).await.ok(200);
    server.message("web:bob", play(json!({"hang": true}))).await;
    let keys = async |query: &str| -> Vec<String> {
        let page = server.get(&format!("/v1/sessions?{query}")).await.ok(200);
        page["data"].as_array().unwrap().iter().map(|entry| str_of(entry, "key").to_owned()).collect()
    };
    assert_eq!(keys("q=holiday").await, ["web:alice"]);
    assert_eq!(keys("q=WEB:").await, ["web:bob", "web:alice"]);
    assert_eq!(keys("agent=other").await, ["web:bob"]);
    assert_eq!(keys("busy=true").await, ["web:bob"]);
    assert_eq!(keys("archived=true").await, ["old"]);
    assert_eq!(keys("owner=local&busy=false&q=web").await, ["web:alice"]);
    assert!(keys("owner=eve").await.is_empty());
    for bad in ["archived=maybe", "busy=2"] {
        server.get(&format!("/v1/sessions?{bad}")).await.assert_envelope();
    }
}

#[tokio::test]
async fn who_walks_the_list_misses_and_doubles_nothing_while_sessions_come_and_go() {
    let server = TestGateway::start();
    let key = |n: usize| format!("stays:{n}");
    for n in 0..30 {
        server.post("/v1/sessions", json!({"key": key(n)})).await.ok(201);
        server.post("/v1/sessions", json!({"key": format!("goes:{n}")})).await.ok(201);
    }
    for order in ["desc", "asc"] {
        let done = std::sync::atomic::AtomicBool::new(false);
        // Sessions are made, deleted and reset all the time, those that the walker stands at too.
        let stir = async {
            let mut n = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let gone = format!("goes:{}", n % 30);
                server.delete(&format!("/v1/sessions/{gone}")).await;
                server.act(&format!("/v1/sessions/{}/reset", key((n * 7) % 30))).await.ok(200);
                server.post("/v1/sessions", json!({"key": gone})).await.ok(201);
                n += 1;
            }
        };
        let walk = async {
            let (mut seen, mut after) = (Vec::new(), String::new());
            loop {
                let page = server.get(&format!("/v1/sessions?q=stays:&order={order}&limit=4{after}")).await.ok(200);
                let data = page["data"].as_array().unwrap();
                seen.extend(data.iter().map(|entry| str_of(entry, "key").to_owned()));
                if page["has_more"] == false {
                    break;
                }
                after = format!("&after={}", str_of(&page, "last_id"));
            }
            // And all of them, where entries beside the cursor come and go.
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let page = server.get(&format!("/v1/sessions?order={order}&limit=5{after}")).await.ok(200);
                let keys = page["data"].as_array().unwrap().iter().map(|entry| str_of(entry, "key").to_owned());
                all.extend(keys.filter(|key| key.starts_with("stays:")));
                if page["has_more"] == false || all.len() >= 30 {
                    break;
                }
                after = format!("&after={}", str_of(&page, "last_id"));
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            (seen, all)
        };
        let ((seen, all), ()) = tokio::join!(walk, stir);
        let mut expected: Vec<String> = (0..30).map(key).collect();
        if order == "desc" {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{order}");
        assert_eq!(all, expected, "{order}");
    }
    server.assert_quiet();
}
