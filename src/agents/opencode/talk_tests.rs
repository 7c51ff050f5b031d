//! Tests of the translation of a turn.

use serde_json::json;

use super::*;

fn answer(id: &str, parent: &str, more: Value) -> Value {
    let mut info = json!({"id": id, "role": "assistant", "parentID": parent, "time": {"created": 1}});
    for (name, value) in more.as_object().unwrap() {
        info[name] = value.clone();
    }
    info
}

fn done(id: &str, parent: &str, finish: &str) -> Value {
    answer(id, parent, json!({"time": {"created": 1, "completed": 2}, "finish": finish}))
}

fn part(kind: &str, text: &str, ended: bool) -> Value {
    let time = if ended { json!({"start": 1, "end": 2}) } else { json!({"start": 1}) };
    json!({"id": format!("p_{kind}"), "messageID": "m2", "type": kind, "text": text, "time": time})
}

fn piece(kind: &str, text: &str) -> Value {
    json!({"messageID": "m2", "partID": format!("p_{kind}"), "field": "text", "delta": text})
}

fn said(events: Vec<AgentEvent>) -> String {
    let texts = events.into_iter().map(|event| match event {
        AgentEvent::Delta { text, .. } => text,
        other => panic!("{other:?}"),
    });
    texts.collect()
}

fn begun() -> Talk {
    let mut talk = Talk::default();
    talk.begin("m1", Some(100));
    talk.message(&answer("m2", "m1", json!({})), false);
    talk
}

#[test]
fn text_is_told_once_whether_in_pieces_or_whole() {
    let mut talk = begun();
    assert_eq!(talk.part(&part("text", "", false), true), []);
    assert_eq!(said(talk.delta(&piece("text", "Hello "))), "Hello ");
    assert_eq!(said(talk.delta(&piece("text", "you  "))), "you  ");
    assert_eq!(talk.part(&part("text", "Hello you", true), true), [], "trimmed at its end");
    assert_eq!(talk.delta(&piece("text", "late")), []);
    let whole = talk.part(&part("reasoning", "at once", true), true);
    assert_eq!(whole, [AgentEvent::Delta { kind: DeltaKind::Reasoning, text: "at once".into() }]);
    assert_eq!(talk.part(&part("reasoning", "at once", true), true), []);
}

#[test]
fn after_a_loss_the_rest_comes_with_the_whole_text() {
    let mut talk = begun();
    talk.part(&part("text", "", false), true);
    talk.delta(&piece("text", "one "));
    talk.lost();
    assert_eq!(talk.part(&part("text", "", false), false), [], "what is stored is not the text so far");
    assert_eq!(talk.delta(&piece("text", "three ")), []);
    assert_eq!(said(talk.part(&part("text", "one two three", true), true)), "two three");
    // A part that ended in the gap.
    assert_eq!(said(talk.part(&part("reasoning", "why", true), false)), "why");
}

#[test]
fn other_messages_are_not_the_answer() {
    let mut talk = begun();
    talk.message(&json!({"id": "m0", "role": "user"}), false);
    talk.message(&answer("m01", "m0", json!({})), false);
    let old = json!({"id": "p", "messageID": "m01", "type": "text", "text": "old", "time": {"end": 1}});
    assert_eq!(talk.part(&old, true), []);
    assert!(!talk.wants_state);
    let prompt = json!({"id": "p", "messageID": "m1", "type": "text", "text": "the prompt"});
    assert_eq!(talk.part(&prompt, true), []);
    let unheard = json!({"id": "p", "messageID": "m9", "type": "text", "text": "?"});
    assert_eq!(talk.part(&unheard, true), []);
    assert!(std::mem::take(&mut talk.wants_state));
    assert_eq!(talk.part(&unheard, true), []);
    assert!(!talk.wants_state, "asked for once");
    // Told late after all.
    talk.message(&answer("m9", "m1", json!({})), false);
    assert_eq!(said(talk.part(&json!({"id": "p", "messageID": "m9", "type": "text", "text": "!"}), true)), "!");
}

