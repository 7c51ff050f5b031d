//! The messages of turns as the real agent writes them, and what is shown of them.

use serde_json::{Value, json};

use super::Narrator;
use crate::{
    agents::AgentEvent,
    protocol::{ToolStatus, event::DeltaKind},
};

fn event(event: Value) -> Value {
    json!({"type": "stream_event", "event": event, "parent_tool_use_id": null})
}

fn start(id: &str) -> Value {
    event(json!({"type": "message_start", "message": {"id": id}}))
}

fn block(index: u64, block: Value) -> Value {
    event(json!({"type": "content_block_start", "index": index, "content_block": block}))
}

fn delta(index: u64, delta: Value) -> Value {
    event(json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn says(words: &str) -> Value {
    delta(0, json!({"type": "text_delta", "text": words}))
}

fn assistant(id: &str, content: Value) -> Value {
    json!({"type": "assistant", "message": {"id": id, "content": content}, "parent_tool_use_id": null})
}

fn text_event(text: &str) -> AgentEvent {
    AgentEvent::Delta { kind: DeltaKind::Text, text: text.into() }
}

fn told(narrator: &mut Narrator, messages: &[Value]) -> Vec<AgentEvent> {
    messages.iter().flat_map(|message| narrator.tell(message)).collect()
}

#[test]
fn pieces_are_shown_and_the_whole_is_not_shown_again() {
    let messages = [
        start("m"),
        block(0, json!({"type": "thinking", "thinking": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "hmm"})),
        delta(0, json!({"type": "signature_delta", "signature": "x"})),
        assistant("m", json!([{"type": "thinking", "thinking": "hmm"}])),
        block(1, json!({"type": "text", "text": ""})),
        says("Hel"),
        says("lo"),
        assistant("m", json!([{"type": "text", "text": "Hello"}])),
        event(json!({"type": "message_stop"})),
    ];
    let thought = AgentEvent::Delta { kind: DeltaKind::Reasoning, text: "hmm".into() };
    let mut narrator = Narrator::default();
    assert_eq!(told(&mut narrator, &messages), [thought, text_event("Hel"), text_event("lo")]);
    assert_eq!(narrator.finish(&json!({"result": "Hello"})), None);
}

#[test]
fn what_had_no_pieces_is_shown_whole_and_a_result_alone_too() {
    let mut narrator = Narrator::default();
    let synthetic = assistant("s", json!([{"type": "text", "text": "Cost: 0"}]));
    assert_eq!(told(&mut narrator, &[synthetic]), [text_event("Cost: 0")]);
    assert_eq!(narrator.finish(&json!({"result": "Cost: 0"})), None);
    let result = json!({"result": "not here"});
    assert_eq!(Narrator::default().finish(&result), Some(text_event("not here")));
    let mut compacted = Narrator::default();
    let printed = "<local-command-stdout>Compacted </local-command-stdout>";
    assert_eq!(compacted.tell(&json!({"type": "user", "message": {"content": printed}})), []);
    assert_eq!(compacted.finish(&json!({"result": ""})), Some(text_event("Compacted")));
    assert_eq!(Narrator::default().finish(&json!({"result": ""})), None);
}

#[test]
fn two_messages_of_text_do_not_run_into_each_other() {
    let mut narrator = Narrator::default();
    let text = json!({"type": "text", "text": ""});
    let one = told(&mut narrator, &[start("a"), block(0, text.clone()), says("one"), says(".")]);
    let two = told(&mut narrator, &[start("b"), block(0, text.clone()), says("two")]);
    assert_eq!((one, two), (vec![text_event("one"), text_event(".")], vec![text_event("\n\ntwo")]));
    narrator.steered();
    assert_eq!(told(&mut narrator, &[start("c"), block(0, text), says("three")]), [text_event("three")]);
}

#[test]
fn a_call_is_announced_written_completed_and_finished_once() {
    let input = json!({"command": "ls -l"});
    let use_block = |input: Value| json!({"type": "tool_use", "id": "t", "name": "Bash", "input": input});
    let piece = |text: &str| delta(0, json!({"type": "input_json_delta", "partial_json": text}));
    let result = json!({"type": "user", "message": {"content":
        [{"type": "tool_result", "tool_use_id": "t", "content": "a", "is_error": true}]}});
    let messages = [
        start("m"),
        block(0, use_block(json!({}))),
        piece(""),
        piece("{\"command\""),
        piece(": \"ls -l\"}"),
        assistant("m", json!([use_block(input.clone())])),
        result.clone(),
        result,
    ];
    let events = told(&mut Narrator::default(), &messages);
    let [
        AgentEvent::ToolStarted(early),
        AgentEvent::ToolDelta { input_so_far: first, .. },
        AgentEvent::ToolDelta { input_so_far: whole, .. },
        AgentEvent::ToolStarted(card),
        AgentEvent::ToolFinished { call_id, output, is_error: true },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((early.name.as_str(), &early.title, &early.input), ("Bash", &None, &Value::Null));
    assert_eq!((first.as_str(), whole.as_str()), ("{\"command\"", "{\"command\": \"ls -l\"}"));
    assert_eq!((card.title.as_deref(), card.kind.as_deref(), &card.input), (Some("ls -l"), Some("execute"), &input));
    assert_eq!((call_id.as_str(), output), ("t", &json!("a")));
}

#[test]
fn a_long_input_is_not_told_for_each_of_its_letters() {
    let mut narrator = Narrator::default();
    told(&mut narrator, &[start("m"), block(0, json!({"type": "tool_use", "id": "t", "name": "Write"}))]);
    let (mut bytes, mut count) = (0, 0);
    for _ in 0..20_000 {
        for event in narrator.tell(&delta(0, json!({"type": "input_json_delta", "partial_json": "abcde"}))) {
            let AgentEvent::ToolDelta { input_so_far, .. } = event else { panic!("{event:?}") };
            bytes += input_so_far.len();
            count += 1;
        }
    }
    assert!(bytes < 20 * 100_000 && count > 50, "{bytes} bytes in {count}");
}

#[test]
fn a_sub_agent_shows_in_its_call_and_not_in_the_answer() {
    let mut narrator = Narrator::default();
    let spawn = json!([{"type": "tool_use", "id": "t", "name": "Agent", "input": {"description": "look"}}]);
    told(&mut narrator, &[assistant("m", spawn)]);
    let sub = |kind: &str, content: Value| {
        json!({"type": kind, "message": {"id": "s", "content": content},
        "parent_tool_use_id": "t"})
    };
    let news = |output: &str| AgentEvent::ToolUpdated {
        call_id: "t".into(),
        status: ToolStatus::Running,
        output: json!(output),
    };
    let call = json!([{"type": "tool_use", "id": "u", "name": "Bash", "input": {"command": "ls"}}]);
    assert_eq!(narrator.tell(&sub("assistant", call)), [news("[Bash: ls]")]);
    assert_eq!(narrator.tell(&sub("assistant", json!([{"type": "text", "text": "found"}]))), [news("found")]);
    let result = json!([{"type": "tool_result", "tool_use_id": "u", "content": "x"}]);
    assert!(matches!(&narrator.tell(&sub("user", result))[..], [AgentEvent::Raw(_)]));
    let mut piece = says("leak");
    piece["parent_tool_use_id"] = "t".into();
    assert_eq!(narrator.tell(&piece), []);
    let mut stranger = sub("assistant", json!([{"type": "text", "text": "deep"}]));
    stranger["parent_tool_use_id"] = "unknown".into();
    assert!(matches!(&narrator.tell(&stranger)[..], [AgentEvent::Raw(_)]));
}

#[test]
fn an_error_of_the_provider_is_no_answer() {
    let mut message = assistant("e", json!([{"type": "text", "text": "API Error: 429"}]));
    message["is_api_error_message"] = true.into();
    message["error"] = "rate_limit".into();
    let mut narrator = Narrator::default();
    assert_eq!(narrator.tell(&message), []);
    assert_eq!(narrator.refused.as_deref(), Some("rate_limit"));
}

#[test]
fn a_list_of_todos_is_a_plan_and_the_unknown_is_raw() {
    let todos = json!([{"content": "a", "status": "pending"}]);
    let call = json!([{"type": "tool_use", "id": "t", "name": "TodoWrite", "input": {"todos": todos}}]);
    let events = Narrator::default().tell(&assistant("m", call));
    assert_eq!(events.last(), Some(&AgentEvent::Plan(todos)));
    for news in [json!({"type": "hologram"}), json!({})] {
        assert_eq!(Narrator::default().tell(&news), [AgentEvent::Raw(news)]);
    }
}
