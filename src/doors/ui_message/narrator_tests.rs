//! What the parts of a turn are.

use serde_json::{Value, json};

use super::{Begin, Narrator, Version};
use crate::{
    doors::narration::{Known, Narrator as _},
    ids::{ChoiceId, MessageId, TurnId},
    protocol::{
        Choice, ChoiceKind, ChoiceOption, Event, EventBody, Frame, Message, OptionKind, Part, ResolvedBy, Role,
        ToolStatus, TurnError, TurnState, Usage, event::DeltaKind, frame::EndReason,
    },
    timestamp::Timestamp,
};

/// A turn that is told.
struct Told {
    narrator: Narrator,
    out: Vec<u8>,
    seq: u64,
}

impl Told {
    fn new(version: Version, turn: TurnId, begin: Begin) -> Self {
        Self { narrator: Narrator::new(version, turn, begin), out: Vec::new(), seq: 0 }
    }

    fn any() -> Self {
        Self::new(Version::Any, TurnId::new(), Begin::AtStart)
    }

    fn tell(mut self, bodies: impl IntoIterator<Item = EventBody>) -> Self {
        for body in bodies {
            self.seq += 1;
            let event = Event { seq: self.seq, body, session: "k".parse().unwrap(), turn_id: None, at: Timestamp(0) };
            self.narrator.frame(&Frame::encode(&event), &mut self.out);
        }
        self
    }

    fn finish(mut self) -> Vec<Value> {
        self.narrator.finish(&mut self.out);
        self.parts()
    }

    fn parts(self) -> Vec<Value> {
        let text = String::from_utf8(self.out).unwrap();
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        events.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }
}

fn started(id: MessageId) -> EventBody {
    EventBody::MessageStarted { message_id: id, role: Role::Assistant }
}

fn delta(message_id: MessageId, part: u32, kind: DeltaKind, delta: &str) -> EventBody {
    EventBody::MessageDelta { message_id, part, kind, delta: delta.into() }
}

fn text(id: MessageId, part: u32, words: &str) -> EventBody {
    delta(id, part, DeltaKind::Text, words)
}

fn completed(id: MessageId, role: Role, parts: Vec<Part>) -> EventBody {
    let message = Message { id, role, parts, turn_id: None, agent: None, client_id: None, created_at: Timestamp(0) };
    EventBody::MessageCompleted { message: Box::new(message) }
}

fn call(id: &str, input: Value) -> EventBody {
    let (call_id, name, title) = (id.into(), "bash".into(), Some("A title".into()));
    EventBody::ToolStarted { call_id, name, title, kind: None, input, input_summary: None }
}

fn result(id: &str, output: Value, is_error: bool) -> EventBody {
    EventBody::ToolFinished { call_id: id.into(), output, is_error }
}

fn ended(state: TurnState, reason: Option<&str>, error: Option<&str>) -> EventBody {
    let error = error.map(|message| TurnError { code: "agent_error".into(), message: message.into() });
    EventBody::TurnFinished { state, reason: reason.map(str::to_owned), error, usage: Usage::default(), summary: None }
}

fn well() -> EventBody {
    ended(TurnState::Completed, None, None)
}

fn choice(id: ChoiceId, kind: ChoiceKind, tool: Option<&str>) -> EventBody {
    let choice = Choice {
        id,
        session: "k".parse().unwrap(),
        turn_id: TurnId::new(),
        kind,
        title: "May I?".into(),
        tool: tool.map(str::to_owned),
        input_summary: None,
        options: vec![ChoiceOption { id: "y".into(), label: "Yes".into(), kind: OptionKind::AllowOnce }],
        questions: None,
        created_at: Timestamp(0),
        expires_at: Timestamp(0),
    };
    EventBody::ChoiceRequested { choice: Box::new(choice) }
}

fn settled(choice_id: ChoiceId, kind: &str) -> EventBody {
    EventBody::ChoiceResolved { choice_id, outcome: json!({"option_id": "y", "kind": kind}), source: ResolvedBy::Api }
}

