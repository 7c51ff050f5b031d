//! One stream over all sessions: opaque cursors that stay right over reconnects, restarts, deletes, on every transport.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::gateway::{Reply, Socket, Sse, SseEvent, TestGateway, eventually, play, str_of, text};

/// The events of the feed with their cursors, and the last cursor that came, until `done`.
async fn read(stream: &mut Sse, done: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    loop {
        match stream.next().await {
            SseEvent::Event { id: Some(id), event, data } => {
                let value: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(value["type"], event);
                seen.push((id, value));
                if done(&seen.last().unwrap().1) {
                    return seen;
                }
            }
            SseEvent::Event { id: None, data, .. } => {
                let value: Value = serde_json::from_str(&data).unwrap();
                assert!(value.get("seq").is_none(), "{value}");
                if done(&value) {
                    return seen;
                }
            }
            SseEvent::Id(_) | SseEvent::Comment(_) => {}
            SseEvent::Closed => panic!("the stream ended after {seen:#?}"),
        }
    }
}

fn finished(summary: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["type"] == "turn.finished" && event["data"]["summary"] == summary
}

/// Each session's events are its log: nothing is missing, doubled or out of order.
#[track_caller]
fn whole(events: &[(String, Value)]) -> BTreeMap<String, u64> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for (_, event) in events {
        let (session, seq) = (str_of(event, "session").to_owned(), event["seq"].as_u64().unwrap());
        let before = last.insert(session, seq).unwrap_or(0);
        assert_eq!(seq, before + 1, "{event}");
    }
    last
}

async fn open(server: &TestGateway, query: &str) -> Sse {
    Sse::open(server, &format!("/v1/events{query}")).await
}

async fn page(server: &TestGateway, query: &str) -> Reply {
    let request = server.request("GET", &format!("/v1/events?{query}")).header("accept", "application/json");
    server.send(request).await
}

#[tokio::test]
async fn it_shows_all_sessions_and_goes_on_from_any_cursor() {
    let server = TestGateway::start();
    let mut live = open(&server, "").await;
    assert_eq!(live.json().await.unwrap()["type"], "stream.hello");
    server.run("a", text("one")).await;
    server.run("b", text("two")).await;
    server.run("a", text("three")).await;
    let live = read(&mut live, finished("three")).await;
    // The primary session is made while the server begins to serve: before this stream or after.
    let ours = |events: &[(String, Value)]| -> Vec<Value> {
        events.iter().map(|(_, event)| event.clone()).filter(|event| event["session"] != "main").collect()
    };
    let all = read(&mut open(&server, "?after=0").await, finished("three")).await;
    whole(&all);
    assert_eq!(ours(&live), ours(&all));
    for (place, (cursor, _)) in all.iter().enumerate().take(all.len() - 1) {
        let rest = read(&mut open(&server, &format!("?after={cursor}")).await, finished("three")).await;
        assert_eq!(rest, all[place + 1..], "after {place}");
    }
    // The bytes are those of the session's own log.
    let own: Vec<Value> = server.events("a").await;
    let of_a: Vec<Value> = all.iter().map(|(_, e)| e.clone()).filter(|event| event["session"] == "a").collect();
    assert_eq!(of_a, own);
    server.assert_quiet();
}

