//! Every call is made for real: those with a body post each example of the description; every answer has the status,
//! the headers and the form that the description gives it.

use serde_json::{Value, json};

use crate::{
    contract::{Call, Contract},
    gateway::{TestGateway, play, str_of, text, turn_id},
};

/// Makes what a call needs to be there, and gives the key and the id for its path.
async fn place(server: &TestGateway, call: &Call, example: &str) -> (String, String) {
    let key = format!("{}:{}", call.id, example.replace(' ', "-"));
    let choice = async |ask: &str| {
        server.message(&key, play(json!({"ask": ask}))).await;
        let asked = server.until(&key, |event| event["type"] == "choice.requested").await;
        asked.last().unwrap()["data"]["choice"]["id"].as_str().unwrap().to_owned()
    };
    let id = match call.id.as_str() {
        "answerChoice" => choice(if example == "answers" { "question" } else { "permission" }).await,
        "editTurn" | "moveTurn" | "cancelTurn" | "clearQueue" => {
            server.hang(&key, json!({})).await;
            turn_id(&server.message(&key, text("waits")).await)
        }
        "retryTurn" => turn_id(&server.run(&key, play(json!({"fail": "no luck"}))).await),
        "getMessage" => {
            server.run(&key, text("hi")).await;
            let page = server.get(&format!("/v1/sessions/{key}/messages")).await.ok(200);
            page["first_id"].as_str().unwrap().to_owned()
        }
        "listSessionChoices" | "listChoices" => choice("question").await,
        "getSessionState" | "getSession" | "abortTurn" => server.hang(&key, json!({"tool": {"name": "x"}})).await,
        "getModel" => "echo".to_owned(),
        "getResponse" => turn_id(&server.run(&key, text("hi")).await).replace("turn_", "resp_"),
        "cancelResponse" => server.hang(&key, json!({})).await.replace("turn_", "resp_"),
        // One that is told of next to nothing, at an address that nobody resolves here.
        "getWebhookEndpoint"
        | "updateWebhookEndpoint"
        | "deleteWebhookEndpoint"
        | "rotateWebhookSecret"
        | "testWebhookEndpoint"
        | "enableWebhookEndpoint"
        | "listDeliveries" => endpoint(server).await,
        "getDelivery" | "redeliver" => {
            let id = endpoint(server).await;
            let test = server.act(&format!("/v1/webhook-endpoints/{id}/test")).await.ok(202);
            return (str_of(&test, "id").to_owned(), id);
        }
        // The first makes the session.
        "createSession" | "sendMessage" => String::new(),
        _ => turn_id(&server.run(&key, text("hi")).await),
    };
    (key, id)
}

async fn endpoint(server: &TestGateway) -> String {
    let body = json!({"url": "https://hooks.example.com/greenroom", "types": ["error"]});
    str_of(&server.post("/v1/webhook-endpoints", body).await.ok(201), "id").to_owned()
}

fn path_of(call: &Call, key: &str, id: &str) -> String {
    call.path
        .replace("{key}", key)
        .replace("{id}", id)
        .replace("{delivery}", key)
        .replace("{file}", "swagger-ui.css")
        .replace("{route}", "ci")
}

/// Calls without an example to post, and with an answer that has an end. Those that need a browser's login are refused.
fn is_plain(call: &Call) -> bool {
    call.fields["security"] != json!([{"login": []}])
        && call.fields["requestBody"]["required"] != true
        && call.fields.get("x-websocket").is_none()
}

#[tokio::test]
async fn every_example_is_taken() {
    let server = TestGateway::with(&[("GREENROOM_WEBHOOKS__CI__VERIFY", "none")]);
    let contract = Contract::of(&server).await;
    let mut posted = 0;
    for call in contract.calls() {
        let body = &call.fields["requestBody"]["content"]["application/json"];
        let Some(examples) = body["examples"].as_object() else { continue };
        for (name, example) in examples {
            let at = format!(
                "/paths/{}/{}/requestBody/content/application~1json/schema",
                call.path.replace('/', "~1"),
                call.method.to_lowercase()
            );
            contract.check(&at, &example["value"]);
            let (key, id) = place(&server, &call, name).await;
            let request = server.request(&call.method, &path_of(&call, &key, &id)).json(&example["value"]);
            let reply = server.send(request).await;
            assert!((200..300).contains(&reply.status), "{} {name}: {} {}", call.id, reply.status, reply.text);
            contract.check_reply(&call, &reply);
            posted += 1;
        }
    }
    assert!(posted > 15, "{posted} examples are not all");
    server.assert_quiet();
}

