//! For operators: settings that change while the server runs, the log and its tail, the channels, readiness.

use serde_json::{Value, json};

use crate::gateway::{Socket, Sse, SseEvent, TestGateway, eventually, play, str_of, text, turn_id};

#[tokio::test]
async fn settings_are_shown_without_secrets_and_changed_until_the_restart() {
    let mut server = TestGateway::with(&[
        ("GREENROOM_AGENTS__MODEL__KIND", "openai"),
        ("GREENROOM_AGENTS__MODEL__BASE_URL", "http://127.0.0.1:1/v1"),
        ("GREENROOM_AGENTS__MODEL__API_KEY", "sk-very-secret"),
    ]);
    let reply = server.get("/v1/config").await;
    assert!(!reply.text.contains("sk-very-secret"), "{}", reply.text);
    let shown = reply.ok(200);
    assert_eq!(shown["settings"]["agents"]["model"]["api_key"], "***");
    assert_eq!((&shown["settings"]["session"]["max_queue"], &shown["overridden"]), (&json!(100), &json!({})));
    assert!(shown["mutable"].as_array().unwrap().contains(&json!("session.max_queue")));

    let body = json!({"session": {"max_queue": 1, "default_agent": "model"}, "choice": {"timeout": "1ms"}});
    let changed = server.patch("/v1/config", body).await.ok(200);
    assert_eq!(
        changed["overridden"],
        json!({"session.max_queue": 1, "session.default_agent": "model", "choice.timeout": "1ms"})
    );
    assert_eq!(changed["settings"]["session"]["max_queue"], 1);
    assert_eq!(server.get("/v1/me").await.ok(200)["limits"]["max_queue"], 1);
    // Sessions decide by it at once, those that live already too.
    assert_eq!(server.post("/v1/sessions", json!({"key": "new"})).await.ok(201)["agent"], "model");
    server.hang("main", json!({})).await;
    server.message("main", text("waits")).await;
    let full = server.post("/v1/sessions/main/messages", text("too many")).await.refused(429, "queue_full");
    assert_eq!(full["limit"], 1);
    let asked = json!({"text": "/script {\"ask\":\"permission\"}", "agent": "echo"});
    let turn = turn_id(&server.message("asks", asked).await);
    assert_eq!(server.finished("asks", &turn).await["state"], "completed", "nobody answered in a millisecond");

    for (body, code, field) in [
        (json!({"store": {"url": "sqlite:x"}}), "setting_not_mutable", "store.url"),
        (json!({"server": {"bind": "127.0.0.1:1"}}), "setting_not_mutable", "server.bind"),
        (json!({"session": {"max_que": 1}}), "invalid_json", "session.max_que"),
        (json!({"session": {"max_queue": 0}}), "invalid_json", "session.max_queue"),
        (json!({"log": {"level": "loud"}}), "invalid_json", "log.level"),
        (json!({"choice": {"timeout": "2m"}, "store": {"readers": 1}}), "setting_not_mutable", "store.readers"),
    ] {
        let refused = server.patch("/v1/config", body.clone()).await.refused(400, code);
        assert_eq!(refused["field"], field, "{body}");
    }
    assert_eq!(server.get("/v1/config").await.ok(200), changed, "a refused change changes nothing");
    let back = server.patch("/v1/config", json!({"session": {"max_queue": null}})).await.ok(200);
    assert_eq!(
        (&back["settings"]["session"]["max_queue"], &back["overridden"]["session.max_queue"]),
        (&json!(100), &json!(null))
    );
    server.kill9();
    server.restart();
    assert_eq!(server.get("/v1/config").await.ok(200), shown);
}