#[tokio::test]
async fn cursors_survive_kills_while_sessions_write() {
    let mut server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")]);
    let mut seen: Vec<(String, Value)> = Vec::new();
    let mut cursor = "0".to_owned();
    for life in 0..4 {
        for session in ["a", "b", "c"] {
            server.message(session, play(json!({"deltas": 200, "bytes": 10, "delay_ms": 1}))).await;
        }
        // Cut in the middle, several times a life, each time in another place of some batch.
        for cut in 1..4u64 {
            let mut stream = open(&server, &format!("?after={cursor}")).await;
            let wanted = seen.len() + usize::try_from(cut * 37 + life).unwrap();
            while seen.len() < wanted {
                if let SseEvent::Event { id: Some(id), data, .. } = stream.next().await {
                    cursor.clone_from(&id);
                    seen.push((id, serde_json::from_str(&data).unwrap()));
                }
            }
        }
        server.kill9();
        server.restart();
    }
    server.run("last", text("the last")).await;
    for session in ["a", "b", "c"] {
        let idle = async || (server.snapshot(session).await["busy"] == false).then_some(());
        eventually("the session is idle", idle).await;
    }
    server.run("last", text("the very last")).await;
    let mut stream = open(&server, &format!("?after={cursor}")).await;
    seen.extend(read(&mut stream, finished("the very last")).await);
    let last = whole(&seen);
    for session in ["a", "b", "c", "last", "main"] {
        assert_eq!(last[session], server.snapshot(session).await["last_seq"].as_u64().unwrap(), "{session}");
    }
}

#[tokio::test]
async fn a_deleted_session_is_seen_live_and_named_as_a_gap_later() {
    let server = TestGateway::start();
    let mut live = open(&server, "").await;
    live.until_type("stream.hello").await;
    server.run("k", text("before")).await;
    let before = read(&mut live, finished("before")).await;
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    server.run("k", text("again")).await;
    let again = read(&mut live, finished("again")).await;
    let both: Vec<_> = before.iter().chain(&again).cloned().collect();
    assert_eq!(whole(&both)["k"], server.snapshot("k").await["last_seq"].as_u64().unwrap());

    // Who comes back from the middle of what is gone is told, and goes on after it.
    let deleted = again.iter().find(|(_, event)| event["type"] == "session.deleted").unwrap().1["seq"].clone();
    for cursor in ["0", before[0].0.as_str()] {
        let mut stream = open(&server, &format!("?after={cursor}")).await;
        let mut gap = None;
        let mut first = None;
        while first.is_none() {
            match stream.next().await {
                SseEvent::Event { id: None, event, data } if event == "stream.gap" => {
                    gap = Some(serde_json::from_str::<Value>(&data).unwrap());
                }
                SseEvent::Event { id: Some(_), data, .. } => {
                    let event: Value = serde_json::from_str(&data).unwrap();
                    first = (event["session"] == "k").then_some(event);
                }
                _ => {}
            }
        }
        let gap = gap.unwrap_or_else(|| panic!("no gap after {cursor}"));
        assert_eq!((&gap["session"], &gap["data"]["reason"]), (&json!("k"), &json!("session_deleted")));
        assert_eq!(gap["data"]["to"].as_u64().unwrap() + 1, deleted.as_u64().unwrap());
        assert_eq!(first.unwrap()["seq"], deleted);
    }
    // Who has seen all of it before is told of no gap.
    let mut stream = open(&server, &format!("?after={}", before.last().unwrap().0)).await;
    let rest = read(&mut stream, |event| {
        assert_ne!(event["type"], "stream.gap");
        finished("again")(event)
    });
    assert_eq!(rest.await, again);
    // The session's own log begins with its end.
    assert_eq!(server.events("k").await[0]["type"], "session.deleted");
}

