//! Sessions: made, looked at, changed, archived; snapshot and state.

use serde_json::{Value, json};

use crate::gateway::{
    Sse, TestGateway, eventually, play, str_of, text, turn_id,
    wire::{SNAPSHOT, USAGE, has, is_id, is_log, is_time, said},
};

#[tokio::test]
async fn a_session_is_made_with_what_was_asked() {
    let server = TestGateway::start();
    let body = json!({"key": "web:alice", "title": " Plans ", "agent": "echo", "visibility": "public",
        "permission_mode": "plan", "profile": "p", "metadata": {"a": 1}});
    let reply = server.post("/v1/sessions", body).await;
    let made = reply.ok(201);
    has(&made, SNAPSHOT);
    has(&made["usage"], USAGE);
    is_id(&made["id"], "ses");
    for time in ["created_at", "updated_at", "last_active_at"] {
        is_time(&made[time]);
    }
    for (field, value) in [
        ("key", json!("web:alice")),
        ("title", json!("Plans")),
        ("owner", json!("local")),
        ("visibility", json!("public")),
        ("org_id", json!(null)),
        ("agent", json!("echo")),
        ("model", json!(null)),
        ("permission_mode", json!("plan")),
        ("profile", json!("p")),
        ("metadata", json!({"a": 1})),
        ("archived", json!(false)),
        ("archived_at", json!(null)),
        ("primary", json!(false)),
        ("message_count", json!(0)),
        ("busy", json!(false)),
        ("queue_depth", json!(0)),
        ("last_seq", json!(1)),
        ("current_turn", json!(null)),
        ("agent_status", json!("idle")),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert_eq!(server.get(reply.header("location")).await.ok(200)["id"], made["id"]);
    assert_eq!(server.snapshot("web%3Aalice").await["id"], made["id"]);
    server.post("/v1/sessions", json!({"key": "web:alice"})).await.refused(409, "session_exists");
    let generated = server.post("/v1/sessions", json!({})).await.ok(201);
    assert_eq!((&generated["title"], &generated["visibility"]), (&json!("untitled"), &json!("private")));
    assert_eq!(server.snapshot(str_of(&generated, "key")).await["id"], generated["id"]);
    server.assert_quiet();
}

#[tokio::test]
async fn a_session_is_changed() {
    let server = TestGateway::start();
    server.post("/v1/sessions", json!({"key": "k", "metadata": {"a": 1, "b": {"c": 2}}})).await.ok(201);
    let patch = |body: Value| server.patch("/v1/sessions/k", body);
    let changed =
        patch(json!({"title": "New", "metadata": {"a": null, "d": [3]}, "visibility": "public"})).await.ok(200);
    assert_eq!((&changed["title"], &changed["visibility"]), (&json!("New"), &json!("public")));
    assert_eq!(changed["metadata"], json!({"b": {"c": 2}, "d": [3]}));
    let again = patch(json!({"title": ""})).await.ok(200);
    assert_eq!(again["title"], "untitled");
    patch(json!({"permission_mode": "accept_edits", "model": "m"})).await.ok(200);
    assert_eq!(patch(json!({"model": null})).await.ok(200)["model"], json!(null));
    let before = server.snapshot("k").await["last_seq"].clone();
    assert_eq!(patch(json!({})).await.ok(200)["last_seq"], before, "nothing changed, nothing is told");
    for bad in [json!({"agent": "nobody"}), json!({"permission_mode": "yolo"}), json!({"permission_mode": "bypass"})] {
        assert_eq!(patch(bad).await.assert_envelope()["type"], "invalid_request_error");
    }
    patch(json!({"titel": "x"})).await.refused(400, "invalid_json");
    patch(json!({"title": "x".repeat(201)})).await.refused(400, "title_too_long");
    server.patch("/v1/sessions/none", json!({"title": "x"})).await.refused(404, "session_not_found");
    server.put("/v1/sessions/k/model", json!({"id": "gpt-9"})).await.refused(404, "model_not_found");
    server.put("/v1/sessions/k/mode", json!({"id": "fast"})).await.refused(404, "model_not_found");
    for path in ["/v1/sessions/k/model", "/v1/sessions/k/mode"] {
        assert_eq!(patch(json!({"model": "m", "mode": "n"})).await.ok(200)["model"], "m");
        let name = path.rsplit_once('/').unwrap().1;
        assert_eq!(server.put(path, json!({"id": null})).await.ok(200)[name], json!(null), "the agent's default again");
        server.put(path, json!({})).await.refused(400, "invalid_json");
    }
    is_log(&server.events("k").await, 1);
    server.assert_quiet();
}

#[tokio::test]
async fn a_brief_is_replaced_in_parts() {
    let server = TestGateway::start();
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let put = |body: Value| server.put("/v1/sessions/k/brief", body);
    put(json!({"goal": "ship it", "done": "much"})).await.ok(200);
    put(json!({"done": "", "open": "little"})).await.ok(200);
    let brief = server.get("/v1/sessions/k/brief").await.ok(200);
    assert_eq!(brief, json!({"goal": "ship it", "done": "", "open": "little", "clarifications": ""}));
    server.patch("/v1/sessions/k", json!({"brief": {"goal": "sleep"}})).await.ok(200);
    assert_eq!(server.get("/v1/sessions/k/brief").await.ok(200)["goal"], "sleep");
    put(json!({"gaol": "x"})).await.assert_envelope();
    put(json!({"goal": 5})).await.assert_envelope();
}

#[tokio::test]
async fn an_archived_session_takes_no_messages() {
    let server = TestGateway::start();
    server.run("k", text("hi")).await;
    let archived = server.patch("/v1/sessions/k", json!({"archived": true})).await.ok(200);
    assert_eq!(archived["archived"], true);
    is_time(&archived["archived_at"]);
    server.post("/v1/sessions/k/messages", text("more")).await.refused(409, "session_archived");
    let back = server.patch("/v1/sessions/k", json!({"archived": false})).await.ok(200);
    assert_eq!((&back["archived"], &back["archived_at"]), (&json!(false), &json!(null)));
    server.run("k", text("more")).await;
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn the_primary_session_is_there_and_stays() {
    let server = TestGateway::with(&[("GREENROOM_SESSION__PRIMARY", "front")]);
    let primary = eventually("the primary session", async || {
        let reply = server.get("/v1/sessions/front").await;
        (reply.status == 200).then(|| reply.json())
    });
    assert_eq!(primary.await["primary"], true);
    for path in ["/v1/sessions/front", "/v1/sessions/front?force=true"] {
        let refused = server.delete(path).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        refused.assert_envelope();
    }
    server.post("/v1/sessions", json!({"key": "front"})).await.refused(409, "session_exists");
    assert_eq!(server.post("/v1/sessions", json!({"key": "main"})).await.ok(201)["primary"], false);
}

#[tokio::test]
async fn what_is_not_there_is_404_everywhere() {
    let server = TestGateway::start();
    let id = "01h455vb4pex5vsknk084sn02q";
    for path in ["", "/state", "/messages", "/turns", "/choices", "/events", "/brief", "/commands"] {
        server.get(&format!("/v1/sessions/none{path}")).await.refused(404, "session_not_found");
    }
    server.get(&format!("/v1/sessions/none/turns/turn_{id}")).await.refused(404, "session_not_found");
    for action in ["reset", "reload", "abort"] {
        server.act(&format!("/v1/sessions/none/{action}")).await.refused(404, "session_not_found");
    }
    server.delete("/v1/sessions/none").await.refused(404, "session_not_found");
    server.delete("/v1/sessions/none/queue").await.refused(404, "session_not_found");
    server.run("k", text("hi")).await;
    for bad in [id, "x", "turn_", &format!("msg_{id}"), &format!("turn_{id}")] {
        server.get(&format!("/v1/sessions/k/turns/{bad}")).await.refused(404, "turn_not_found");
        server.act(&format!("/v1/sessions/k/turns/{bad}/cancel")).await.refused(404, "turn_not_found");
        server.act(&format!("/v1/sessions/k/turns/{bad}/retry")).await.refused(404, "turn_not_found");
        server.patch(&format!("/v1/sessions/k/turns/{bad}"), text("x")).await.refused(404, "turn_not_found");
        let choice = server.post(&format!("/v1/sessions/k/choices/{bad}"), json!({"allow": true})).await;
        choice.refused(404, "choice_not_found");
        assert_eq!(server.get(&format!("/v1/sessions/k/messages/{bad}")).await.status, 404);
    }
    server.get(&format!("/v1/sessions/k/messages?id=ses_{id}")).await.refused(404, "session_not_found");
    server.assert_quiet();
}

#[tokio::test]
async fn a_snapshot_shows_what_runs() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    server.message("k", text("one")).await;
    server.message("k", text("two")).await;
    let mut stream = Sse::open(&server, "/v1/sessions/k/events").await;
    stream.until_type("session.hello").await;
    let snapshot = server.snapshot("k").await;
    for (field, value) in [
        ("busy", json!(true)),
        ("queue_depth", json!(2)),
        ("live", json!(true)),
        ("subscribers", json!(1)),
        ("agent_status", json!("working")),
        ("message_count", json!(1)),
    ] {
        assert_eq!(snapshot[field], value, "{field}: {snapshot}");
    }
    let turn = &snapshot["current_turn"];
    assert_eq!((&turn["id"], &turn["state"]), (&json!(running), &json!("running")));
    assert_eq!(turn["pending_choice_id"], json!(null));
    is_time(&turn["started_at"]);
    server.act("/v1/sessions/k/abort").await.ok(200);
    let last = server.until("k", |event| event["type"] == "turn.finished" && event["data"]["summary"] == "two").await;
    let after = server.snapshot("k").await;
    assert_eq!((&after["busy"], &after["current_turn"]), (&json!(false), &json!(null)));
    assert_eq!(after["last_message_preview"], "two");
    assert_eq!(after["message_count"], 5);
    assert_eq!(after["last_seq"], last.last().unwrap()["seq"]);
    assert_eq!(after["usage"]["output_tokens"], 2);
}

#[tokio::test]
async fn the_state_and_the_stream_after_it_are_the_whole() {
    let server = TestGateway::start();
    server.run("k", text("before")).await;
    let steps = json!({"reasoning": 3, "tool": {"name": "bash", "input": {"command": "ls"}, "output": "a b"},
        "deltas": 40, "bytes": 8, "delay_ms": 5});
    let turn = turn_id(&server.message("k", play(steps)).await);
    server.message("k", text("queued")).await;
    server.until("k", |event| event["type"] == "message.delta" && event["data"]["part"] == 2).await;
    let state = server.get("/v1/sessions/k/state").await.ok(200);
    assert_eq!(state["turn"]["id"], turn);
    assert_eq!(state["queue"].as_array().unwrap().len(), 1);
    assert_eq!((&state["queue"][0]["text"], &state["queue"][0]["position"]), (&json!("queued"), &json!(0)));
    has(&state["snapshot"], SNAPSHOT);
    assert_eq!(state["snapshot"]["last_seq"], state["seq"]);
    let messages = state["messages"].as_array().unwrap();
    assert_eq!(messages[0]["parts"][0]["text"], "before");
    let partial = messages.last().unwrap();
    assert_eq!(state["partial"], json!([partial["id"]]));
    assert_eq!(partial["parts"][1]["output"], "a b");
    let sofar = partial["parts"][2]["text"].as_str().unwrap();

    let mut stream = Sse::open(&server, &format!("/v1/sessions/k/events?after={}", state["seq"])).await;
    let rest = stream.until(|event| event["type"] == "turn.finished" && event["turn_id"] == *turn).await;
    assert_eq!(rest[0]["seq"].as_u64().unwrap(), state["seq"].as_u64().unwrap() + 1);
    let whole: String = (0..40).map(|i| format!("{i:06} x")).collect();
    assert_eq!(format!("{sofar}{}", said(&rest, &turn, "text")), whole);

    let tail = server.get("/v1/sessions/k/state?messages=1").await.ok(200);
    assert!(tail["messages"].as_array().unwrap().len() <= 2, "{tail}");
    server.get("/v1/sessions/k/state?messages=x").await.refused(400, "invalid_limit");
}

#[tokio::test]
async fn reload_keeps_the_conversation() {
    let server = TestGateway::start();
    server.run("k", text("hi")).await;
    let before = server.snapshot("k").await;
    assert_eq!(server.act("/v1/sessions/k/reload").await.ok(200)["id"], before["id"]);
    server.run("k", text("again")).await;
    assert_eq!(server.snapshot("k").await["message_count"], 4);
    assert_eq!(server.get("/v1/sessions/k/commands").await.ok(200), json!({"data": []}));
}
