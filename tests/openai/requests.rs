//! What is sent: the conversation, files, model, key and options.

use std::sync::Arc;

use greenroom::{
    agents::{Agent as _, AgentCommand, Prompt},
    protocol::{Part, Role, ToolStatus},
};
use serde_json::{Value, json};

use crate::{
    Session, agent_at, file, message,
    mock_llm::{MockLlm, Reply},
    prompt, says, text_message,
};

fn last_body(mock: &MockLlm) -> Value {
    mock.generations().last().unwrap().body.clone()
}

#[tokio::test]
async fn the_conversation_goes_along_without_tools_and_reasoning() {
    let mock = MockLlm::start();
    let call = Part::ToolCall {
        call_id: "c1".into(),
        name: "bash".into(),
        title: None,
        kind: None,
        input: json!({"command": "ls"}),
        output: json!("secret.txt"),
        is_error: false,
        status: ToolStatus::Completed,
    };
    let text = |text: &str| Part::Text { text: text.into() };
    let history = vec![
        text_message(Role::System, "Be kind."),
        text_message(Role::User, "one"),
        message(Role::Assistant, vec![Part::Reasoning { text: "hmm".into() }, text("tw"), call.clone(), text("o")]),
        message(Role::Tool, vec![text("secret.txt")]),
        message(Role::Assistant, vec![call]),
        text_message(Role::System, "handed over"),
        text_message(Role::User, "failed before"),
    ];
    let agent = agent_at(&mock.v1(), json!({"system": "Be brief."}));
    let mut session = Session::open(&agent, Ok(history)).await;
    session.ask("three").await.completed();
    let body = last_body(&mock);
    // A tool has its say only where somebody else's transcript gives it one.
    let user = "[Result of the tool: secret.txt]\n\n[Note from the system: handed over]\n\nfailed before\n\nthree";
    let expected = json!([
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": user},
    ]);
    assert_eq!(body["messages"], expected, "user and assistant alternate, as the templates of many models demand");
    assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &json!({"include_usage": true})));
}

#[tokio::test]
async fn files_go_as_images_or_text_or_are_named() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let attachments = vec![
        file("cat.png", "image/png", "iVBORw0="),
        file("a \"b\".md", "text/markdown; charset=utf-8", "IyBIaQo="),
        file("data.bin", "application/octet-stream", "/wD/"),
        file("talk.mp3", "audio/mpeg", "AAAA"),
        file("x.svg", "image/svg+xml", "PHN2Zy8+"),
    ];
    let turn = session.turn(Prompt { attachments: Arc::new(attachments), ..prompt("look") }).await;
    let left_out = turn.completed().faults();
    assert_eq!(left_out.len(), 2);
    says(left_out.first().unwrap(), &["data.bin", "not UTF-8"]);
    says(left_out.get(1).unwrap(), &["talk.mp3", "audio/mpeg"]);
    let expected = json!([
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
        {"type": "text", "text": "<file name=\"a  b .md\">\n# Hi\n</file>"},
        {"type": "text", "text": "<file name=\"x.svg\">\n<svg/>\n</file>"},
    ]);
    assert_eq!(last_body(&mock)["messages"][0]["content"], expected);
}

