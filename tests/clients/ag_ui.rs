//! AG-UI with the client that its makers publish: what it verifies is strict, and what it warns of is a fault here.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cuts::Network,
    gateway::{TestGateway, script, str_of},
    run::node_within,
};

/// The clients: 1.0, and the last one before it.
const CLIENTS: [&str; 2] = ["ag-ui", "ag-ui-0"];

/// What an agent of that client makes of these steps, a run each.
async fn runs(client: &str, url: &str, steps: Value) -> Vec<Value> {
    let state = json!({"mine": [1, {"x": null}]});
    let todo = json!({"url": url, "thread": "web:alice", "state": state, "steps": steps});
    let said = node_within(Duration::from_secs(300), client, "tests/clients/ag_ui.mjs", &[&todo.to_string()]).await;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(said["warnings"], json!([]), "{client}");
    let runs = said["runs"].as_array().unwrap().clone();
    for run in &runs {
        assert_eq!(run["state"], state, "{client}: the state is the client's own");
        let touched = of(run, "STATE_SNAPSHOT").len() + of(run, "STATE_DELTA").len();
        assert_eq!(touched, 0, "{client}");
    }
    runs
}

fn play(steps: Value) -> String {
    script(&steps)
}

fn of<'a>(run: &'a Value, kind: &str) -> Vec<&'a Value> {
    run["events"].as_array().unwrap().iter().filter(|event| event["type"] == kind).collect()
}

#[track_caller]
fn went_well(run: &Value) {
    assert_eq!((&run["error"], outcome(run)), (&Value::Null, json!("success")), "{run:#}");
}

fn outcome(run: &Value) -> Value {
    of(run, "RUN_FINISHED").last().map_or(Value::Null, |event| event["outcome"]["type"].clone())
}

/// Everything that the agent has said, as the client shows it.
fn said(run: &Value, role: &str) -> String {
    let messages = run["messages"].as_array().unwrap().iter().filter(|message| message["role"] == role);
    messages.filter_map(|message| message["content"].as_str()).collect()
}

/// The same as the session has it, over all its turns.
async fn as_stored(server: &TestGateway, kind: &str) -> String {
    let page = server.get("/v1/sessions/web:alice/messages?order=asc&limit=100").await.ok(200);
    let messages = page["data"].as_array().unwrap().iter().filter(|message| message["role"] == "assistant");
    let parts = messages.flat_map(|message| message["parts"].as_array().unwrap()).filter(|part| part["type"] == kind);
    parts.map(|part| str_of(part, "text")).collect()
}

