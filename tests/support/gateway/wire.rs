//! The forms of the contract: which fields an event, a snapshot, a turn have, and what is true of a whole log.

use serde_json::Value;

/// The fields of `data` of every event type.
pub fn fields_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "session.created" | "session.updated" | "session.reset" | "session.archived" | "session.deleted" => {
            &["changed"]
        }
        "turn.queued" => &["turn", "position"],
        "turn.started" => &["agent", "model", "cold_start", "resumed"],
        "turn.updated" => &["turn"],
        "turn.moved" => &["turn_id", "position"],
        "turn.steered" => &["text", "source"],
        "turn.finished" => &["state", "reason", "error", "usage", "summary"],
        "message.started" => &["message_id", "role"],
        "message.delta" => &["message_id", "part", "kind", "delta"],
        "message.completed" => &["message"],
        "tool.started" => &["call_id", "name", "title", "kind", "input", "input_summary"],
        "tool.delta" => &["call_id", "input_so_far"],
        "tool.updated" => &["call_id", "status", "output"],
        "tool.finished" => &["call_id", "output", "is_error"],
        "choice.requested" => &["choice"],
        "choice.resolved" => &["choice_id", "outcome", "source"],
        "agent.status" => &["status", "reason"],
        "error" => &["code", "message"],
        "session.hello" => &["snapshot", "oldest_seq", "last_seq", "at"],
        "session.state" => &["snapshot"],
        "stream.gap" => &["from", "to", "reason"],
        "stream.end" => &["reason", "retry"],
        other => panic!("no such type in the contract: {other}"),
    }
}

/// The fields of a snapshot.
pub const SNAPSHOT: &[&str] = &[
    "key",
    "id",
    "title",
    "owner",
    "visibility",
    "org_id",
    "agent",
    "model",
    "mode",
    "permission_mode",
    "profile",
    "project_id",
    "metadata",
    "archived",
    "archived_at",
    "primary",
    "created_at",
    "updated_at",
    "last_active_at",
    "message_count",
    "last_message_preview",
    "busy",
    "queue_depth",
    "live",
    "subscribers",
    "last_seq",
    "current_turn",
    "agent_status",
    "usage",
    "budget",
];

/// The fields of a turn.
pub const TURN: &[&str] = &[
    "id",
    "session",
    "state",
    "source",
    "text",
    "agent",
    "model",
    "position",
    "attempt",
    "created_at",
    "started_at",
    "finished_at",
    "error",
    "reason",
    "summary",
    "usage",
    "continued_from",
];

/// The fields of a choice.
pub const CHOICE: &[&str] = &[
    "id",
    "session",
    "turn_id",
    "kind",
    "title",
    "tool",
    "input_summary",
    "options",
    "questions",
    "created_at",
    "expires_at",
];

/// The fields of a usage.
pub const USAGE: &[&str] = &["input_tokens", "output_tokens", "cost_usd", "context_used", "context_max"];

/// All these fields are there. More may be: new ones may appear.
#[track_caller]
pub fn has(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for field in fields {
        assert!(object.contains_key(*field), "{field} is missing in {value}");
    }
}

/// RFC 3339 in UTC with milliseconds.
#[track_caller]
pub fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000Z", "{text}");
}

/// A TypeID: the prefix, `_`, 26 characters of base32.
#[track_caller]
pub fn is_id(value: &Value, prefix: &str) {
    let text = value.as_str().unwrap_or_else(|| panic!("no id: {value}"));
    let (kind, rest) = text.rsplit_once('_').unwrap_or_else(|| panic!("no id: {text}"));
    let base32 = rest.bytes().all(|b| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&b));
    assert!(kind == prefix && rest.len() == 26 && base32, "no id of {prefix}: {text}");
}

/// An event has the fields of the contract and no others, in their order; so has its `data`.
#[track_caller]
pub fn is_event(event: &Value) {
    let names: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["seq", "type", "session", "turn_id", "at", "data"], "{event}");
    is_frame(event);
}