#[tokio::test]
async fn the_log_is_kept_and_followed_and_its_level_changes() {
    let server = TestGateway::start();
    let get =
        async |query: &str| server.get(&format!("/v1/logs{query}")).await.ok(200)["data"].as_array().unwrap().clone();
    let told = |lines: &[Value], text: &str| lines.iter().any(|line| str_of(line, "message").contains(text));
    server.get("/v1/me").await;
    assert!(!get("").await.iter().any(|line| line["level"] == "debug"));
    let mut tail = Sse::open(&server, "/v1/logs?limit=1").await;
    server.patch("/v1/config", json!({"log": {"level": "info,greenroom=debug"}})).await.ok(200);
    server.get("/v1/me").await;
    let mut last = 0;
    loop {
        let SseEvent::Event { id: Some(id), event, data } = tail.next().await else { continue };
        let line: Value = serde_json::from_str(&data).unwrap();
        assert_eq!((event.as_str(), line["id"].to_string()), ("logs.line", id));
        assert!(line["id"].as_u64().unwrap() > last);
        last = line["id"].as_u64().unwrap();
        if line["level"] == "debug" {
            break;
        }
    }
    let lines = get("?limit=1000").await;
    assert!(told(&lines, "a setting was changed"), "{lines:#?}");
    assert_eq!(get("?limit=1").await.len(), 1);
    assert!(get("?level=error").await.is_empty());
    let again = server.request("GET", "/v1/logs").header("accept", "text/event-stream").header("last-event-id", "1");
    let SseEvent::Event { id, .. } = Sse::from(again).await.next().await else { panic!("no line") };
    assert_eq!(id.as_deref(), Some("2"));
    server.get("/v1/logs?limit=1001").await.refused(400, "invalid_limit");
    server.get("/v1/logs?level=loud").await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn every_line_of_a_turn_has_its_request_and_json_is_json() {
    let server = TestGateway::with(&[("GREENROOM_LOG", "debug"), ("GREENROOM_LOG__FORMAT", "json")]);
    let request = server.request("POST", "/v1/sessions/k/messages").header("x-request-id", "mine.1");
    let turn = turn_id(&server.send(request.json(&play(json!({"fail": "no"})))).await.ok(202));
    server.finished("k", &turn).await;
    let lines = eventually("the end of the turn in the log", async || {
        let log = server.log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().any(|line| line["message"] == "a turn has ended" && line["turn"] == *turn).then_some(lines)
    })
    .await;
    assert!(lines.iter().all(|line| ["at", "level", "target", "message"].iter().all(|field| line[field].is_string())));
    assert_eq!(server.log().lines().count(), server.log().lines().filter(|line| line.starts_with('{')).count());
    let of_turn: Vec<&Value> = lines.iter().filter(|line| line["turn"] == *turn).collect();
    assert!(of_turn.len() >= 2, "{lines:#?}");
    assert!(of_turn.iter().all(|line| line["request_id"] == "mine.1"), "{of_turn:#?}");
    let ended = of_turn.iter().find(|line| line["message"] == "a turn has ended").unwrap();
    assert_eq!((&ended["level"], &ended["state"], &ended["session"]), (&json!("info"), &json!("failed"), &json!("k")));
}

#[tokio::test]
async fn channels_count_sockets_and_remember_the_last_error() {
    let server = TestGateway::start();
    let status = async || server.get("/v1/channels/status").await.ok(200)["sockets"].clone();
    assert_eq!(status().await, json!({"open": 0, "opened_total": 0, "failed_total": 0, "last_error": null}));
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket.ok(json!({"op": "ping"})).await;
    assert_eq!(status().await["open"], 1);
    for _ in 0..20 {
        socket.text("nonsense").await;
    }
    let failed = eventually("the socket is closed", async || {
        let now = status().await;
        (now["open"] == 0).then_some(now)
    })
    .await;
    assert_eq!((&failed["failed_total"], &failed["last_error"]["code"]), (&json!(1), &json!(1008)));
}

#[tokio::test]
async fn ready_says_all_that_is_in_the_way() {
    let server = TestGateway::start();
    let ready = eventually("it is ready", async || {
        let reply = server.get("/ready").await;
        (reply.status == 200).then(|| reply.ok(200))
    })
    .await;
    assert_eq!((&ready["reason"], &ready["reasons"]), (&json!(null), &json!([])));
    assert_eq!(ready["agents"]["echo"], "ok");
    server.hang("k", json!({"ignore_cancel": true})).await;
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let stopping = eventually("it stops", async || {
        let reply = server.get("/ready").await;
        (reply.status == 503).then(|| serde_json::from_str::<Value>(&reply.text).unwrap())
    })
    .await;
    assert_eq!(stopping["error"]["code"], "shutting_down");
    assert_eq!(stopping["reasons"], json!(["the server is stopping"]));
}