fn types(parts: &[Value]) -> Vec<&str> {
    parts.iter().map(|part| part["type"].as_str().or(part.as_str()).unwrap()).collect()
}

#[test]
fn a_turn_is_the_common_parts_and_not_a_key_more() {
    let id = MessageId::new();
    let parts = Told::any().tell([
        started(id),
        delta(id, 0, DeltaKind::Reasoning, "hm"),
        text(id, 1, "a \"b\"\n"),
        text(id, 1, "ü\u{1}"),
        call("c", json!({"x": 1})),
        EventBody::ToolUpdated { call_id: "c".into(), status: ToolStatus::Running, output: json!("half") },
        result("c", json!("out"), false),
        text(id, 3, "end"),
        completed(id, Role::Assistant, vec![Part::Text { text: "not told twice".into() }]),
        well(),
    ]);
    let tool = |kind: &str, more: Value| {
        let mut part = json!({"type": kind, "toolCallId": "c", "providerExecuted": true, "dynamic": true});
        part.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        part
    };
    assert_eq!(
        parts.finish(),
        [
            json!({"type": "start", "messageId": id.to_string()}),
            json!({"type": "start-step"}),
            json!({"type": "reasoning-start", "id": "reasoning_0"}),
            json!({"type": "reasoning-delta", "id": "reasoning_0", "delta": "hm"}),
            json!({"type": "reasoning-end", "id": "reasoning_0"}),
            json!({"type": "text-start", "id": "text_1"}),
            json!({"type": "text-delta", "id": "text_1", "delta": "a \"b\"\n"}),
            json!({"type": "text-delta", "id": "text_1", "delta": "ü\u{1}"}),
            json!({"type": "text-end", "id": "text_1"}),
            tool("tool-input-start", json!({"toolName": "bash"})),
            tool("tool-input-available", json!({"toolName": "bash", "input": {"x": 1}})),
            tool("tool-output-available", json!({"output": "out"})),
            json!({"type": "finish-step"}),
            json!({"type": "start-step"}),
            json!({"type": "text-start", "id": "text_3"}),
            json!({"type": "text-delta", "id": "text_3", "delta": "end"}),
            json!({"type": "text-end", "id": "text_3"}),
            json!({"type": "finish-step"}),
            json!({"type": "finish"}),
            json!("[DONE]"),
        ]
    );
}

#[test]
fn a_version_that_was_named_gets_what_it_knows() {
    let id = MessageId::new();
    let turn = |version| {
        let told = Told::new(version, TurnId::new(), Begin::AtStart);
        told.tell([
            started(id),
            call("c", json!({"x": 1})),
            EventBody::ToolUpdated { call_id: "c".into(), status: ToolStatus::Running, output: json!("half") },
            result("c", json!("out"), false),
            ended(TurnState::Completed, Some("max_tokens"), None),
        ])
        .finish()
    };
    let five = turn(Version::V5);
    assert_eq!((&five[4]["preliminary"], &five[3]["title"]), (&json!(true), &Value::Null));
    assert_eq!(five[7], json!({"type": "finish", "finishReason": "length"}));
    assert_eq!(turn(Version::V6)[3]["title"], "A title");
}

#[test]
fn the_input_of_a_call_comes_piece_by_piece_and_then_whole() {
    let id = MessageId::new();
    let writing = |so_far: &str| EventBody::ToolDelta { call_id: "c".into(), input_so_far: so_far.into() };
    let parts = Told::any().tell([
        started(id),
        call("c", json!({})),
        writing("{\"a"),
        writing("{\"a\":1"),
        writing("{\"b"),
        writing("{\"b\":2"),
        call("c", json!({"b": 2})),
        // Nothing new: nothing is told.
        call("c", json!({"b": 2})),
        result("c", json!({"code": 1}), true),
        result("unknown", Value::Null, false),
    ]);
    let parts = parts.parts();
    assert_eq!(
        types(&parts)[2..],
        ["tool-input-start", "tool-input-delta", "tool-input-delta", "tool-input-available", "tool-output-error"]
    );
    assert_eq!((&parts[3]["inputTextDelta"], &parts[4]["inputTextDelta"]), (&json!("{\"a"), &json!("\":1")));
    assert_eq!((&parts[5]["input"], &parts[6]["errorText"]), (&json!({"b": 2}), &json!("{\"code\":1}")));
    // A call without input gets an empty one before its result.
    let bare = Told::any().tell([started(id), call("d", Value::Null), result("d", json!(" "), true)]).parts();
    assert_eq!((&bare[3]["input"], &bare[4]["errorText"]), (&json!({}), &json!("The tool failed.")));
}