async fn turns(server: &TestGateway) -> Vec<Value> {
    let page = server.get("/v1/sessions/web:alice/turns?order=asc&limit=100").await.ok(200);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn turns_of_one_thread_are_read_as_they_were_said() {
    for client in CLIENTS {
        let server = TestGateway::start();
        let tool =
            json!({"name": "bash", "input": {"command": "ls"}, "output": {"files": ["a", "b"]}, "is_error": true});
        let image = json!({"type": "image", "source": {"type": "data", "value": "aGVsbG8=", "mimeType": "image/png"}});
        let file = [json!({"type": "text", "text": "see"}), image];
        let steps = json!([
            {"say": "héllo \"you\"\nthere", "id": "user-1"},
            {"say": play(json!({"reasoning": 3, "tool": tool, "deltas": 20, "bytes": 30}))},
            {"say": file, "tools": [{"name": "paint", "description": "x", "parameters": {}}]},
        ]);
        let runs = runs(client, &server.url("/v1/ag-ui"), steps).await;
        runs.iter().for_each(went_well);
        assert_eq!(said(&runs[0], "assistant"), "héllo \"you\"\nthere");
        assert_eq!(said(&runs[2], "assistant"), as_stored(&server, "text").await);
        assert_eq!(said(&runs[2], "reasoning"), as_stored(&server, "reasoning").await);

        let call =
            runs[1]["messages"].as_array().unwrap().iter().find(|message| message["toolCalls"].is_array()).unwrap();
        let function = &call["toolCalls"][0]["function"];
        assert_eq!(function["name"], "bash");
        assert_eq!(serde_json::from_str::<Value>(str_of(function, "arguments")).unwrap(), json!({"command": "ls"}));
        let result = of(&runs[1], "TOOL_CALL_RESULT")[0];
        assert_eq!(serde_json::from_str::<Value>(str_of(result, "content")).unwrap(), json!({"files": ["a", "b"]}));
        assert_eq!(result["metadata"]["isError"], true);
        assert_eq!(of(&runs[1], "RUN_FINISHED")[0]["usage"][0]["outputTokens"], json!(23));

        let custom = of(&runs[2], "CUSTOM")[0];
        assert_eq!((&custom["name"], &custom["value"]["tools"]), (&json!("greenroom.unsupported"), &json!(["paint"])));
        let turns = turns(&server).await;
        assert_eq!(turns.len(), 3, "only what is new is sent");
        assert_eq!((&turns[0]["client_id"], &turns[0]["source"]), (&json!("user-1"), &json!("ag-ui")));
        assert_eq!(turns[2]["attachments"][0]["media_type"], "image/png");
    }
}

#[tokio::test]
async fn a_run_that_fails_says_why() {
    for client in CLIENTS {
        let server = TestGateway::start();
        let steps = json!([
            {"say": play(json!({"deltas": 2, "bytes": 10, "fail": "no luck"}))},
            {"say": "x", "props": {"agent": "nobody"}},
            {"say": "x", "props": {"permission_mode": "sometimes"}},
            {"say": "hello"},
        ]);
        let runs = runs(client, &server.url("/v1/ag-ui"), steps).await;
        let error = of(&runs[0], "RUN_ERROR")[0];
        assert_eq!(error["code"], "agent_error");
        assert!(str_of(error, "message").contains("no luck"), "{error}");
        assert_eq!(runs[1]["error"]["status"], 400);
        assert_eq!(runs[1]["error"]["payload"]["error"]["code"], "unknown_agent");
        assert_eq!(runs[2]["error"]["payload"]["error"]["code"], "invalid_permission_mode");
        went_well(&runs[3]);
        assert_eq!(turns(&server).await.len(), 2, "what was refused was not sent");
    }
}

#[tokio::test]
async fn a_question_interrupts_and_its_answer_goes_on_with_the_turn() {
    for client in CLIENTS {
        let server = TestGateway::start();
        let asks = |kind: &str| play(json!({"reasoning": 1, "ask": kind, "deltas": 5, "bytes": 10, "text": "end"}));
        let steps = json!([
            {"say": asks("permission")}, {"payload": {"allow": true}},
            {"say": asks("permission")}, {"status": "cancelled"},
            {"say": asks("question")}, {"payload": {"answers": {"answer": "this"}}},
            {"say": asks("question")}, {"status": "cancelled"},
        ]);
        let runs = runs(client, &server.url("/v1/ag-ui"), steps).await;
        let outcomes = ["permission: allow ", "permission: reject ", "answers: {\"answer\":\"this\"} ", "cancelled "];
        for (pair, outcome_said) in runs.chunks(2).zip(outcomes) {
            assert_eq!((&pair[0]["error"], outcome(&pair[0])), (&Value::Null, json!("interrupt")));
            let interrupt = &of(&pair[0], "RUN_FINISHED")[0]["outcome"]["interrupts"][0];
            assert_eq!(interrupt["id"], interrupt["metadata"]["choice"]["id"]);
            assert!(interrupt["responseSchema"]["properties"].is_object() && interrupt["expiresAt"].is_string());
            went_well(&pair[1]);
            let rest: String =
                of(&pair[1], "TEXT_MESSAGE_CONTENT").iter().map(|event| str_of(event, "delta")).collect();
            assert!(rest.starts_with(outcome_said) && rest.ends_with("end"), "{rest:?}");
            assert_eq!(of(&pair[1], "REASONING_MESSAGE_CONTENT").len(), 0, "the rest, and nothing from before");
        }
        let last = runs.last().unwrap();
        assert_eq!(said(last, "assistant"), as_stored(&server, "text").await);
        assert_eq!(said(last, "reasoning"), as_stored(&server, "reasoning").await);
        assert_eq!(turns(&server).await.len(), 4);
        let choices = server.get("/v1/sessions/web:alice/choices").await.ok(200);
        assert_eq!(choices["data"], json!([]), "none waits");
    }
}

#[tokio::test]
async fn over_a_network_that_breaks_a_thread_is_told_whole() {
    for client in CLIENTS {
        let server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0ms")]);
        let network = Network::that_cuts(server.address(), 60, 1..60_000).await;
        let tool = json!({"name": "bash", "input": {"command": "ls"}, "output": "a b"});
        let long =
            json!({"reasoning": 30, "tool": tool, "ask": "permission", "deltas": 600, "bytes": 30, "delay_ms": 1});
        let again = |step: Value| {
            let mut step = step;
            step["again"] = true.into();
            step
        };
        let mut steps = Vec::new();
        for _ in 0..3 {
            steps.push(again(json!({"say": play(long.clone())})));
            steps.push(again(json!({"payload": {"allow": true}})));
        }
        let runs = runs(client, &network.url("/v1/ag-ui"), Value::Array(steps)).await;
        for pair in runs.chunks(2) {
            assert_eq!(outcome(&pair[0]), "interrupt", "{:#}", pair[0]["error"]);
            went_well(&pair[1]);
        }
        assert_eq!(network.left(), 0, "it was cut as often as it should");
        assert!(
            runs.iter().map(|run| run["lost"].as_u64().unwrap()).sum::<u64>() >= 50,
            "runs were lost in the middle"
        );
        let last = runs.last().unwrap();
        assert_eq!(said(last, "assistant"), as_stored(&server, "text").await);
        assert_eq!(said(last, "reasoning"), as_stored(&server, "reasoning").await);
        let calls = last["messages"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|message| message["toolCalls"][0]["function"]["arguments"].as_str());
        assert_eq!(calls.collect::<Vec<_>>(), ["{\"command\":\"ls\"}"; 3]);
        assert_eq!(said(last, "tool"), "a ba ba b");
        assert_eq!(turns(&server).await.len(), 3, "nothing was sent twice, and nothing was cancelled");
    }
}

fn body(run: &str, text: &str) -> Value {
    let message = json!({"id": "u", "role": "user", "content": text});
    json!({"threadId": "web:alice", "runId": run, "messages": [message]})
}

fn resume(run: &str, interrupt: &Value, payload: Value) -> Value {
    let answer = json!({"interruptId": interrupt, "status": "resolved", "payload": payload});
    json!({"threadId": "web:alice", "runId": run, "messages": [], "resume": [answer]})
}

/// The events of a run, as they are on the wire.
async fn told(server: &TestGateway, body: Value) -> Vec<Value> {
    let reply = server.post("/v1/ag-ui", body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"), "{}", reply.text);
    let lines = reply.text.split("\n\n").filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_run_that_is_asked_for_again_is_the_same_run() {
    let server = TestGateway::start();
    let asks = play(json!({"reasoning": 1, "ask": "permission", "deltas": 3, "bytes": 10}));
    let first = told(&server, body("one", &asks)).await;
    let interrupt = &first.last().unwrap()["outcome"]["interrupts"][0]["id"];
    assert_eq!(told(&server, body("one", &asks)).await, first, "while the agent waits");

    let rest = told(&server, resume("two", interrupt, json!({"allow": true}))).await;
    assert_eq!(rest.last().unwrap()["outcome"]["type"], "success");
    // Settled already: nothing is answered again, and what came of it is told again.
    for payload in [json!({"allow": true}), json!({"allow": false})] {
        assert_eq!(told(&server, resume("two", interrupt, payload)).await, rest);
    }
    assert_eq!(told(&server, body("one", &asks)).await, first, "when all is over");
    assert_eq!(turns(&server).await.len(), 1);

    // Another message under the name of a run is none that was sent.
    server.post("/v1/ag-ui", body("one", "other")).await.refused(409, "idempotency_key_reused");
    let mut lost = body("three", &asks);
    lost["messages"].as_array_mut().unwrap().push(json!({"id": "a", "role": "assistant", "content": "x"}));
    let message = lost["messages"][0].clone();
    lost["messages"][0]["id"] = "v".into();
    server.post("/v1/ag-ui", lost.clone()).await.refused(400, "missing_text");
    // A client that forgot the name of its run finds the turn by its message, and what was asked in it is settled.
    lost["messages"][0] = message;
    let found = told(&server, lost).await;
    let inner = |told: &[Value]| told[1..told.len() - 1].to_vec();
    assert_eq!(inner(&found), [inner(&first), inner(&rest)].concat());
    assert_eq!(found.last().unwrap()["outcome"]["type"], "success");
    assert_eq!(turns(&server).await.len(), 1);
}

#[tokio::test]
async fn what_is_no_run_is_refused_before_anything_is_streamed() {
    let server = TestGateway::start();
    let with = |name: &str, value: Value| {
        let mut body = body("r", "x");
        body[name] = value;
        body
    };
    for (body, status, code) in [
        (json!({}), 400, "invalid_json"),
        (with("threadId", json!("not a key")), 400, "invalid_id"),
        (with("messages", json!([])), 400, "missing_text"),
        (body("r", "  "), 400, "missing_text"),
        (with("resume", json!([{"interruptId": "x", "status": "resolved"}])), 404, "choice_not_found"),
        (with("resume", json!([{"interruptId": "x", "status": "maybe"}])), 400, "invalid_json"),
    ] {
        server.post("/v1/ag-ui", body).await.refused(status, code);
    }
    server.get("/v1/sessions/web:alice").await.refused(404, "session_not_found");
    let first = told(&server, body("r", &play(json!({"ask": "question"})))).await;
    let interrupt = &first.last().unwrap()["outcome"]["interrupts"][0]["id"];
    server
        .post("/v1/ag-ui", resume("s", interrupt, json!({"allow": true})))
        .await
        .refused(400, "invalid_choice_payload");
    let end = told(&server, resume("s", interrupt, json!("that"))).await;
    assert_eq!(end.last().unwrap()["outcome"]["type"], "success");
}

#[tokio::test]
async fn a_server_that_stops_is_an_error_and_not_an_end() {
    let mut server = TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "100ms")]);
    let hang = play(json!({"deltas": 3, "bytes": 10, "hang": true}));
    server.post("/v1/sessions", json!({"key": "web:alice"})).await.ok(201);
    let following = server.request("POST", "/v1/ag-ui").json(&body("r", &hang));
    let following = tokio::spawn(async move { following.send().await.unwrap().text().await.unwrap() });
    server.until("web:alice", |event| event["type"] == "message.delta").await;
    assert!(server.stop().success());
    let text = following.await.unwrap();
    let last: Value = serde_json::from_str(text.trim_end().rsplit_once("data: ").unwrap().1).unwrap();
    assert_eq!(last["type"], "RUN_ERROR", "{text}");

    server.restart();
    let again = told(&server, body("r", &hang)).await;
    assert!(again.iter().any(|event| event["type"] == "TEXT_MESSAGE_CONTENT"), "{again:?}");
    assert_eq!(again.last().unwrap()["type"], "RUN_ERROR", "the turn was interrupted: {again:?}");
}