#[tokio::test]
async fn pages_go_both_ways_and_meet() {
    let server = TestGateway::start();
    for session in ["a", "b"] {
        server.run(session, text("one two three")).await;
    }
    let get = async |query: &str| page(&server, query).await.ok(200);
    let all = get("limit=1000").await;
    let events = all["data"].as_array().unwrap().clone();
    assert!(events.len() > 15 && all["has_more"] == false, "{all}");
    let (mut up, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = get(&format!("limit=3&after={after}")).await;
        up.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        after = str_of(&page, "last_id").to_owned();
    }
    assert_eq!(up, events);
    let (mut down, mut before) = (vec![events.last().unwrap().clone()], str_of(&all, "last_id").to_owned());
    loop {
        let page = get(&format!("limit=4&before={before}")).await;
        down = [page["data"].as_array().unwrap().clone(), down].concat();
        if page["has_more"] == false {
            break;
        }
        before = str_of(&page, "first_id").to_owned();
    }
    assert_eq!(down, events);
    let only = get("types=turn.finished").await;
    assert_eq!(only["data"].as_array().unwrap().len(), 2);
    let empty = get(&format!("after={}", str_of(&all, "last_id"))).await;
    assert_eq!((&empty["data"], &empty["last_id"], &empty["has_more"]), (&json!([]), &json!(null), &json!(false)));

    // A page's cursor is one of the stream too.
    let stream = &mut open(&server, &format!("?after={after}&types=turn.finished")).await;
    server.run("c", text("the end")).await;
    assert!(!read(stream, finished("the end")).await.is_empty());
    for bad in ["after=17", "before=x", "after=AQ"] {
        page(&server, bad).await.refused(400, "invalid_cursor");
        let header = server.request("GET", &format!("/v1/events?{bad}")).header("accept", "text/event-stream");
        assert_eq!(header.send().await.unwrap().status(), if bad.starts_with("after") { 400 } else { 200 });
    }
    page(&server, "after=0&before=0").await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn a_cursor_of_another_database_is_a_gap_and_then_all() {
    let (one, other) = (TestGateway::start(), TestGateway::start());
    one.run("a", text("x")).await;
    other.run("b", text("y")).await;
    let all = page(&one, "limit=1000").await.ok(200);
    let cursor = str_of(&all, "last_id");
    let mut stream = open(&other, &format!("?after={cursor}")).await;
    let gap = stream.until_type("stream.gap").await;
    assert_eq!((&gap["session"], &gap["data"]["reason"]), (&json!(null), &json!("unknown_cursor")));
    whole(&read(&mut stream, finished("y")).await);
    page(&other, &format!("after={cursor}")).await.refused(400, "invalid_cursor");
}

#[tokio::test]
async fn a_socket_subscribes_to_all_and_comes_back_with_its_cursor() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    assert_eq!(socket.ok(json!({"op": "subscribe", "session": "*", "after": 0})).await, json!({"session": "*"}));
    server.run("a", text("one")).await;
    server.run("b", text("two")).await;
    let mut seen = socket.until(finished("two")).await;
    assert!(seen.iter().all(|event| event["cursor"].is_string()), "{seen:#?}");
    assert_eq!(socket.ok(json!({"op": "unsubscribe", "session": "*"})).await["subscribed"], true);
    server.run("c", text("three")).await;
    // Cut in the middle: back with the cursor of the event that was seen last.
    seen.truncate(seen.len() - 2);
    let cursor = seen.last().unwrap()["cursor"].clone();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket.ok(json!({"op": "subscribe", "session": "*", "after": cursor})).await;
    seen.extend(socket.until(finished("three")).await);
    let pairs: Vec<_> = seen.iter().map(|event| (str_of(event, "cursor").to_owned(), event.clone())).collect();
    let last = whole(&pairs);
    assert_eq!(last["c"], server.snapshot("c").await["last_seq"].as_u64().unwrap());
    socket.refused(json!({"op": "subscribe", "session": "*", "after": "nonsense"}), "invalid_cursor").await;
    socket.refused(json!({"op": "snapshot", "session": "*"}), "invalid_id").await;
    // The same cursors on the other transport.
    let by_sse = read(&mut open(&server, &format!("?after={}", pairs[2].0)).await, finished("three")).await;
    assert_eq!(by_sse.len(), pairs.len() - 3);
}

#[tokio::test]
async fn the_stream_ends_in_order_when_the_server_stops() {
    let mut server = TestGateway::start();
    let mut stream = open(&server, "?after=0").await;
    stream.until_type("stream.hello").await;
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut last = Value::Null;
    loop {
        match stream.next().await {
            SseEvent::Event { data, .. } => last = serde_json::from_str(&data).unwrap(),
            SseEvent::Closed => break,
            _ => {}
        }
    }
    assert_eq!((&last["type"], &last["data"]["reason"]), (&json!("stream.end"), &json!("shutting_down")));
    assert!(server.exit().await.success());
}
