//! Errors say what is wrong and which setting to look at.

use greenroom::agents::{Agent as _, openai::OpenAiAgent};
use serde_json::json;

use crate::{
    Session, agent_at,
    mock_llm::{MockLlm, Reply},
    prompt, says,
};

#[tokio::test]
async fn nothing_listens_there() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}/v1", socket.local_addr().unwrap());
    let agent = agent_at(&address, json!({"max_retries": 1}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_unavailable");
    says(turn.error().1, &[&address, "refused", "base_url of [agents.local]", "after 1 retry"]);
    says(turn.statuses().first().unwrap(), &["retry 1 of 1", "refused"]);
    let probe = agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert!(!probe.available);
    says(&probe.reason.unwrap(), &[&address, "refused", "base_url"]);
}

#[tokio::test]
async fn a_refused_key_names_the_setting_and_never_the_key() {
    let mock = MockLlm::start();
    let settings = [
        (json!({}), "no key is set"),
        (json!({"api_key": "sk-very-secret"}), "check api_key of [agents.local]"),
        (
            json!({"api_key_env": "LLM_KEY", "env": {"LLM_KEY": "sk-very-secret"}}),
            "the variable LLM_KEY, which api_key_env",
        ),
    ];
    for (settings, hint) in settings {
        let mut session = Session::open(&agent_at(&mock.v1(), settings), Ok(Vec::new())).await;
        for status in [401, 403] {
            mock.script([Reply::error(status, "Incorrect API key provided: sk-very-secret")]);
            let turn = session.ask("hi").await;
            assert_eq!(turn.error().0, "agent_unavailable");
            says(turn.error().1, &[hint, "Incorrect API key", &status.to_string()]);
            assert!(hint.starts_with("no key") || !turn.error().1.contains("very-secret"), "{}", turn.error().1);
        }
    }
}

#[tokio::test]
async fn a_key_that_is_promised_and_missing_is_told_before_anything_is_sent() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({"api_key_env": "GREENROOM_TEST_NO_SUCH_VARIABLE"}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_unavailable");
    says(turn.error().1, &["GREENROOM_TEST_NO_SUCH_VARIABLE", "is not set"]);
    assert!(!agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await.available);
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn an_unknown_model_is_named_with_those_that_there_are() {
    let mock = MockLlm::start();
    let ids: Vec<_> = (0..25).map(|i| json!({"id": format!("model-{i}")})).collect();
    mock.set_models(Reply::models(&ids));
    let mut session = Session::at(&mock).await;
    mock.script([Reply::error(404, "no such model")]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "model_not_found");
    says(turn.error().1, &["\"mock-model\"", "model-0, model-1", "model-19, …", "no such model"]);
    assert!(!turn.error().1.contains("model-20"));
}

#[tokio::test]
async fn a_path_that_is_not_the_api_is_told_apart_from_an_unknown_model() {
    let mock = MockLlm::start();
    mock.set_models(Reply::error(404, "Not Found"));
    let mut session = Session::open(&agent_at(&mock.url(), json!({})), Ok(Vec::new())).await;
    mock.script([Reply::error(404, "Not Found")]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_unavailable");
    says(turn.error().1, &["base_url of [agents.local]", &format!("as in {}", mock.v1())]);
}

#[tokio::test]
async fn a_web_page_or_foreign_json_is_not_a_completion() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    mock.script([Reply::html(200), Reply::html(400), Reply::json(200, &json!({"ok": true}))]);
    for word in ["a web page", "a web page, not JSON", "JSON that is no completion"] {
        let turn = session.ask("hi").await;
        says(turn.error().1, &[word, &mock.v1()]);
        assert!(!turn.error().1.contains('<'));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (mock, other) = (MockLlm::start(), MockLlm::start());
    let agent = agent_at(&mock.v1(), json!({"api_key": "sk-very-secret"}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let to = format!("{}/chat/completions", other.v1());
    mock.script([Reply::error(307, "").header("location", &to)]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_unavailable");
    says(turn.error().1, &[&to, "not followed"]);
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn the_servers_own_words_are_passed_on_in_every_form() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let bodies = [
        json!({"error": {"message": "too many tokens"}}),
        json!({"error": "too many tokens"}),
        json!({"message": "too many tokens"}),
        json!({"detail": [{"msg": "too many tokens"}]}),
    ];
    for body in bodies {
        mock.script([Reply::json(400, &body)]);
        let turn = session.ask("hi").await;
        assert_eq!(turn.error().0, "agent_error");
        says(turn.error().1, &["HTTP 400", "too many tokens"]);
    }
    mock.script([Reply::error(400, &"long ".repeat(10_000))]);
    assert!(session.ask("hi").await.error().1.len() < 2000);
}

#[tokio::test]
async fn a_transcript_that_cannot_be_read_fails_the_turn() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({}));
    let mut session = Session::open(&agent, Err("disk I/O error at page 17".into())).await;
    let turn = session.ask("hi").await;
    assert_eq!(turn.error(), ("agent_error", "the conversation so far could not be read"));
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn probe_lists_models_and_says_what_is_wrong() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({}));
    let probe = agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert!(probe.available && probe.reason.is_none());
    assert_eq!(probe.models, [json!({"id": "mock-model", "name": "mock-model"})]);

    mock.set_models(Reply::error(404, "Not Found"));
    let probe = agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert!(probe.available, "a model is configured, and not every server lists them");
    says(&probe.reason.unwrap(), &["does not list its models"]);

    for (reply, word) in
        [(Reply::error(401, "who?"), "no key is set"), (Reply::html(200), "answered by something else")]
    {
        mock.set_models(reply);
        let probe = agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
        assert!(!probe.available);
        says(&probe.reason.unwrap(), &[word]);
    }
}

#[test]
fn a_bad_configuration_is_refused_at_once() {
    let made = |settings: serde_json::Value| {
        let config = serde_json::from_value(settings).unwrap();
        OpenAiAgent::new("local", config, Default::default()).map(|_| ()).unwrap_err().to_string()
    };
    says(&made(json!({"kind": "openai"})), &["[agents.local] needs base_url"]);
    for base_url in ["ftp://host/v1", "localhost:8080/v1", "http://", "v1", "http://h/v1/chat/completions"] {
        says(&made(json!({"kind": "openai", "base_url": base_url})), &["base_url of [agents.local]"]);
    }
    let bad_key = made(json!({"kind": "openai", "base_url": "http://h/v1", "api_key": "sk-\nsecret"}));
    says(&bad_key, &["the key of [agents.local]"]);
    assert!(!bad_key.contains("secret"));
}

#[tokio::test]
async fn an_agent_that_fails_takes_the_next_turn() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    assert_eq!(session.ask("ERR401").await.error().0, "agent_unavailable");
    assert_eq!(session.turn(prompt("hi")).await.completed().text(), "Hello from mock");
}
