//! What comes out of a stream, how it ends, and how it is stopped.

use greenroom::{
    agents::{AgentCommand, AgentEvent, Outcome},
    protocol::{Usage, event::DeltaKind},
};
use serde_json::json;

use crate::{
    Session, agent_at,
    mock_llm::{Answer, MockLlm, Reply},
    prompt, says,
};

fn completed(reason: &str) -> Outcome {
    Outcome::Completed { reason: Some(reason.into()) }
}

#[tokio::test]
async fn text_and_usage_arrive_and_the_agent_takes_the_next_turn() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    for number in 1..=2 {
        let turn = session.ask("hi").await;
        assert_eq!(turn.completed().text(), "Hello from mock");
        let deltas = turn.events.iter().filter(|event| matches!(event, AgentEvent::Delta { .. })).count();
        assert_eq!(deltas, 3, "each chunk is a delta");
        let input_tokens = 100 + number;
        let usage = Usage { input_tokens, output_tokens: 7, cached_tokens: 10, ..Usage::default() };
        assert_eq!(turn.usage(), Some(Usage { context_used: Some(input_tokens + 7), ..usage }));
    }
}

#[tokio::test]
async fn reasoning_is_told_apart_and_think_tags_are_left_alone() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let turn = session.ask("THINK first").await;
    assert_eq!((turn.reasoning().as_str(), turn.text().as_str()), ("let me think", "Hello from mock"));

    let parts =
        json!([{"type": "thinking", "thinking": [{"type": "text", "text": "C"}]}, {"type": "text", "text": "d"}]);
    mock.script([Reply::sse()
        .delta(&json!({"reasoning": "A", "content": null}))
        .delta(&json!({"reasoning_content": "B", "reasoning": "B"}))
        .delta(&json!({"content": "<think>x</think>"}))
        .delta(&json!({"content": parts}))
        .finish("stop")
        .done()]);
    let turn = session.ask("again").await;
    assert_eq!((turn.reasoning().as_str(), turn.text().as_str()), ("ABC", "<think>x</think>d"));
}

#[tokio::test]
async fn the_end_says_why() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    for (finish, reason) in
        [("length", "max_tokens"), ("content_filter", "content_filter"), ("tool_calls", "tool_calls")]
    {
        mock.script([Reply::sse().delta(&json!({"content": "a"})).finish(finish).done()]);
        let turn = session.ask("hi").await;
        assert_eq!(turn.outcome, completed(reason));
        assert_eq!(turn.faults().len(), usize::from(finish == "tool_calls"));
    }
    mock.script([Reply::sse().delta(&json!({"refusal": "No."})).finish("stop").done()]);
    let turn = session.ask("hi").await;
    assert_eq!((turn.text().as_str(), &turn.outcome), ("No.", &completed("refusal")));

    let call = json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]});
    mock.script([Reply::sse().delta(&call).delta(&call).finish("tool_calls").done()]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.faults(), ["the model called a tool, and this agent has none"], "once, not for each piece");
}

#[tokio::test]
async fn ends_that_are_not_quite_in_order_are_ends() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let said = || Reply::sse().delta(&json!({"content": "a"}));
    let empty_reason = json!({"choices": [{"delta": {}, "finish_reason": ""}]});
    let replies = [
        said().data(&empty_reason).done(),
        said().finish("stop"),
        said().finish("stop").break_off(),
        said().text("data: [DONE]"),
    ];
    for reply in replies {
        mock.script([reply]);
        let turn = session.ask("hi").await;
        assert_eq!(turn.completed().text(), "a");
        assert_eq!(turn.usage(), None, "no usage came, none is made up");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_fails_and_keeps_what_was_shown() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let half = || Reply::sse().delta(&json!({"content": "half"}));
    for reply in [half(), half().break_off(), half().text("data: {\"choices\":[{\"delta\":{\"conte")] {
        mock.script([reply]);
        let before = mock.generations().len();
        let turn = session.ask("hi").await;
        let (code, message) = turn.error();
        assert_eq!(code, "agent_error");
        says(message, &["broke off", &mock.v1()]);
        assert_eq!(turn.text(), "half");
        assert_eq!(mock.generations().len(), before + 1, "never again once something was shown");
    }
}

#[tokio::test]
async fn an_error_in_the_stream_fails_the_turn() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let error = json!({"error": {"message": "out of memory", "code": 503}});
    mock.script([Reply::sse().delta(&json!({"content": "a"})).data(&error)]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_error");
    says(turn.error().1, &["out of memory"]);
    mock.script([Reply::sse().data(&json!({"error": "no such slot"}))]);
    says(session.ask("hi").await.error().1, &["no such slot"]);
    assert_eq!(session.ask("hi").await.completed().text(), "Hello from mock");
}

#[tokio::test]
async fn a_line_over_the_limit_fails_without_being_kept() {
    let mock = MockLlm::start();
    let config = json!({"kind": "openai", "base_url": mock.v1(), "model": "m"});
    let limits = greenroom::config::AgentLimits { max_line: greenroom::config::Size::kib(64), ..Default::default() };
    let config = serde_json::from_value(config).unwrap();
    let agent = greenroom::agents::openai::OpenAiAgent::new("local", config, limits).unwrap();
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let almost = "x".repeat(60 << 10);
    mock.script([Reply::sse().delta(&json!({"content": almost})).delta(&json!({"content": almost})).done()]);
    assert_eq!(session.ask("hi").await.completed().text().len(), 120 << 10);
    mock.script([Reply::sse().text("data: ").text("x".repeat(70 << 10)).hold()]);
    let turn = session.ask("hi").await;
    assert_eq!(turn.error().0, "agent_error");
    says(turn.error().1, &["65536 bytes", "agent.max_line"]);
}

