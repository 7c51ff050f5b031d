//! Into a running turn, and out of it.

use serde_json::json;

use super::{
    Went,
    asking::{assert_settled, make},
    conversation::{is_of_conversation, requests_with, word},
};
use crate::{
    mock_llm::Answer,
    rig::Rig,
    subject::{Subject, Variant},
};

pub async fn cancel_streaming(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let word = word();
    let mut talk = rig.talk(&key, format!("SLOW {word}")).await;
    talk.speaks().await;
    talk.cancel().await;
    let told = talk.end().await;
    told.assert_state("cancelled");
    // It has really stopped: nobody reads the model's answer any more.
    let stopped = |requests: &[crate::mock_llm::Request]| {
        let ours = requests.iter().filter(|request| is_of_conversation(subject, request));
        let mut ours = ours.filter(|request| request.body.to_string().contains(&word));
        ours.all(|request| request.answer != Answer::Running).then_some(())
    };
    rig.mock.wait_for("the end of its calls", stopped).await;
    rig.assert_usable(&key).await;
    rig.give_back(key);
    Went::Well
}

pub async fn cancel_asking(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let file = rig.file(&word());
    let mut talk = rig.talk(&key, make(&file)).await;
    let Some(choice) = talk.asked().await else {
        rig.give_back(key);
        return Went::Without(if file.exists() { "permissions" } else { "tools" });
    };
    talk.cancel().await;
    let late = talk.choose(&choice, json!({"allow": true}));
    let late = late.await.status;
    let told = talk.end().await;
    told.assert_state("cancelled");
    assert_settled(&told);
    assert!(!file.exists() && matches!(late, 404 | 409), "an answer after the cancel counted: {late}");
    rig.assert_usable(&key).await;
    rig.give_back(key);
    Went::Well
}

/// Sent while a command runs, taken at the next safe point, heard by the model.
pub async fn steer(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let word = word();
    let begun = |event: &serde_json::Value| {
        event["type"] == "choice.requested"
            || (event["type"] == "tool.updated" && event["data"]["status"] == "running")
            || event["type"] == "tool.started"
            || event["type"] == "message.delta"
    };
    let prompt = if subject.has_tools() { "USE_TOOL SLOW TOOL_CMD:[sleep 1 && touch done]" } else { "SLOW" };
    let mut talk = rig.talk(&key, prompt).await;
    talk.until("it worked", begun).await;
    let steered = json!({"text": format!("PLAIN {word}"), "policy": "steer"});
    rig.server.message(&key, steered).await;
    if !subject.has_tools() {
        talk.cancel().await;
    }
    let mut choices = Vec::new();
    choices.extend(talk.events.iter().filter(|event| event["type"] == "choice.requested").cloned());
    for event in choices {
        talk.choose(&event["data"]["choice"], json!({"allow": true})).await.ok(202);
    }
    let told = talk.end_with(json!({"allow": true})).await;
    if told.count("turn.steered") == 0 {
        // It became a turn of its own.
        rig.server.until(&key, |event| event["type"] == "turn.finished" && event["turn_id"] != told.turn).await;
        assert!(!requests_with(&rig, &word).is_empty(), "the text was lost");
        return Went::Without("steering");
    }
    told.assert_state("completed");
    assert!(!requests_with(&rig, &word).is_empty(), "the model never heard it");
    rig.give_back(key);
    Went::Well
}