#[tokio::test]
async fn earlier_files_stay_in_the_conversation() {
    let mock = MockLlm::start();
    let earlier = |name: &str, content: Option<&str>| Part::File {
        name: name.into(),
        media_type: "image/png".into(),
        bytes: 5,
        content_base64: content.map(str::to_owned),
    };
    let parts =
        vec![Part::Text { text: "a cat".into() }, earlier("cat.png", Some("iVBORw0=")), earlier("dog.png", None)];
    let history = vec![message(Role::User, parts), text_message(Role::Assistant, "Nice.")];
    let mut session = Session::open(&agent_at(&mock.v1(), json!({})), Ok(history)).await;
    session.ask("what colour?").await.completed();
    let expected = json!([
        {"type": "text", "text": "a cat"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
        {"type": "text", "text": "[The file dog.png came with this message.]"},
    ]);
    assert_eq!(last_body(&mock)["messages"][0]["content"], expected);
}

#[tokio::test]
async fn a_message_of_which_nothing_is_left_is_not_sent() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let attachments = Arc::new(vec![file("talk.mp3", "audio/mpeg", "AAAA")]);
    let turn = session.turn(Prompt { attachments, ..prompt("") }).await;
    assert_eq!((turn.error().0, turn.faults().len()), ("invalid_attachment", 1));
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn the_nearest_wish_for_a_model_wins() {
    let mock = MockLlm::start();
    mock.set_models(Reply::models(&[json!({"id": "listed-first"}), json!({"id": "second"})]));
    let unset = agent_at(&mock.v1(), json!({"model": null}));
    let mut session = Session::open(&unset, Ok(Vec::new())).await;
    session.ask("hi").await.completed();
    assert_eq!(last_body(&mock)["model"], "listed-first");
    session.tell(AgentCommand::SetModel("chosen".into())).await;
    session.ask("hi").await.completed();
    assert_eq!(last_body(&mock)["model"], "chosen");
    session.turn(Prompt { model: Some("once".into()), ..prompt("hi") }).await.completed();
    assert_eq!(last_body(&mock)["model"], "once");
    session.ask("hi").await.completed();
    assert_eq!(last_body(&mock)["model"], "chosen");
    assert_eq!(mock.requests().len(), 5, "models are listed only when one is needed");

    mock.set_models(Reply::models(&[]));
    let mut session = Session::open(&unset, Ok(Vec::new())).await;
    says(session.ask("hi").await.error().1, &["lists no models", "model of [agents.local]"]);
}

#[tokio::test]
async fn the_key_goes_along_only_where_there_is_one() {
    let mock = MockLlm::start();
    let settings = [
        (json!({}), None),
        (json!({"api_key": " sk-a\n"}), Some("Bearer sk-a")),
        (json!({"api_key_env": "LLM_KEY", "env": {"LLM_KEY": "sk-b"}}), Some("Bearer sk-b")),
    ];
    for (settings, sent) in settings {
        let mut session = Session::open(&agent_at(&format!("{}/", mock.v1()), settings), Ok(Vec::new())).await;
        session.ask("hi").await.completed();
        let request = mock.generations().pop().unwrap();
        assert_eq!(request.headers.get("authorization").map(String::as_str), sent);
        assert_eq!(request.path, "/v1/chat/completions");
    }
}

#[tokio::test]
async fn stream_options_are_left_out_for_a_server_that_refuses_them() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({"max_retries": 0}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    mock.script([Reply::error(400, "Unrecognized request argument supplied: stream_options")]);
    session.ask("hi").await.completed();
    session.ask("hi").await.completed();
    let sent: Vec<bool> = mock.generations().iter().map(|request| request.body["stream_options"].is_object()).collect();
    assert_eq!(sent, [true, false, false], "it is remembered");
    mock.script([Reply::error(400, "stream_options, again")]);
    says(session.ask("hi").await.error().1, &["stream_options, again"]);
}

#[tokio::test]
async fn a_probe_that_meets_llama_turns_progress_on() {
    let mock = MockLlm::start();
    mock.set_models(Reply::models(&[json!({"id": "m", "owned_by": "llamacpp"})]));
    let agent = agent_at(&mock.v1(), json!({}));
    assert!(agent.probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await.available);
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    session.ask("hi").await.completed();
    assert_eq!(last_body(&mock)["return_progress"], true);
}

#[tokio::test]
async fn a_proxy_is_used_only_where_the_agent_asks_for_it() {
    let (mock, proxy) = (MockLlm::start(), MockLlm::start());
    let agent = agent_at(&mock.v1(), json!({"env": {"HTTP_PROXY": proxy.url()}}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    session.ask("hi").await.completed();
    assert_eq!((mock.requests().len(), proxy.requests().len()), (0, 1));
    let agent = agent_at(&mock.v1(), json!({"env": {"HTTP_PROXY": proxy.url(), "NO_PROXY": "127.0.0.1"}}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    session.ask("hi").await.completed();
    assert_eq!((mock.requests().len(), proxy.requests().len()), (1, 1));
}