#[tokio::test]
async fn what_is_not_understood_is_raw() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let reply = Reply::sse().data(&json!({"news": 1})).text("data: what?\n\n").delta(&json!({"content": "a"})).done();
    mock.script([reply]);
    let turn = session.ask("hi").await;
    let raw = [AgentEvent::Raw(json!({"news": 1})), AgentEvent::Raw(json!("what?"))];
    assert_eq!(
        turn.completed().events,
        [raw.as_slice(), &[AgentEvent::Delta { kind: DeltaKind::Text, text: "a".into() }]].concat()
    );
}

#[tokio::test]
async fn a_whole_completion_will_do() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": "all at once"}, "finish_reason": "length"});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.5});
    mock.script([Reply::json(200, &json!({"choices": [choice], "usage": usage}))]);
    let turn = session.ask("hi").await;
    assert_eq!((turn.text().as_str(), &turn.outcome), ("all at once", &completed("max_tokens")));
    assert_eq!(turn.usage().unwrap().cost_usd, Some(0.5));
}

#[tokio::test]
async fn llama_tells_its_progress_once_it_is_known() {
    let mock = MockLlm::start();
    let agent = agent_at(&mock.v1(), json!({}));
    let mut session = Session::open(&agent, Ok(Vec::new())).await;
    let timings = json!({"cache_n": 30, "prompt_n": 10, "predicted_n": 5});
    mock.script([Reply::sse()
        .delta(&json!({"content": "a"}))
        .finish("stop")
        .data(&json!({"choices": [], "timings": timings}))]);
    let usage = session.ask("hi").await.usage().unwrap();
    assert_eq!((usage.input_tokens, usage.cached_tokens, usage.output_tokens), (40, 30, 5));
    let counted = json!({"prompt_tokens": 41, "completion_tokens": 6});
    mock.script([Reply::sse().finish("stop").data(&json!({"choices": [], "timings": timings, "usage": counted}))]);
    let usage = session.ask("hi").await.usage().unwrap();
    assert_eq!((usage.input_tokens, usage.cached_tokens, usage.output_tokens), (41, 30, 6));
    assert_eq!(usage.context_used, Some(47));

    let progress =
        json!({"choices": [], "prompt_progress": {"total": 200, "cache": 20, "processed": 100, "time_ms": 31}});
    mock.script([Reply::sse().data(&progress).delta(&json!({"content": "a"})).finish("stop").done()]);
    let turn = session.ask("hi").await;
    assert_eq!(
        turn.events.first(),
        Some(&AgentEvent::Progress { processed: 100, total: 200, cached: 20, time_ms: 31 })
    );
    let asked: Vec<_> = mock.generations().iter().map(|request| request.body["return_progress"].clone()).collect();
    assert_eq!(
        asked,
        [json!(null), json!(true), json!(true)],
        "a strict server would refuse it, so it is not sent on suspicion"
    );
}

#[tokio::test]
async fn cancel_drops_the_request_at_once() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    session.tell(AgentCommand::Prompt(prompt("SLOW"))).await;
    session.until("a delta", |event| matches!(event, AgentEvent::Delta { .. })).await;
    session.tell(AgentCommand::Cancel).await;
    assert_eq!(session.rest().await.outcome, Outcome::Cancelled);
    let gone = |requests: &[crate::mock_llm::Request]| (requests.first()?.answer == Answer::Abandoned).then_some(());
    mock.wait_for("the request to be dropped", gone).await;
    // A cancel that comes too late harms nothing.
    session.tell(AgentCommand::Cancel).await;
    assert_eq!(session.ask("hi").await.completed().text(), "Hello from mock");
}

#[tokio::test]
async fn cancel_works_while_nothing_was_answered_and_while_nobody_reads() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    mock.script([Reply::sse().hold()]);
    session.tell(AgentCommand::Prompt(prompt("hi"))).await;
    mock.wait_for("the request", |requests| requests.first().map(|_| ())).await;
    session.tell(AgentCommand::Cancel).await;
    assert_eq!(session.rest().await.outcome, Outcome::Cancelled);

    // More deltas than the channel holds: the adapter waits for room when the cancel comes.
    let flood = (0..2000).fold(Reply::sse(), |reply, _| reply.delta(&json!({"content": "x"})));
    mock.script([flood.hold()]);
    session.tell(AgentCommand::Prompt(prompt("hi"))).await;
    mock.wait_for("the second request", |requests| requests.get(1).map(|_| ())).await;
    session.tell(AgentCommand::Cancel).await;
    let turn = session.rest().await;
    assert_eq!(turn.outcome, Outcome::Cancelled);
    assert!(turn.text().len() <= 2000);
}

#[tokio::test]
async fn kill_ends_the_turn_and_closes_the_channel() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    session.tell(AgentCommand::Prompt(prompt("SLOW"))).await;
    session.until("a delta", |event| matches!(event, AgentEvent::Delta { .. })).await;
    session.live.kill.kill();
    assert_eq!(session.rest().await.outcome, Outcome::Cancelled);
    assert_eq!(session.event().await, None);
    let gone = |requests: &[crate::mock_llm::Request]| (requests.first()?.answer == Answer::Abandoned).then_some(());
    mock.wait_for("the request to be dropped", gone).await;
}

#[tokio::test]
async fn close_ends_an_idle_agent() {
    let mock = MockLlm::start();
    let mut session = Session::at(&mock).await;
    session.tell(AgentCommand::Close).await;
    assert_eq!(session.event().await, None);
}
