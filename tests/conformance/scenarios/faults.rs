//! What a model server does to an agent: the turn fails with a reason, in time, and the next one works.

use super::Went;
use crate::{
    rig::Rig,
    subject::{Subject, Variant},
    talk::brief,
};

pub async fn error_401(subject: Subject) -> Went {
    failed(subject, "ERR401", |message| message.contains("credentials") || message.contains("key")).await
}

pub async fn error_429(subject: Subject) -> Went {
    failed(subject, "ERR429", |message| !message.is_empty()).await
}

pub async fn error_500(subject: Subject) -> Went {
    failed(subject, "ERR500", |message| !message.is_empty()).await
}

/// An agent that tries again and again without a word is stopped by the limit of silence.
async fn failed(subject: Subject, prompt: &str, says: impl Fn(&str) -> bool) -> Went {
    let rig = Rig::shared(subject, Variant::Impatient);
    let key = rig.session().await;
    rig.assert_usable(&key).await;
    let told = rig.told(&key, prompt).await;
    let finished = told.finished();
    assert_eq!(finished["state"], "failed", "{finished}");
    if finished["reason"] == "stalled" {
        assert!(told.count("error") > 0, "{}", brief(&told.events));
        rig.assert_usable(&key).await;
        rig.give_back(key);
        return Went::As("stall limit");
    }
    let message = finished["error"]["message"].as_str().unwrap();
    assert!(message.contains("mock error") || says(message), "the words of the model server are lost: {finished}");
    rig.assert_usable(&key).await;
    rig.give_back(key);
    if says(message) { Went::Well } else { Went::Without("what to do") }
}