#[test]
fn calls_at_the_same_time_are_one_step() {
    let id = MessageId::new();
    let parts = Told::any().tell([
        started(id),
        call("a", json!({"n": 1})),
        call("b", json!({"n": 2})),
        result("a", json!(1), false),
        text(id, 2, "meanwhile"),
        result("b", json!(2), false),
        text(id, 2, " after"),
    ]);
    let parts = parts.parts();
    assert_eq!(
        types(&parts)[6..],
        [
            "tool-output-available",
            "text-start",
            "text-delta",
            "tool-output-available",
            "text-end",
            "finish-step",
            "start-step",
            "text-start",
            "text-delta"
        ]
    );
}

#[test]
fn a_turn_that_did_not_end_well_is_no_finished_message() {
    let id = MessageId::new();
    let end = |version, body| {
        Told::new(version, TurnId::new(), Begin::AtStart).tell([started(id), text(id, 0, "x"), body]).finish()
    };
    let failed = end(Version::V7, ended(TurnState::Failed, None, Some("no luck")));
    assert_eq!(types(&failed)[4..], ["text-end", "finish-step", "error", "[DONE]"]);
    assert_eq!(failed[6]["errorText"], "no luck");
    let interrupted = end(Version::Any, ended(TurnState::Interrupted, Some("server_restart"), None));
    assert_eq!(
        interrupted[6],
        json!({"type": "error", "errorText": "The turn was interrupted (server_restart). Send it again."})
    );
    assert_eq!(end(Version::Any, ended(TurnState::Cancelled, Some("aborted"), None))[6], json!({"type": "abort"}));
    let told = end(Version::V6, ended(TurnState::Cancelled, Some("aborted"), None));
    assert_eq!(told[6], json!({"type": "abort", "reason": "aborted"}));
    // Nothing was said: there is no message, only what went wrong.
    let nothing = Told::any().tell([ended(TurnState::Failed, None, Some("no agent"))]).finish();
    assert_eq!(types(&nothing), ["error", "[DONE]"]);
    // Lost, not over: no mark of an end.
    let mut cut = Told::any().tell([started(id), text(id, 0, "x")]);
    cut.narrator.cut(EndReason::ShuttingDown, &mut cut.out);
    assert_eq!(types(&cut.parts())[3..], ["text-delta", "text-end", "error"]);
    let lost = Told::any().tell([started(id), text(id, 0, "x")]).finish();
    assert_eq!(types(&lost)[4..], ["text-end", "error", "[DONE]"]);
}

#[test]
fn messages_that_came_whole_and_files_are_told() {
    let id = MessageId::new();
    let file = |content: Option<&str>| Part::File {
        name: "a.png".into(),
        media_type: "image/png".into(),
        bytes: 3,
        content_base64: content.map(str::to_owned),
    };
    let whole =
        vec![Part::Text { text: "all".into() }, Part::Reasoning { text: "why".into() }, file(Some("YWJj")), file(None)];
    let parts = Told::any().tell([started(id), completed(id, Role::Assistant, whole), well()]).parts();
    assert_eq!(
        types(&parts)[2..],
        [
            "text-start",
            "text-delta",
            "text-end",
            "reasoning-start",
            "reasoning-delta",
            "reasoning-end",
            "file",
            "finish-step",
            "finish"
        ]
    );
    assert_eq!(parts[8], json!({"type": "file", "url": "data:image/png;base64,YWJj", "mediaType": "image/png"}));
    // After pieces only the file is news, and what the user said never is.
    let parts = Told::any().tell([
        completed(MessageId::new(), Role::User, vec![Part::Text { text: "question".into() }, file(Some("YWJj"))]),
        started(id),
        text(id, 0, "all"),
        completed(id, Role::Assistant, vec![Part::Text { text: "all".into() }, file(Some("YWJj"))]),
    ]);
    assert_eq!(types(&parts.parts()), ["start", "start-step", "text-start", "text-delta", "text-end", "file"]);
}

