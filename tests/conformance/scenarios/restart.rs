//! The death of the agent, the death of the server, and an orderly stop.

use serde_json::Value;

use super::{
    Went,
    asking::{assert_settled, make},
    conversation::{requests_with, word},
};
use crate::{
    rig::Rig,
    subject::Subject,
    talk::{HELLO, Told},
};

/// How the agent got its conversation, of which the model must have heard.
fn resumed(rig: &Rig, told: &Told, before: &str, now: &str) -> Went {
    told.assert_state("completed");
    assert_eq!(told.said(), HELLO);
    let requests = requests_with(rig, now);
    assert!(requests.iter().any(|request| request.body.to_string().contains(before)), "the model has forgotten");
    match told.of("turn.started")[0]["data"]["resumed"].as_str() {
        Some("native") => Went::As("native"),
        Some("replayed") => Went::As("replayed"),
        other => panic!("the conversation is not the old one: {other:?}"),
    }
}

/// Killed while it asks, or while it speaks where it never asks.
pub async fn agent_killed(subject: Subject) -> Went {
    let rig = Rig::own(subject);
    let key = rig.new_session().await;
    let (before, now) = (word(), word());
    rig.answer(&key, format!("PLAIN {before}")).await;
    if rig.processes().is_empty() {
        return Went::Without("a process");
    }
    let prompt = if subject.asks() { make(&rig.file(&word())) } else { "SLOW".to_owned() };
    let mut talk = rig.talk(&key, prompt).await;
    if subject.asks() {
        talk.asked().await.expect("it asks");
    } else {
        talk.speaks().await;
    }
    // The one that waits behind it gets a fresh process.
    let next = rig.talk(&key, format!("PLAIN {now}")).await;
    rig.kill_agent();
    let told = talk.end().await;
    told.assert_state("failed");
    let error = &told.finished()["error"];
    assert_eq!(error["code"], "agent_error", "{error}");
    assert!(error["message"].as_str().unwrap().contains("SIGKILL"), "does not say why: {error}");
    assert_settled(&told);
    let told = next.end().await;
    told.assert_state("completed");
    resumed(&rig, &told, &before, &now)
}

/// The server dies in the middle of a turn, and with it goes all that it had started.
pub async fn server_killed(subject: Subject) -> Went {
    let mut rig = Rig::own(subject);
    let key = rig.new_session().await;
    let (before, now) = (word(), word());
    rig.answer(&key, format!("PLAIN {before}")).await;
    let mut talk = rig.talk(&key, "SLOW").await;
    talk.speaks().await;
    let (running, old) = (talk.turn.clone(), rig.processes());
    drop(talk);
    rig.server.kill9();
    rig.server.restart();
    let turn = rig.server.finished(&key, &running).await;
    assert_eq!(
        (turn["state"].as_str(), turn["reason"].as_str()),
        (Some("interrupted"), Some("server_restart")),
        "{turn}"
    );
    let told = rig.told(&key, format!("PLAIN {now}")).await;
    let left: Vec<i32> = rig.processes().into_iter().filter(|pid| old.contains(pid)).collect();
    assert!(left.is_empty(), "processes of the server's last life are left: {left:?}");
    let events = rig.server.events(&key).await;
    let finished = |event: &&Value| event["type"] == "turn.finished" && event["turn_id"] == *running;
    assert_eq!(events.iter().filter(finished).count(), 1);
    resumed(&rig, &told, &before, &now)
}

/// Stopped by its operator while it works.
pub async fn nothing_left(subject: Subject) -> Went {
    let mut rig = Rig::own(subject);
    let key = rig.new_session().await;
    let mut talk = rig.talk(&key, "SLOW").await;
    talk.speaks().await;
    let some = !rig.processes().is_empty();
    let status = rig.server.stop();
    assert!(status.success(), "{status}: {}", rig.server.log());
    rig.wait_for_no_process();
    assert!(some || !subject.is_program(), "it never had a process");
    Went::Well
}
