//! Permissions and questions.

use std::path::Path;

use serde_json::{Value, json};

use super::{Went, conversation::word};
use crate::{
    rig::Rig,
    subject::{Subject, Variant},
    talk::{Told, brief},
};

/// A prompt that makes the model call a shell tool that makes this file. The command is one that no agent takes for a
/// mere edit of a file.
pub fn make(file: &Path) -> String {
    format!("USE_TOOL TOOL_CMD:[mkfifo {}]", file.file_name().unwrap().to_str().unwrap())
}

/// Every call that was announced has ended, every question is settled.
#[track_caller]
pub fn assert_settled(told: &Told) {
    for (begin, end, id) in
        [("tool.started", "tool.finished", "/data/call_id"), ("choice.requested", "choice.resolved", "/data/choice/id")]
    {
        let ended: Vec<&Value> = told
            .of(end)
            .into_iter()
            .map(|event| event.pointer("/data/call_id").unwrap_or(&event["data"]["choice_id"]))
            .collect();
        for event in told.of(begin) {
            assert!(ended.contains(&event.pointer(id).unwrap()), "left open: {event}");
        }
    }
}

pub async fn tool_allowed(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let file = rig.file(&word());
    let mut talk = rig.talk(&key, make(&file)).await;
    let Some(choice) = talk.asked().await else {
        rig.give_back(key);
        return Went::Without(if file.exists() { "permissions" } else { "tools" });
    };
    assert_eq!((choice["kind"].as_str(), file.exists()), (Some("permission"), false), "done before it was allowed");
    let named = [&choice["input_summary"], &choice["title"]].map(Value::to_string);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(named.iter().any(|text| text.contains(name)), "does not say what for: {choice}");
    talk.choose(&choice, json!({"allow": true})).await.ok(202);
    let told = talk.end_with(json!({"allow": true})).await;
    told.assert_state("completed");
    assert!(file.exists(), "allowed, and not done: {}", brief(&told.events));
    assert!(told.said().contains("all done"), "{}", told.said());
    let finished = told.of("tool.finished");
    assert!(!finished.is_empty() && finished.iter().all(|event| event["data"]["is_error"] == false), "{finished:?}");
    assert_settled(&told);
    rig.give_back(key);
    Went::Well
}

pub async fn tool_rejected(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let file = rig.file(&word());
    let told = rig.talk(&key, make(&file)).await.end_with(json!({"allow": false})).await;
    told.assert_state("completed");
    assert_settled(&told);
    let asked = told.count("choice.requested");
    if asked == 0 {
        rig.give_back(key);
        return Went::Without(if file.exists() { "permissions" } else { "tools" });
    }
    assert!(!file.exists(), "done although it was rejected");
    rig.assert_usable(&key).await;
    rig.give_back(key);
    Went::Well
}

/// In a rig of its own: what is allowed always stays allowed.
pub async fn allow_always(subject: Subject) -> Went {
    let rig = Rig::own(subject);
    let key = rig.new_session().await;
    let file = rig.file(&word());
    let mut talk = rig.talk(&key, make(&file)).await;
    let Some(choice) = talk.asked().await else {
        return Went::Without(if file.exists() { "permissions" } else { "tools" });
    };
    let options = choice["options"].as_array().unwrap();
    let Some(always) = options.iter().find(|option| option["kind"] == "allow_always") else {
        talk.choose(&choice, json!({"allow": true})).await.ok(202);
        talk.end().await.assert_state("completed");
        return Went::Without("an option for always");
    };
    talk.choose(&choice, json!({"option_id": always["id"]})).await.ok(202);
    talk.end().await.assert_state("completed");
    assert!(file.exists(), "allowed, and not done");
    std::fs::remove_file(&file).unwrap();
    let told = rig.talk(&key, make(&file)).await.end().await;
    told.assert_state("completed");
    let resolved = told.of("choice.resolved");
    assert!(resolved.iter().all(|event| event["data"]["source"] == "rule"), "asked again: {resolved:#?}");
    assert!(file.exists(), "allowed always, and not done: {}", brief(&told.events));
    Went::Well
}

pub async fn question(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let (tool, input) = subject.question();
    let mut body = json!({"text": format!("USE_TOOL TOOL_NAME:{tool} TOOL_INPUT:{input}")});
    if subject.plans_to_question() {
        body["permission_mode"] = "plan".into();
    }
    let mut talk = rig.talk(&key, body).await;
    let mut choice = talk.asked().await;
    // A permission for the question itself may come first.
    while let Some(permission) = choice.take_if(|choice| choice["kind"] == "permission") {
        talk.choose(&permission, json!({"allow": true})).await.ok(202);
        choice = talk.asked().await;
    }
    let Some(choice) = choice else {
        return Went::Without("questions");
    };
    let questions = choice["questions"].as_array().unwrap();
    assert_eq!(questions[0]["question"], "Which colour?", "{choice}");
    let mut options = questions[0]["options"].as_array().unwrap().iter();
    assert!(options.any(|option| option["label"] == "Blue"), "{choice}");
    let mut answers = serde_json::Map::new();
    answers.insert(questions[0]["id"].as_str().unwrap().to_owned(), json!("Blue"));
    talk.choose(&choice, json!({"answers": answers})).await.ok(202);
    let told = talk.end().await;
    told.assert_state("completed");
    assert!(told.said().contains("all done"), "{}", told.said());
    let last = rig.mock.generations().into_iter().rfind(|request| request.body.to_string().contains("Which colour?"));
    let heard = last.unwrap().body.to_string();
    assert!(
        heard.matches("Blue").count() > heard.matches("Blue\\\",\\\"description").count(),
        "the model never heard the answer"
    );
    rig.give_back(key);
    if subject.plans_to_question() { Went::As("in plan mode") } else { Went::Well }
}
