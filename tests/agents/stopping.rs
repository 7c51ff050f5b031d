//! The ways in which an agent stops: asked, forced, dropped, dead.

use greenroom::{
    agents::{AgentCommand, AgentEvent, Outcome},
    config,
};
use serde_json::json;

use crate::harness::{Client, Fake, eventually, failure, is_gone, text, wait_gone};

/// Starts a turn and waits for the number that it says.
async fn says(client: &mut Client, steps: serde_json::Value) -> i32 {
    client.script(steps).await;
    let events = client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    text(&events).parse().unwrap()
}

#[tokio::test]
async fn a_cancelled_turn_ends_and_the_agent_stays() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    says(&mut client, json!([{"say": "1"}, {"until_cancelled": true}])).await;
    client.send(AgentCommand::Cancel).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    let (events, _) = client.play(json!([{"say": "alive"}])).await;
    assert_eq!(text(&events), "alive");
    assert_eq!(fake.sent("session/cancel").len(), 1);
    // With nothing to cancel, nothing is sent.
    client.send(AgentCommand::Cancel).await;
    client.play(json!([])).await;
    assert_eq!(fake.sent("session/cancel").len(), 1);
    client.close().await;
}

#[tokio::test]
async fn a_kill_ends_what_ignores_everything_grandchildren_too() {
    for detached in [false, true] {
        let fake = Fake::new(json!({"ignore_term": true, "ignore_eof": true}));
        let (mut client, _) = fake.open().await;
        let grandchild = says(&mut client, json!([{"fork": {"detached": detached}}, {"hang": true}])).await;
        client.send(AgentCommand::Cancel).await;
        eventually("the agent was asked", || !fake.sent("session/cancel").is_empty()).await;
        client.live.kill.kill();
        let rest = client.closed().await;
        assert!(is_gone(grandchild), "detached: {detached}");
        // It was asked to stop, and it has.
        assert_eq!(rest, [AgentEvent::Ended(Outcome::Cancelled)]);
    }
}

#[tokio::test]
async fn a_kill_without_a_cancel_is_a_failure() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    says(&mut client, json!([{"say": "1"}, {"hang": true}])).await;
    client.live.kill.kill();
    let rest = client.closed().await;
    let [AgentEvent::Ended(outcome)] = &rest[..] else { panic!("{rest:?}") };
    assert!(failure(outcome, "agent_error").contains("by force"));
}

#[tokio::test]
async fn a_kill_works_while_the_session_reads_nothing() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([{"flood": 100_000}])).await;
    eventually("the channel is full", || client.live.events.len() == greenroom::agents::EVENT_CHANNEL).await;
    client.live.kill.kill();
    client.closed().await;
}

#[tokio::test]
async fn dropping_the_session_side_kills_the_group() {
    let (mut client, _) = Fake::new(json!({"ignore_term": true})).open().await;
    let grandchild = says(&mut client, json!([{"fork": {"detached": false}}, {"hang": true}])).await;
    let leader = client.ledger.running()[0].pgid;
    let Client { live, ledger, _folder } = client;
    drop(live);
    wait_gone(leader).await;
    wait_gone(grandchild).await;
    eventually("the ledger is empty", || ledger.running().is_empty()).await;
}

#[tokio::test]
async fn a_close_is_quick_where_the_agent_listens_and_sure_where_it_does_not() {
    for (stubborn, setup) in [(false, json!({})), (true, json!({"ignore_term": true, "ignore_eof": true}))] {
        let mut fake = Fake::new(setup);
        fake.limits.kill_grace = config::Duration::millis(if stubborn { 200 } else { 600_000 });
        let (client, _) = fake.open().await;
        client.close().await;
    }
}

#[tokio::test]
async fn an_agent_that_dies_in_a_turn_leaves_its_last_words() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let (events, outcome) = client
        .play(json!([{"say": "so far"}, {"exit": {"code": 7, "stderr": "\u{1b}[31mout of cheese\u{1b}[0m\n"}}]))
        .await;
    assert_eq!(text(&events), "so far");
    let message = failure(&outcome, "agent_error");
    assert_eq!(message, "agent `fake` ended with exit status: 7; stderr: out of cheese");
    assert_eq!(client.closed().await, []);
}

#[tokio::test]
async fn an_agent_that_dies_while_a_grandchild_holds_its_stdout_is_noticed() {
    let mut fake = Fake::new(json!({}));
    let script = fake.config.command.remove(1);
    // The wrapper ends after the agent; the sleeper keeps the pipe open.
    let wrapper = format!("sleep 1000 & node '{script}'; exit $?");
    fake.config.command = vec!["sh".into(), "-c".into(), wrapper];
    let (mut client, _) = fake.open().await;
    let (_, outcome) = client.play(json!([{"exit": {"code": 7}}])).await;
    assert!(failure(&outcome, "agent_error").contains("exit status: 7"), "{outcome:?}");
    client.closed().await;
}

#[tokio::test]
async fn an_agent_that_dies_between_turns_closes_the_channel() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.play(json!([{"say": "x"}])).await;
    let leader = nix::unistd::Pid::from_raw(client.ledger.running()[0].pgid);
    nix::sys::signal::kill(leader, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(client.closed().await, []);
}
