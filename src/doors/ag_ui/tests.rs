//! Runs as a strict client reads them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    input::{Asks, Resume, RunAgentInput},
    narrator::{AgUi, Telling},
};
use crate::{
    doors::narration::{Known, Narrator as _},
    error::Code,
    ids::{ChoiceId, MessageId, TurnId},
    protocol::{
        Choice, ChoiceAnswer, ChoiceKind, Event, EventBody, Frame, Message, Question, ResolvedBy, Role, TurnError,
        TurnState, Usage, event::DeltaKind, frame::EndReason,
    },
    timestamp::Timestamp,
};

fn telling(behind: &[ChoiceId], messages: &[Value]) -> Telling {
    let raw = |message: &Value| serde_json::from_str(&message.to_string()).unwrap();
    Telling {
        thread: "t".into(),
        run: "r".into(),
        parent: None,
        declares_version: true,
        turn: TurnId::new(),
        behind: behind.to_vec(),
        joined: None,
        messages: messages.iter().map(raw).collect(),
        up_to_user: messages.len().min(1),
        unsupported: None,
    }
}

fn event(body: EventBody) -> Event {
    Event { seq: 1, body, session: "t".parse().unwrap(), turn_id: None, at: Timestamp(0) }
}

fn read(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    text.split_terminator("\n\n")
        .map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

/// The run that these events are told as, in one piece, checked as a client does.
fn run(telling: Telling, events: &[EventBody]) -> Vec<Value> {
    let again = telling.clone();
    let (mut narrator, mut out) = (AgUi::new(telling), Vec::new());
    for body in events {
        narrator.event(&event(body.clone()), &mut out);
    }
    end(&mut narrator, &mut out);
    let told = read(&out);
    check(&told);
    // As it comes from the log.
    let (mut narrator, mut of_frames) = (AgUi::new(again), Vec::new());
    for body in events {
        narrator.frame(&Frame::encode(&event(body.clone())), &mut of_frames);
    }
    end(&mut narrator, &mut of_frames);
    assert_eq!(read(&of_frames), told);
    told
}

fn end(narrator: &mut AgUi, out: &mut Vec<u8>) {
    narrator.pause(out);
    if !narrator.is_over() {
        narrator.finish(out);
    }
}

/// What the verifier of the client holds against a run.
fn check(told: &[Value]) {
    let mut open = BTreeSet::new();
    assert_eq!(told[0]["type"], "RUN_STARTED");
    for (at, line) in told.iter().enumerate() {
        let kind = line["type"].as_str().unwrap();
        let id = line["messageId"].as_str().or(line["toolCallId"].as_str()).unwrap_or_default();
        let (what, step) = kind.rsplit_once('_').unwrap_or((kind, ""));
        let thing = (what.to_owned(), id.to_owned());
        match (what, step) {
            ("RUN", "STARTED") => assert_eq!(at, 0),
            ("RUN", "FINISHED" | "ERROR") => {
                assert_eq!(at + 1, told.len(), "something after the end: {told:?}");
                assert!(step == "ERROR" || open.is_empty(), "{open:?} is open at the end: {told:#?}");
            }
            ("TEXT_MESSAGE" | "REASONING" | "REASONING_MESSAGE" | "TOOL_CALL", "START") => {
                assert!(open.insert(thing), "{line} again");
            }
            (_, "CONTENT" | "ARGS") => assert!(open.contains(&thing) && line["delta"] != "", "{line}"),
            ("TEXT_MESSAGE" | "REASONING" | "REASONING_MESSAGE" | "TOOL_CALL", "END") => {
                assert!(open.remove(&thing), "{line} without start");
            }
            _ => assert!(["CUSTOM", "TOOL_CALL_RESULT", "MESSAGES_SNAPSHOT"].contains(&kind), "{line}"),
        }
    }
}

fn kinds(told: &[Value]) -> Vec<&str> {
    told.iter().map(|line| line["type"].as_str().unwrap()).collect()
}

fn joined(told: &[Value], kind: &str) -> String {
    told.iter().filter(|line| line["type"] == kind).map(|line| line["delta"].as_str().unwrap()).collect()
}

fn delta(message_id: MessageId, part: u32, kind: DeltaKind, delta: &str) -> EventBody {
    EventBody::MessageDelta { message_id, part, kind, delta: delta.into() }
}

fn text(message_id: MessageId, part: u32, text: &str) -> EventBody {
    delta(message_id, part, DeltaKind::Text, text)
}

fn completed(id: MessageId, role: Role) -> EventBody {
    let message =
        Message { id, role, parts: Vec::new(), turn_id: None, agent: None, client_id: None, created_at: Timestamp(0) };
    EventBody::MessageCompleted { message: Box::new(message) }
}

fn tool(call_id: &str, input: Value) -> EventBody {
    let (name, title, kind, input_summary) = ("bash".into(), None, None, None);
    EventBody::ToolStarted { call_id: call_id.into(), name, title, kind, input, input_summary }
}

fn written(call_id: &str, so_far: &str) -> EventBody {
    EventBody::ToolDelta { call_id: call_id.into(), input_so_far: so_far.into() }
}

fn result(call_id: &str, output: Value, is_error: bool) -> EventBody {
    EventBody::ToolFinished { call_id: call_id.into(), output, is_error }
}

fn finished(state: TurnState, error: Option<TurnError>) -> EventBody {
    let usage = Usage { input_tokens: 5, output_tokens: 3, ..Usage::default() };
    EventBody::TurnFinished { state, reason: None, error, usage, summary: None }
}

fn done() -> EventBody {
    finished(TurnState::Completed, None)
}

fn choice(kind: ChoiceKind) -> Choice {
    let question =
        Question { id: "q".into(), question: "Which?".into(), header: None, multi: false, options: Vec::new() };
    Choice {
        id: ChoiceId::new(),
        session: "t".parse().unwrap(),
        turn_id: TurnId::new(),
        kind,
        title: "May it?".into(),
        tool: Some("bash".into()),
        input_summary: Some("ls".into()),
        options: Vec::new(),
        questions: (kind == ChoiceKind::Question).then(|| vec![question]),
        created_at: Timestamp(0),
        expires_at: Timestamp(1_000_000),
    }
}

fn asked(choice: &Choice) -> EventBody {
    EventBody::ChoiceRequested { choice: Box::new(choice.clone()) }
}

fn resolved(choice: &Choice, source: ResolvedBy) -> EventBody {
    EventBody::ChoiceResolved { choice_id: choice.id, outcome: json!({"option_id": "y"}), source }
}

#[test]
fn text_and_reasoning_are_opened_and_closed_once_each() {
    let id = MessageId::new();
    let told = run(
        telling(&[], &[]),
        &[
            delta(id, 0, DeltaKind::Reasoning, "hm"),
            delta(id, 0, DeltaKind::Reasoning, ""),
            text(id, 1, "a \"b\"\n"),
            text(id, 1, "ü"),
            completed(id, Role::Assistant),
            done(),
        ],
    );
    let reasoning =
        ["REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END"];
    let text = ["REASONING_END", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"];
    let end = ["TEXT_MESSAGE_END", "RUN_FINISHED"];
    assert_eq!(kinds(&told), [&["RUN_STARTED"][..], &reasoning, &text, &end].concat());
    assert_eq!(joined(&told, "TEXT_MESSAGE_CONTENT"), "a \"b\"\nü");
    assert_eq!(
        (&told[0]["threadId"], &told[0]["runId"], &told[0]["protocolVersion"]),
        (&"t".into(), &"r".into(), &"1.0".into())
    );
    let last = told.last().unwrap();
    assert_eq!(last["outcome"], json!({"type": "success"}));
    assert_eq!((&last["usage"][0]["inputTokens"], &last["usage"][0]["totalTokens"]), (&json!(5), &json!(8)));
}

#[test]
fn the_input_of_a_call_is_told_once_and_only_where_it_goes_on() {
    let id = MessageId::new();
    let args = |events: &[EventBody]| {
        let told = run(telling(&[], &[]), events);
        assert_eq!(told.iter().filter(|line| line["type"] == "TOOL_CALL_RESULT").count(), 1);
        let starts: Vec<Value> = told.iter().filter(|line| line["type"] == "TOOL_CALL_START").cloned().collect();
        (joined(&told, "TOOL_CALL_ARGS"), starts)
    };
    let whole = json!({"command": "ls"});
    let (told, starts) =
        args(&[text(id, 0, "I look"), tool("c", whole.clone()), result("c", json!("a b"), false), done()]);
    assert_eq!(told, whole.to_string());
    assert_eq!(starts[0]["parentMessageId"], format!("{id}.0"), "a call belongs to the text in front of it");
    // As the model writes it, and then whole once more.
    let prefixes = ["{\"com", "{\"com", "{\"command\": \"ls\"}"].map(|so_far| written("c", so_far));
    let begun =
        [&[tool("c", json!({}))][..], &prefixes, &[tool("c", whole.clone()), result("c", Value::Null, false), done()]];
    assert_eq!(args(&begun.concat()).0, "{\"command\": \"ls\"}");
    // What does not go on from what was told is not told.
    let other = [tool("c", whole.clone()), written("c", "{\"x"), result("c", Value::Null, false), done()];
    assert_eq!(args(&other).0, whole.to_string());
    // Without any input there is none.
    assert_eq!(args(&[tool("c", Value::Null), result("c", Value::Null, false), done()]).0, "");
}

#[test]
fn a_result_is_a_text_and_says_when_it_is_an_error() {
    let outputs = [(json!("a"), "a"), (Value::Null, ""), (json!({"x": [1]}), "{\"x\":[1]}")];
    for (output, content) in outputs {
        let told = run(telling(&[], &[]), &[tool("c", Value::Null), result("c", output, true), done()]);
        let line = told.iter().find(|line| line["type"] == "TOOL_CALL_RESULT").unwrap();
        assert_eq!((&line["content"], &line["metadata"]), (&json!(content), &json!({"isError": true})));
        assert_eq!((&line["toolCallId"], &line["messageId"]), (&json!("c"), &json!("c.result")));
    }
}

#[test]
fn a_question_ends_the_run_and_the_next_one_tells_the_rest() {
    let (id, one, two) = (MessageId::new(), choice(ChoiceKind::Permission), choice(ChoiceKind::Question));
    let events = [
        text(id, 0, "a"),
        tool("c", json!({"command": "ls"})),
        asked(&one),
        resolved(&one, ResolvedBy::Api),
        result("c", json!("x"), false),
        text(id, 2, "b"),
        asked(&two),
        // Told while the question is open.
        text(id, 2, "c"),
        resolved(&two, ResolvedBy::Api),
        text(id, 2, "d"),
        completed(id, Role::Assistant),
        done(),
    ];
    let runs = [&[][..], &[one.id], &[two.id]].map(|behind| run(telling(behind, &[]), &events));
    assert_eq!(runs.each_ref().map(|run| joined(run, "TEXT_MESSAGE_CONTENT")), ["a", "b", "cd"]);
    let interrupt = &runs[0].last().unwrap()["outcome"]["interrupts"][0];
    assert_eq!((&interrupt["id"], &interrupt["toolCallId"]), (&json!(one.id), &json!("c")));
    assert_eq!((&interrupt["reason"], &interrupt["message"]), (&json!("tool_call"), &json!("May it?\nls")));
    assert_eq!(interrupt["expiresAt"], "1970-01-01T00:00:01.000Z");
    assert_eq!(runs[1].last().unwrap()["outcome"]["interrupts"][0]["reason"], "input_required");
    assert_eq!(kinds(&runs[1])[..3], ["RUN_STARTED", "CUSTOM", "TOOL_CALL_RESULT"], "the call was closed before");
    let ids = runs
        .each_ref()
        .map(|run| run.iter().find(|line| line["type"] == "TEXT_MESSAGE_START").unwrap()["messageId"].clone());
    assert!(ids[1] != ids[2], "a piece that goes on in another run is another message");
    assert_eq!(runs[2].last().unwrap()["outcome"]["type"], "success");
    // Live, where nothing comes after the question for now.
    let live = run(telling(&[], &[]), &events[..3]);
    assert_eq!(live, {
        let mut first = runs[0].clone();
        first[0] = live[0].clone();
        first
    });
    // Two answers at once: what is behind the later one.
    assert_eq!(joined(&run(telling(&[two.id, one.id], &[]), &events), "TEXT_MESSAGE_CONTENT"), "cd");
}

#[test]
fn what_a_stored_rule_answers_is_no_interrupt() {
    let (id, choice) = (MessageId::new(), choice(ChoiceKind::Permission));
    let told = run(telling(&[], &[]), &[asked(&choice), resolved(&choice, ResolvedBy::Rule), text(id, 0, "a"), done()]);
    assert_eq!(told.last().unwrap()["outcome"]["type"], "success");
}

#[test]
fn every_end_of_a_turn_is_an_end_of_the_run() {
    let id = MessageId::new();
    let end = |telling, body| {
        let told = run(telling, &[text(id, 0, "a"), body]);
        told.last().unwrap().clone()
    };
    let error = TurnError { code: "agent_error".into(), message: "it broke".into() };
    let failed = end(telling(&[], &[]), finished(TurnState::Failed, Some(error)));
    assert_eq!((&failed["code"], &failed["message"]), (&json!("agent_error"), &json!("it broke")));
    assert_eq!(end(telling(&[], &[]), finished(TurnState::Interrupted, None))["code"], "interrupted");
    let cancelled = || finished(TurnState::Cancelled, None);
    assert_eq!(end(telling(&[], &[]), cancelled())["outcome"], json!({"type": "cancelled"}));
    let old = Telling { declares_version: false, ..telling(&[], &[]) };
    assert_eq!(end(old, cancelled())["code"], "cancelled", "a client before 1.0 knows no such outcome");
    // The turn has no end that could be told.
    assert_eq!(run(telling(&[], &[]), &[text(id, 0, "a")]).last().unwrap()["type"], "RUN_ERROR");
}

#[test]
fn a_stream_that_is_cut_says_so_even_before_its_first_event() {
    for events in [&[][..], &[text(MessageId::new(), 0, "a")]] {
        let (mut narrator, mut out) = (AgUi::new(telling(&[], &[])), Vec::new());
        events.iter().for_each(|body| narrator.event(&event(body.clone()), &mut out));
        narrator.cut(EndReason::ShuttingDown, &mut out);
        let told = read(&out);
        check(&told);
        assert_eq!(told.last().unwrap()["code"], "shutting_down");
    }
}

#[test]
fn a_client_that_has_the_beginning_gets_it_taken_out() {
    let (id, one) = (MessageId::new(), choice(ChoiceKind::Permission));
    let events = [
        delta(id, 0, DeltaKind::Reasoning, "hm"),
        text(id, 1, "abc"),
        tool("c", json!({"command": "ls"})),
        asked(&one),
        resolved(&one, ResolvedBy::Api),
        result("c", json!("x"), false),
        text(id, 3, "d"),
        done(),
    ];
    let call = |arguments: &str| json!([{"id": "c", "type": "function", "function": {"name": "bash", "arguments": arguments}}]);
    let user = json!({"id": "u", "role": "user", "content": "go", "x": null});
    let thought = |content: &str| json!({"id": format!("{id}.0"), "role": "reasoning", "content": content});
    let said = |content: &str, arguments: &str| json!({"id": format!("{id}.1"), "role": "assistant", "content": content, "toolCalls": call(arguments)});
    let came = json!({"id": "c.result.r1", "role": "tool", "toolCallId": "c", "content": "x"});
    let rest = |content: &str| json!({"id": format!("{id}.3.r1"), "role": "assistant", "content": content});
    let snapshot = |told: &[Value]| {
        told.iter().find(|line| line["type"] == "MESSAGES_SNAPSHOT").map(|line| line["messages"].clone())
    };

    let first = [user.clone(), thought("hm"), said("ab", "{\"com")];
    let again = run(telling(&[], &first), &events);
    assert_eq!(snapshot(&again), Some(json!([user, thought(""), said("", "")])));
    // The second run leaves alone what the first one has told.
    let second = [user.clone(), thought("hm"), said("abc", "{}"), came, rest("d")];
    let again = run(telling(&[one.id], &second), &events);
    assert_eq!(snapshot(&again), Some(json!([user, thought("hm"), said("abc", "{}"), rest("")])));
    // A run of another name comes when all that was asked is settled: it tells all of the turn.
    let joined = Some(Known { last_seq: 1, pending: vec![] });
    let whole = run(Telling { joined, ..telling(&[], &second) }, &events);
    assert_eq!(snapshot(&whole), Some(json!([user, thought(""), said("", ""), rest("")])));
    assert_eq!(whole.last().unwrap()["outcome"]["type"], "success");
    // What was open then, or is asked later, ends it.
    for joined in [Known { last_seq: 1, pending: vec![one.id] }, Known { last_seq: 0, pending: vec![] }] {
        let told = run(Telling { joined: Some(joined), ..telling(&[], &second) }, &events);
        assert_eq!(told.last().unwrap()["outcome"]["type"], "interrupt");
    }
    // Nothing was told yet, or somebody else has said it.
    let foreign = json!({"id": "x", "role": "assistant", "content": "y"});
    for none in [&[user.clone()][..], &[user, foreign]] {
        assert_eq!(snapshot(&run(telling(&[], none), &events)), None);
    }
}

fn input(change: Value) -> RunAgentInput {
    let mut body = json!({"threadId": "web:1", "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": "u1", "role": "user", "content": "hi"}]});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    serde_json::from_value(body).unwrap()
}