#[tokio::test]
async fn every_call_without_a_body_answers_as_described() {
    let server = TestGateway::start();
    let contract = Contract::of(&server).await;
    for call in contract.calls().into_iter().filter(is_plain) {
        let (key, id) = place(&server, &call, "plain").await;
        let request = server.request(&call.method, &path_of(&call, &key, &id)).header("accept", "application/json");
        let reply = server.send(request).await;
        assert!((200..300).contains(&reply.status), "{}: {} {}", call.id, reply.status, reply.text);
        contract.check_reply(&call, &reply);
    }
    server.assert_quiet();
}

/// What is refused is refused as described, with a code of the list.
#[tokio::test]
async fn refusals_are_as_described() {
    let server = TestGateway::with(&[("GREENROOM_SESSION__MAX_QUEUE", "1")]);
    let contract = Contract::of(&server).await;
    let turn = server.hang("busy", json!({})).await;
    server.message("busy", text("waits")).await;
    let over = turn_id(&server.run("idle", text("hi")).await);
    let big = "x".repeat(20_000);
    for (id, path, body, code) in [
        ("createSession", "/v1/sessions", json!({"key": "a b"}), "invalid_id"),
        ("createSession", "/v1/sessions", json!({"key": "busy"}), "session_exists"),
        ("createSession", "/v1/sessions", json!({"title": big}), "title_too_long"),
        ("createSession", "/v1/sessions", json!({"metadata": {"a": big}}), "metadata_too_large"),
        ("createSession", "/v1/sessions", json!({"agent": "nobody"}), "unknown_agent"),
        ("createSession", "/v1/sessions", json!({"permission_mode": "bypass"}), "invalid_permission_mode"),
        ("createSession", "/v1/sessions", json!({"nothing": 1}), "invalid_json"),
        ("updateSession", "/v1/sessions/busy", json!({"archived": true}), "session_busy"),
        ("updateSession", "/v1/sessions/none", json!({"title": "x"}), "session_not_found"),
        ("sendMessage", "/v1/sessions/k/messages", json!({}), "missing_text"),
        ("sendMessage", "/v1/sessions/busy/messages", text("too many"), "queue_full"),
        ("sendMessage", "/v1/sessions/busy/messages", json!({"text": "x", "policy": "reject"}), "session_busy"),
        ("putModel", "/v1/sessions/idle/model", json!({"id": "none"}), "model_not_found"),
        ("putBrief", "/v1/sessions/idle/brief", json!({"goal": 5}), "invalid_json"),
        ("editTurn", &format!("/v1/sessions/busy/turns/{turn}"), text("x"), "turn_not_queued"),
        ("moveTurn", &format!("/v1/sessions/busy/turns/{turn}/move"), json!({"before": "x"}), "turn_not_found"),
        ("cancelTurn", &format!("/v1/sessions/idle/turns/{over}/cancel"), json!({}), "turn_not_cancellable"),
        ("retryTurn", &format!("/v1/sessions/idle/turns/{over}/retry"), json!({}), "turn_not_retryable"),
        ("answerChoice", "/v1/sessions/idle/choices/x", json!({"allow": true}), "choice_not_found"),
        (
            "answerChoice",
            "/v1/sessions/idle/choices/choice_01kaknfh2vf9jbnz6qpv0g3x8c",
            json!({"allow": 1}),
            "invalid_choice_payload",
        ),
    ] {
        let call = contract.call(id);
        let reply = server.send(server.request(&call.method, path).json(&body)).await;
        assert_eq!(reply.json()["error"]["code"], code, "{id}: {}", reply.text);
        contract.check_reply(&call, &reply);
    }
    for (id, path, code) in [
        ("listSessions", "/v1/sessions?limit=0", "invalid_limit"),
        ("listSessions", "/v1/sessions?after=x", "invalid_cursor"),
        ("listSessions", "/v1/sessions?busy=maybe", "invalid_parameter"),
        ("getSession", "/v1/sessions/a%20b", "invalid_id"),
        ("listTokens", "/v1/me/tokens", "missing_credentials"),
        ("getDocsFile", "/docs/none", "route_not_found"),
        ("listEvents", "/v1/sessions/idle/events?raw=maybe", "invalid_parameter"),
        ("openSocket", "/v1/ws", "invalid_parameter"),
        ("deleteSession", "/v1/sessions/main", "primary_session"),
    ] {
        let call = contract.call(id);
        let reply = server.send(server.request(&call.method, path).header("accept", "application/json")).await;
        assert_eq!(reply.json()["error"]["code"], code, "{id}: {}", reply.text);
        contract.check_reply(&call, &reply);
    }
    let foreign = server.send(server.request("GET", "/v1/me").header("origin", "http://evil.example")).await;
    contract.check_reply(&contract.call("getMe"), &foreign);
    assert_eq!(foreign.status, 403);
    let _: Value = foreign.json();
}
