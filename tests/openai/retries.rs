//! When a request is tried again, and when it is not.

use std::time::Duration;

use greenroom::agents::{AgentCommand, AgentEvent, Outcome};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::{
    Session, agent_at,
    mock_llm::{MockLlm, Reply},
    prompt, says,
};

fn is_retry(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::Status { reason: Some(_), .. })
}

#[tokio::test]
async fn passing_faults_are_tried_again_and_each_retry_is_shown() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    mock.script([429, 529, 503].map(|status| Reply::error(status, "busy").header("retry-after", "0")));
    let turn = session.ask("hi").await;
    assert_eq!(turn.completed().text(), "Hello from mock");
    let shown = turn.statuses();
    assert_eq!(shown.len(), 3);
    for (line, (number, status)) in shown.iter().zip([(1, 429), (2, 529), (3, 503)]) {
        assert!(line.starts_with(&format!("retry {number} of 4 in ")), "{line}");
        assert!(line.ends_with(&format!(" ms: {status} busy")), "{line}");
    }
    let first_delta = turn.events.iter().position(|event| matches!(event, AgentEvent::Delta { .. })).unwrap();
    let cleared =
        turn.events.iter().position(|event| matches!(event, AgentEvent::Status { reason: None, .. })).unwrap();
    assert!(cleared < first_delta, "the retry is over before the answer begins");
}

#[tokio::test]
async fn after_the_last_retry_the_turn_fails() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({"max_retries": 2}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let turn = session.ask("ERR500").await;
    assert_eq!(turn.error().0, "agent_error");
    says(turn.error().1, &["HTTP 500", "mock error", "after 2 retries", &mock.v1()]);
    assert_eq!((turn.statuses().len(), mock.generations().len()), (2, 3));
}

#[tokio::test]
async fn no_retries_means_none() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({"max_retries": 0}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let turn = session.ask("ERR429").await;
    assert!(turn.error().1.ends_with("HTTP 429: mock error"), "{}", turn.error().1);
    assert_eq!((turn.statuses().len(), mock.generations().len()), (0, 1));
}

#[tokio::test]
async fn lasting_faults_are_not_tried_again() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let empty = json!({"error": {"message": "You have no money left.", "code": "insufficient_quota"}});
    for reply in [Reply::error(400, "bad"), Reply::error(402, "pay"), Reply::json(429, &empty)] {
        mock.script([reply, Reply::error(418, "asked twice")]);
        let turn = session.ask("hi").await;
        assert!(!turn.error().1.contains("asked twice") && turn.statuses().is_empty(), "{}", turn.error().1);
        assert_eq!(mock.script_left(), 1);
        says(session.ask("hi").await.error().1, &["asked twice"]);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_first_delta_is_tried_again() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let overloaded = json!({"error": {"message": "overloaded", "code": "503"}});
    mock.script([Reply::sse().text(": hello\n\n").break_off(), Reply::sse().data(&overloaded)]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.completed().text(), "Hello from mock");
    says(turn.statuses().first().unwrap(), &["retry 1 of 4", "the connection broke"]);
    says(turn.statuses().get(1).unwrap(), &["retry 2 of 4", "503 overloaded"]);
}

#[tokio::test]
async fn the_server_says_how_long_and_a_cancel_need_not_wait() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let date = (OffsetDateTime::now_utc() + Duration::from_secs(100)).format(&Rfc2822).unwrap().replace("+0000", "GMT");
    // Up to a tenth more is waited, so that many clients do not come back together.
    for (value, least, most) in [("60", 60.0, 66.0), (date.as_str(), 80.0, 110.0)] {
        mock.script([Reply::error(429, "slow down").header("retry-after", value)]);
        session.tell(AgentCommand::Prompt(prompt("hi"))).await;
        let AgentEvent::Status { reason: Some(reason), .. } = session.until("the retry", is_retry).await else {
            panic!()
        };
        let seconds = reason.split(" in ").nth(1).unwrap().split(" s: ").next().unwrap();
        let seconds: f64 = seconds.parse().unwrap();
        assert!((least..=most).contains(&seconds), "{reason}");
        session.tell(AgentCommand::Cancel).await;
        assert_eq!(session.rest().await.outcome, Outcome::Cancelled);
    }
    assert_eq!(mock.generations().len(), 2);
}

#[tokio::test]
async fn a_wait_of_hours_is_not_sat_out() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    mock.script([Reply::error(429, "come back tomorrow").header("retry-after", "7200")]);
    let turn = session.ask("hi").await;
    says(turn.error().1, &["come back tomorrow", "asks to wait 7200 s"]);
    assert!(turn.statuses().is_empty());
}