#[test]
fn the_last_message_of_the_user_is_what_is_sent() {
    let old = json!({"id": "u1", "role": "user", "content": "hi"});
    let reply = json!({"id": "a", "role": "assistant", "content": "ho"});
    let new = json!({"id": "u2", "role": "user", "content": [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}, "metadata": {"filename": "x.png"}},
        {"type": "document", "source": {"type": "url", "value": "data:text/plain;base64,aGk="}},
        {"type": "binary", "mimeType": "audio/mpeg", "data": "aGk="},
    ]});
    let props = json!({"agent": "echo", "model": null, "mine": 1});
    let run = input(json!({"messages": [old, reply, new], "forwardedProps": props})).read().unwrap();
    let Asks::Message { message, is_new } = run.asks else { panic!("a message") };
    assert!(is_new && run.up_to_user == 3);
    assert_eq!((message.text.as_deref(), message.client_id.as_deref()), (Some("see"), Some("u2")));
    assert_eq!((message.agent.as_deref(), message.model), (Some("echo"), None));
    let files: Vec<_> = message.attachments.iter().map(|file| (file.name.as_str(), file.media_type.as_str())).collect();
    assert_eq!(files, [("x.png", "image/png"), ("file-2.txt", "text/plain"), ("file-3.mpeg", "audio/mpeg")]);

    let run = input(json!({"messages": [old, reply]})).read().unwrap();
    assert!(matches!(run.asks, Asks::Message { is_new: false, .. }) && run.up_to_user == 1);
    let answer = json!([{"interruptId": "choice_1", "status": "cancelled"}]);
    assert!(matches!(input(json!({"messages": [], "resume": answer})).read().unwrap().asks, Asks::Answers(_)));
}