#[test]
fn a_turn_is_over_when_the_session_is_idle_and_the_newest_text_is_answered() {
    let mut talk = begun();
    talk.set_idle(true);
    assert!(!talk.is_over(), "an idle of the turn before, while the answer is written");
    talk.message(&done("m2", "m1", "tool-calls"), false);
    talk.message(&answer("m3", "m1", json!({})), false);
    assert!(!talk.is_over());
    talk.ask_more("m4", 1);
    talk.message(&done("m3", "m1", "stop"), false);
    talk.set_idle(true);
    assert!(!talk.is_over(), "a text was added");
    talk.take_back("m4");
    assert!(talk.is_over());
    // The agent's own continuation after a compaction.
    talk.message(&json!({"id": "m5", "role": "user"}), false);
    assert!(!talk.is_over());
    let summary = answer("m6", "m5", json!({"summary": true}));
    talk.message(&summary, false);
    let hidden = json!({"id": "p", "messageID": "m6", "type": "text", "text": "summary"});
    assert_eq!(talk.part(&hidden, true), []);
    talk.message(&done("m6", "m5", "stop"), false);
    talk.set_idle(true);
    assert!(talk.is_over());
}

#[test]
fn a_text_is_taken_when_an_answer_to_it_or_to_a_later_one_begins() {
    let mut talk = begun();
    talk.ask_more("m3", 1);
    talk.ask_more("m4", 2);
    talk.ask_more("m6", 3);
    assert_eq!(talk.message(&done("m2", "m1", "tool-calls"), false), [], "it began before");
    assert_eq!(talk.message(&answer("m5", "m4", json!({"summary": true})), false), []);
    let taken = talk.message(&answer("m5", "m4", json!({})), false);
    assert_eq!(taken, [AgentEvent::Steered { id: 1 }, AgentEvent::Steered { id: 2 }]);
    assert_eq!(talk.message(&answer("m5", "m4", json!({})), false), [], "told once");
    assert_eq!(talk.untaken(), ["m6"]);
    talk.take_back("m6");
    assert_eq!(talk.untaken(), [""; 0]);
}

#[test]
fn sub_agents_cost_and_say_nothing() {
    let mut talk = begun();
    let figures = json!({"tokens": {"input": 5, "output": 2, "reasoning": 0}, "cost": 0.5});
    let events = talk.message(&answer("s2", "s1", figures), true);
    assert!(
        matches!(&events[..], [AgentEvent::Usage(usage)] if usage.input_tokens == 5 && usage.context_used.is_none())
    );
    assert!(talk.is_writing() && !talk.answers.contains_key("s2"));
}

#[test]
fn outcomes_are_what_the_last_answer_says() {
    let end = |finish: &str, rejected| {
        let mut talk = begun();
        talk.message(&done("m2", "m1", finish), false);
        talk.outcome("a", rejected)
    };
    let completed = |reason: Option<&str>| Outcome::Completed { reason: reason.map(str::to_owned) };
    assert_eq!(end("stop", true), completed(None));
    assert_eq!(end("length", false), completed(Some("max_tokens")));
    assert_eq!(end("tool-calls", true), completed(Some("rejected")));
    assert_eq!(end("tool-calls", false), completed(None));
    let mut talk = begun();
    let error = json!({"name": "APIError", "data": {"message": "boom", "statusCode": 500}});
    talk.message(&answer("m2", "m1", json!({"time": {"completed": 2}, "error": error})), false);
    assert_eq!(talk.outcome("a", false), Outcome::failed("agent_error", "agent `a`: boom (HTTP 500)"));
    let mut talk = Talk::default();
    talk.begin("m1", None);
    talk.set_idle(true);
    assert!(!talk.is_over());
    talk.failed(Failure::read(&json!({"name": "UnknownError", "data": {"message": "no model"}})));
    assert!(talk.is_over());
    assert_eq!(talk.outcome("a", false), Outcome::failed("agent_error", "agent `a`: no model"));
}