#[test]
fn questions_are_data_and_change_when_they_are_settled() {
    let (id, turn) = (ChoiceId::new(), TurnId::new());
    let told = Told::new(Version::Any, turn, Begin::AtStart);
    let parts = told.tell([choice(id, ChoiceKind::Permission, Some("bash")), settled(id, "allow_once")]).parts();
    assert_eq!(types(&parts), ["start", "start-step", "data-choice", "data-choice"]);
    assert_eq!(parts[0]["messageId"], turn.to_string(), "the agent has not said a word yet");
    assert_eq!((&parts[2]["id"], &parts[2]["data"]["outcome"]), (&json!(id.to_string()), &Value::Null));
    assert_eq!((&parts[3]["id"], &parts[3]["data"]["source"]), (&json!(id.to_string()), &json!("api")));
    assert_eq!(parts[3]["data"]["choice"]["title"], "May I?");
}

#[test]
fn an_approval_ends_the_answer_and_the_next_one_goes_on() {
    let (turn, id, asked, question) = (TurnId::new(), MessageId::new(), ChoiceId::new(), ChoiceId::new());
    let events = || {
        [
            started(id),
            text(id, 0, "before"),
            choice(question, ChoiceKind::Question, None),
            call("c", json!({"x": 1})),
            choice(asked, ChoiceKind::Permission, Some("bash")),
        ]
    };
    let after = || [settled(asked, "allow_once"), result("c", json!("out"), false), text(id, 2, "after"), well()];
    let first = Told::new(Version::V6, turn, Begin::AtStart).tell(events());
    assert!(first.narrator.is_over());
    let first = first.parts();
    let end: Vec<&Value> = first.iter().rev().take(4).rev().collect();
    assert_eq!(
        end,
        [
            &json!({"type": "tool-approval-request", "approvalId": asked.to_string(), "toolCallId": "c"}),
            &json!({"type": "finish-step"}),
            &json!({"type": "finish", "finishReason": "tool-calls"}),
            &json!("[DONE]"),
        ]
    );
    let next = Told::new(Version::V6, turn, Begin::AfterChoices(vec![asked])).tell(events()).tell(after());
    assert!(!next.narrator.is_over());
    let next = next.finish();
    assert_eq!(
        types(&next),
        [
            "start",
            "data-choice",
            "tool-output-available",
            "start-step",
            "text-start",
            "text-delta",
            "text-end",
            "finish-step",
            "finish",
            "[DONE]"
        ]
    );
    assert_eq!(next[0]["messageId"], first[0]["messageId"], "the same message goes on");
    assert_eq!(next[5]["delta"], "after");
}