#[test]
fn what_cannot_be_a_run_is_refused_with_its_field() {
    let url = json!([{"type": "image", "source": {"type": "url", "value": "https://example.com/a.png"}}]);
    let message = |content: Value| json!([{"id": "u", "role": "user", "content": content}]);
    let refused = [
        (json!({"threadId": "a b"}), Code::InvalidId, "threadId"),
        (json!({"runId": " "}), Code::InvalidParameter, "runId"),
        (json!({"runId": "x".repeat(201)}), Code::InvalidParameter, "runId"),
        (json!({"messages": []}), Code::MissingText, "messages"),
        (json!({"messages": [{"id": "s", "role": "system", "content": "x"}]}), Code::MissingText, "messages"),
        (json!({"messages": [{"content": "x"}]}), Code::InvalidJson, "messages[0]"),
        (json!({"messages": message(json!(5))}), Code::InvalidJson, "messages[0]"),
        (json!({"messages": message(url)}), Code::InvalidAttachment, "messages[0].content[0]"),
        (json!({"forwardedProps": {"model": 5}}), Code::InvalidJson, "forwardedProps.model"),
    ];
    for (change, code, field) in refused {
        let error = input(change.clone()).read().unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (code, &json!(field)), "{change}");
    }
}

#[test]
fn answers_are_read_by_what_was_asked() {
    let answer = |kind, resume: Value| {
        let mut resume = resume;
        resume["interruptId"] = "x".into();
        serde_json::from_value::<Resume>(resume).unwrap().answer(&choice(kind))
    };
    let resolved = |payload: Value| json!({"status": "resolved", "payload": payload});
    let allow = |allow| ChoiceAnswer { allow: Some(allow), ..ChoiceAnswer::default() };
    for yes in [json!({"allow": true}), json!(true), json!({"approved": true})] {
        assert_eq!(answer(ChoiceKind::Permission, resolved(yes)), Ok(allow(true)));
    }
    let answers = Some(json!({"q": "this"}).as_object().unwrap().clone());
    for this in [json!({"answers": {"q": "this"}}), json!("this")] {
        assert_eq!(answer(ChoiceKind::Question, resolved(this)).unwrap().answers, answers);
    }
    for kind in [ChoiceKind::Permission, ChoiceKind::Question] {
        assert!(answer(kind, json!({"status": "cancelled"})).unwrap().declined);
        for bad in [
            json!({"status": "resolved"}),
            resolved(json!(7)),
            resolved(json!({"maybe": 1})),
            resolved(json!({"declined": true})),
        ] {
            assert_eq!(answer(kind, bad).unwrap_err().code, Code::InvalidChoicePayload);
        }
    }
}