/// A control frame has the fields of the contract but `seq`.
#[track_caller]
pub fn is_control(frame: &Value) {
    let names: Vec<&str> = frame.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(!names.contains(&"seq") && names.contains(&"type") && names.contains(&"data"), "{frame}");
    is_frame(frame);
}

#[track_caller]
fn is_frame(frame: &Value) {
    let kind = frame["type"].as_str().unwrap();
    let fields: Vec<&str> = frame["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, fields_of(kind), "{frame}");
    is_time(&frame["at"]);
    match kind {
        "turn.queued" | "turn.updated" => has(&frame["data"]["turn"], TURN),
        "turn.finished" => has(&frame["data"]["usage"], USAGE),
        "choice.requested" => has(&frame["data"]["choice"], CHOICE),
        "session.hello" | "session.state" => has(&frame["data"]["snapshot"], SNAPSHOT),
        _ => {}
    }
}

/// What is true of every log: numbers without a gap from `first` on, each event of its form, each turn queued before it
/// starts and started before it finishes, at most one at a time, none finished twice, deltas only of open messages,
/// nothing left open when a turn is over.
#[track_caller]
pub fn is_log(events: &[Value], first: u64) {
    let mut running: Option<Value> = None;
    let (mut queued, mut over): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (mut messages, mut tools, mut choices): (Vec<Value>, Vec<Value>, Vec<Value>) = <_>::default();
    for (seq, event) in (first..).zip(events) {
        assert_eq!(event["seq"], seq, "a gap or a duplicate: {event}");
        is_event(event);
        let (data, turn) = (&event["data"], &event["turn_id"]);
        let close = |open: &mut Vec<Value>, id: &Value| {
            let at = open.iter().position(|known| known == id);
            open.remove(at.unwrap_or_else(|| panic!("was never opened: {event}")));
        };
        match event["type"].as_str().unwrap() {
            "turn.queued" => queued.push(turn.clone()),
            "turn.started" => {
                assert!(running.is_none(), "two at a time: {event}");
                close(&mut queued, turn);
                running = Some(turn.clone());
            }
            "turn.finished" => {
                assert!(!over.contains(turn), "finished twice: {event}");
                match running.take_if(|running| running == turn) {
                    Some(_) => {
                        let open = [&messages, &tools, &choices];
                        assert!(open.iter().all(|open| open.is_empty()), "left open: {open:?} at {event}");
                    }
                    None => close(&mut queued, turn),
                }
                over.push(turn.clone());
            }
            "message.started" => messages.push(data["message_id"].clone()),
            "message.delta" => assert!(messages.contains(&data["message_id"]), "of no open message: {event}"),
            "message.completed" => close(&mut messages, &data["message"]["id"]),
            "tool.started" if !tools.contains(&data["call_id"]) => tools.push(data["call_id"].clone()),
            "tool.finished" => close(&mut tools, &data["call_id"]),
            "choice.requested" => choices.push(data["choice"]["id"].clone()),
            "choice.resolved" => close(&mut choices, &data["choice_id"]),
            _ => {}
        }
        let of_turn = ["turn.", "message.", "tool.", "choice."];
        let kind = event["type"].as_str().unwrap();
        assert_eq!(turn.is_string(), of_turn.iter().any(|prefix| kind.starts_with(prefix)), "{event}");
    }
}

/// The types of events, in order.
pub fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// The events of one type.
pub fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// The deltas of a turn, joined, of one kind.
pub fn said(events: &[Value], turn: &str, kind: &str) -> String {
    let deltas = of_type(events, "message.delta").into_iter();
    let deltas = deltas.filter(|event| event["turn_id"] == turn && event["data"]["kind"] == kind);
    deltas.map(|event| event["data"]["delta"].as_str().unwrap()).collect()
}