#[test]
fn who_takes_a_turn_up_again_is_told_past_what_is_answered() {
    let (turn, id, first, second) = (TurnId::new(), MessageId::new(), ChoiceId::new(), ChoiceId::new());
    let events = || {
        let ask = |id| choice(id, ChoiceKind::Permission, Some("bash"));
        [ask(first), settled(first, "allow_once"), started(id), text(id, 0, "between"), ask(second)]
    };
    let again = |last_seq, pending: Vec<ChoiceId>| {
        let narrator = Narrator::again(Version::V6, turn, Known { last_seq, pending });
        Told { narrator, out: Vec::new(), seq: 0 }.tell(events())
    };
    // The second one waits, or came after the look.
    for told in [again(5, vec![second]), again(4, Vec::new())] {
        assert!(told.narrator.is_over());
        let parts = told.parts();
        assert!(parts.iter().any(|part| part["delta"] == "between"), "{parts:?}");
        let asked: Vec<&Value> = parts.iter().filter(|part| part["type"] == "tool-approval-request").collect();
        assert_eq!((asked.len(), &asked[0]["approvalId"]), (1, &json!(second.to_string())), "{parts:?}");
    }
    let told = again(5, Vec::new()).tell([settled(second, "allow_once"), text(id, 2, "after"), well()]).finish();
    assert!(told.iter().any(|part| part["delta"] == "after") && told.last() == Some(&json!("[DONE]")), "{told:?}");
}

#[test]
fn a_permission_about_no_call_is_a_call_of_its_own() {
    let (turn, asked) = (TurnId::new(), ChoiceId::new());
    let ask = || choice(asked, ChoiceKind::Permission, Some("echo"));
    let first = Told::new(Version::V6, turn, Begin::AtStart).tell([ask()]).parts();
    assert_eq!(types(&first)[3..6], ["tool-input-start", "tool-input-available", "tool-approval-request"]);
    assert_eq!((&first[4]["toolName"], &first[5]["toolCallId"]), (&json!("echo"), &json!(asked.to_string())));
    for (kind, told) in [("allow_once", "tool-output-available"), ("reject_once", "tool-output-denied")] {
        let next = Told::new(Version::V6, turn, Begin::AfterChoices(vec![asked]));
        let next = next.tell([ask(), settled(asked, kind), well()]).parts();
        assert_eq!(types(&next), ["start", "data-choice", told, "finish"]);
    }
}

#[test]
fn a_text_for_the_running_turn_is_a_part_of_it() {
    let (turn, first, second) = (TurnId::new(), MessageId::new(), MessageId::new());
    let steer = || EventBody::TurnSteered { text: "look there".into(), source: "api".into() };
    let events = || [started(first), text(first, 0, "a"), steer(), started(second), text(second, 0, "b"), well()];
    let any = Told::new(Version::Any, turn, Begin::AtStart).tell(events()).parts();
    assert_eq!(
        types(&any)[4..],
        [
            "text-end",
            "finish-step",
            "data-steer",
            "start-step",
            "text-start",
            "text-delta",
            "text-end",
            "finish-step",
            "finish"
        ]
    );
    assert_eq!(any[6]["data"], json!({"text": "look there", "source": "api"}));
    let seven = Told::new(Version::V7, turn, Begin::AtStart).tell(events()).parts();
    assert_eq!(seven[6]["parts"], json!([{"type": "text", "text": "look there"}]));
    // Who sent it gets what comes of it, as a message of its own.
    let own = Told::new(Version::Any, turn, Begin::AfterSteering("look there".into(), 3)).tell(events()).parts();
    assert_eq!(types(&own), ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
    assert_eq!((&own[0]["messageId"], &own[3]["delta"]), (&json!(second.to_string()), &json!("b")));
    let never = Told::new(Version::Any, turn, Begin::AfterSteering("other".into(), 3)).tell(events()).finish();
    assert_eq!(types(&never), ["error", "[DONE]"]);
}

#[test]
fn plans_and_faults_are_data() {
    let id = MessageId::new();
    let plan = |entries: Value| EventBody::AgentPlan { entries };
    let fault = EventBody::Error { code: "slow".into(), message: "again".into() };
    let parts = Told::any().tell([plan(json!([1])), fault, started(id), plan(json!([2]))]).parts();
    assert_eq!(types(&parts), ["data-fault", "start", "data-plan", "data-plan"]);
    assert_eq!(parts[0]["transient"], true, "there is no message to keep it in");
    assert_eq!((&parts[2]["id"], &parts[3]["id"]), (&json!("plan"), &json!("plan")));
}
