//! Models, modes, permission modes.

use serde_json::{Value, json};

use super::{
    Went,
    asking::make,
    conversation::{requests_with, word},
};
use crate::{
    mock_llm::Request,
    rig::Rig,
    subject::{Subject, Variant},
    talk::brief,
};

/// The model server hears of the other model in the turn that asks for it, and of the first again after it.
pub async fn model_switch(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let (id, name) = subject.other_model();
    let words = [word(), word(), word()];
    let [first, second, third] = &words;
    rig.answer(&key, format!("PLAIN {first}")).await;
    let told = rig.told(&key, json!({"text": format!("PLAIN {second}"), "model": id})).await;
    if told.finished()["state"] == "failed" {
        assert_eq!(told.finished()["error"]["code"], "model_not_found", "{:?}", told.finished());
        return Went::Without("models");
    }
    told.assert_state("completed");
    rig.answer(&key, format!("PLAIN {third}")).await;
    let models: Vec<String> = words.iter().map(|word| model(requests_with(&rig, word).first().unwrap())).collect();
    assert_eq!(models[1], name);
    assert!(models[0] != name && models[2] == models[0], "{models:?}");
    let unknown = rig.told(&key, json!({"text": "PLAIN hi", "model": "no-such-model"})).await;
    // Some let the model server judge.
    if unknown.finished()["state"] != "completed" {
        assert_eq!(unknown.finished()["error"]["code"], "model_not_found", "{:?}", unknown.finished());
    }
    rig.assert_usable(&key).await;
    rig.give_back(key);
    Went::Well
}

fn model(request: &Request) -> String {
    // Gemini has it in the path.
    let in_path = request.path.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(model, _)| model.into());
    in_path.unwrap_or_else(|| request.body["model"].as_str().unwrap().to_owned())
}

pub async fn mode_switch(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Modes);
    let key = rig.session().await;
    rig.assert_usable(&key).await;
    let mode = subject.other_mode();
    let told = rig.told(&key, json!({"text": "PLAIN hi", "mode": mode})).await;
    if told.finished()["state"] == "failed" {
        assert_eq!(told.finished()["error"]["code"], "model_not_found", "{:?}", told.finished());
        return Went::Without("modes");
    }
    told.assert_state("completed");
    let modes = |events: &[Value]| -> Vec<Value> {
        let modes = events.iter().filter(|event| event["type"] == "agent.mode");
        modes.map(|event| event["data"]["mode"].clone()).collect()
    };
    let seen = modes(&rig.server.events(&key).await);
    if seen.is_empty() {
        return Went::Without("modes");
    }
    assert_eq!(seen.last(), Some(&json!(mode)));
    // And back.
    rig.assert_usable(&key).await;
    assert_ne!(modes(&rig.server.events(&key).await).last(), Some(&json!(mode)));
    rig.give_back(key);
    Went::Well
}

/// Nothing is changed in it, whatever the model tries, unless somebody allows it.
pub async fn plan(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Modes);
    let key = rig.session().await;
    let file = rig.file(&word());
    let body = json!({"text": make(&file), "permission_mode": "plan"});
    let told = rig.talk(&key, body).await.end_with(json!({"allow": false})).await;
    assert!(!file.exists(), "it changed something: {}", brief(&told.events));
    if told.finished()["state"] == "failed" {
        assert_eq!(told.finished()["error"]["code"], "invalid_permission_mode", "{:?}", told.finished());
        return Went::Without("a plan mode");
    }
    told.assert_state("completed");
    let events = rig.server.events(&key).await;
    let planned =
        events.iter().any(|event| event["type"] == "agent.mode" && event["data"]["mode"].as_str() == Some("plan"));
    assert!(planned || told.count("choice.requested") == 0, "it asked as in any other mode");
    rig.assert_usable(&key).await;
    rig.give_back(key);
    Went::Well
}
