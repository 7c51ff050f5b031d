//! OpenAI's own clients, from npm and PyPI, the oldest and the newest that are looked at, and the example.

use serde_json::{Value, json};

use crate::{
    gateway::{TestGateway, eventually},
    run::{node, python},
};

const NODE: [&str; 2] = ["openai", "openai-4"];
const PYTHON: [&str; 2] = ["py-openai", "py-openai-1"];
const NODE_CLIENT: &str = "tests/clients/openai/client.mjs";
const PYTHON_CLIENT: &str = "tests/clients/openai/client.py";

/// Every client does the same things, one after the other.
async fn all(server: &TestGateway, key: &str, what: &[&str]) {
    for packages in NODE {
        for what in what {
            node(packages, NODE_CLIENT, &[&server.url(""), key, what]).await;
        }
    }
}

async fn all_python(server: &TestGateway, key: &str, what: &[&str]) {
    for packages in PYTHON {
        for what in what {
            python(packages, PYTHON_CLIENT, &[&server.url(""), key, what]).await;
        }
    }
}

/// The keys of all sessions but the primary one.
async fn sessions(server: &TestGateway) -> Vec<String> {
    let page = server.get("/v1/sessions?limit=100").await.ok(200);
    let keys = page["data"].as_array().unwrap().iter().map(|session| session["key"].as_str().unwrap().to_owned());
    keys.filter(|key| key != "main").collect()
}

#[tokio::test]
async fn calls_without_a_session_answer_and_leave_none() {
    let server = TestGateway::start();
    all(&server, "none", &["completions", "responses", "models"]).await;
    all_python(&server, "none", &["completions", "responses", "models"]).await;
    assert_eq!(sessions(&server).await, Vec::<String>::new());
    let feed = server.request("GET", "/v1/events?after=0&types=turn.").header("accept", "application/json");
    let feed = server.send(feed).await.ok(200);
    assert_eq!(feed["data"], json!([]), "a call that leaves no session leaves no events either");
    server.assert_quiet();
}

#[tokio::test]
async fn responses_lead_on_and_are_found_again() {
    let server = TestGateway::start();
    for packages in NODE {
        let key = node(packages, NODE_CLIENT, &[&server.url(""), "none", "going_on"]).await;
        let turns = server.get(&format!("/v1/sessions/{}/turns?order=asc", key.trim())).await.ok(200);
        let texts: Vec<_> = turns["data"].as_array().unwrap().iter().map(|turn| turn["text"].clone()).collect();
        assert_eq!(texts, ["one", "two", "three"]);
    }
    all_python(&server, "none", &["going_on"]).await;
    server.assert_quiet();
}

#[tokio::test]
async fn errors_raise_the_exceptions_that_clients_expect() {
    let server = TestGateway::with(&[("GREENROOM_SESSION__MAX_QUEUE", "1")]);
    node("openai", NODE_CLIENT, &[&server.url(""), "none", "errors"]).await;
    all_python(&server, "none", &["errors"]).await;
    server.hang("full", json!({})).await;
    server.message("full", json!({"text": "waits"})).await;
    for packages in NODE {
        node(packages, NODE_CLIENT, &[&server.url(""), "none", "limited", "full"]).await;
    }
    python("py-openai", PYTHON_CLIENT, &[&server.url(""), "none", "limited", "full"]).await;
}

#[tokio::test]
async fn a_token_is_the_key_and_a_wrong_one_is_told() {
    let server = TestGateway::start();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(["token", "create", "--user", "ann", "--scopes", "read,write", "--data-dir"]).arg(server.data_dir());
    let made = command.env_clear().env("HOME", server.data_dir()).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("gr_"), "{}", String::from_utf8_lossy(&made.stderr));
    all(&server, "sk-wrong", &["unauthorized"]).await;
    all_python(&server, "sk-wrong", &["unauthorized"]).await;
    node("openai", NODE_CLIENT, &[&server.url(""), &token, "completions"]).await;
    python("py-openai", PYTHON_CLIENT, &[&server.url(""), &token, "models"]).await;
}

/// The user message of the only turn with that text.
async fn said(server: &TestGateway, key: &str) -> Vec<(String, String)> {
    let page = server.get(&format!("/v1/sessions/{key}/messages?order=asc&limit=100")).await.ok(200);
    let text = |message: &Value| message["parts"][0]["text"].as_str().unwrap_or_default().to_owned();
    let role = |message: &Value| message["role"].as_str().unwrap().to_owned();
    page["data"].as_array().unwrap().iter().map(|message| (role(message), text(message))).collect()
}

#[tokio::test]
async fn a_session_gets_only_what_is_new() {
    let server = TestGateway::start();
    node("openai", NODE_CLIENT, &[&server.url(""), "none", "session"]).await;
    let told =
        [("system", "be kind"), ("user", "first"), ("assistant", "first"), ("user", "second"), ("assistant", "second")];
    let told: Vec<_> = told.map(|(role, text)| (role.to_owned(), text.to_owned())).into();
    assert_eq!(said(&server, "web:told").await, told);
    let turns = server.get("/v1/sessions/web:once/turns").await.ok(200);
    assert_eq!(turns["data"].as_array().unwrap().len(), 1, "the same Idempotency-Key");
    node("openai-4", NODE_CLIENT, &[&server.url(""), "none", "image"]).await;
    let turns = server.get("/v1/sessions/images/turns").await.ok(200);
    for turn in turns["data"].as_array().unwrap() {
        assert_eq!(turn["attachments"][0]["media_type"], "image/png");
    }
    server.assert_quiet();
}

#[tokio::test]
async fn many_at_once() {
    let server = TestGateway::start();
    all(&server, "none", &["many"]).await;
    python("py-openai", PYTHON_CLIENT, &[&server.url(""), "none", "many"]).await;
    server.assert_quiet();
}

/// A client that goes cancels nothing where there is a session; what nobody could ever see is stopped.
#[tokio::test]
async fn a_cut_leaves_the_turn_of_a_session_alone() {
    let server = TestGateway::start();
    node("openai", NODE_CLIENT, &[&server.url(""), "none", "cut", "web:cut"]).await;
    let turn = eventually("the end of the turn", || async {
        let turns = server.get("/v1/sessions/web:cut/turns").await.ok(200);
        let turn = turns["data"][0].clone();
        (turn["state"] == "completed").then_some(turn)
    });
    assert!(turn.await["summary"].as_str().unwrap().starts_with("000000 "));
    let texts = said(&server, "web:cut").await;
    assert!(texts.last().unwrap().1.ends_with("the end"), "{texts:?}");
}

#[tokio::test]
async fn the_example_runs() {
    let server = TestGateway::start();
    let told = python("py-openai", "examples/openai-python/chat.py", &[&server.url("")]).await;
    assert_eq!(told, "Hello there\nword by word\nthe first / the second\n");
}
