//! Records to put into a store, short to write.

use std::sync::Arc;

use greenroom::{
    ids::{ChoiceId, MessageId, SessionId, SessionKey, TurnId},
    protocol::{
        Attachment, Choice, ChoiceKind, ChoiceOption, Event, EventBody, Frame, Message, OptionKind, Part, Role,
        Snapshot, Turn, TurnState, Usage, Visibility, frame::Batch, session::AgentStatus, turn::AttachmentInfo,
    },
    store::{Append, BudgetRecord, MessageWrite, SessionRecord, SessionWrite, TurnRecord},
    timestamp::Timestamp,
};
use serde_json::{Map, Value, json};

pub const NOW: Timestamp = Timestamp(1_763_733_600_123_456);

pub fn key(name: &str) -> SessionKey {
    name.parse().unwrap()
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A session with every field filled.
pub fn session(key: &SessionKey) -> SessionRecord {
    let snapshot = Snapshot {
        key: key.clone(),
        id: SessionId::new(),
        title: format!("About {key}: 100%_\\"),
        owner: "local".into(),
        visibility: Visibility::Org,
        org_id: Some("acme".into()),
        agent: "echo".into(),
        model: Some("m".into()),
        mode: None,
        permission_mode: "default".into(),
        profile: Some("p".into()),
        project_id: None,
        metadata: object(json!({"a": [1, {"b": "\u{0}ü"}], "z": 1, "m": 2})),
        archived: false,
        archived_at: None,
        primary: false,
        created_at: NOW,
        updated_at: NOW.plus(std::time::Duration::from_micros(1)),
        last_active_at: NOW,
        message_count: 3,
        last_message_preview: Some("hallo".into()),
        busy: true,
        queue_depth: 2,
        live: false,
        subscribers: 0,
        last_seq: 0,
        current_turn: None,
        agent_status: AgentStatus::Working,
        usage: Usage { input_tokens: 7, cost_usd: Some(0.125), ..Usage::default() },
        budget: None,
    };
    SessionRecord {
        snapshot,
        brief: object(json!({"goal": "g"})),
        feedback: json!({"rating": "up", "comment": null}),
        budget: BudgetRecord { tokens: Some(70), ..BudgetRecord::default() },
    }
}

/// Events with the given texts, numbered from `after + 1`.
pub fn events(key: &SessionKey, after: u64, texts: &[&str]) -> Arc<Batch> {
    let frame = |(seq, text): (u64, &&str)| {
        let body = EventBody::Error { code: "x".into(), message: (*text).to_owned() };
        Frame::encode(&Event { seq, body, session: key.clone(), turn_id: None, at: NOW })
    };
    Batch::new((after + 1..).zip(texts).map(frame).collect())
}

pub fn json_of(batch: &Batch) -> Vec<String> {
    batch.frames().iter().map(|frame| frame.json.to_string()).collect()
}

/// An append of so many events and nothing else.
pub fn append(key: &SessionKey, epoch: i64, expected_seq: u64, texts: &[&str]) -> Append {
    Append {
        key: key.clone(),
        epoch,
        expected_seq,
        events: events(key, expected_seq, texts),
        at: NOW,
        session: SessionWrite::Keep,
        turns: Vec::new(),
        messages: Vec::new(),
        choices: Vec::new(),
        rules: Vec::new(),
        native_ids: Vec::new(),
        idempotency: Vec::new(),
        audit: Vec::new(),
        spends: Vec::new(),
        audience: None,
        deliveries: Vec::new(),
        dropped: Vec::new(),
        urgent: false,
    }
}

/// The append that makes a key with one event; after it epoch and `seq` are 1.
pub fn create(record: &SessionRecord) -> Append {
    let mut first = append(&record.snapshot.key, 0, 0, &["created"]);
    first.session = SessionWrite::Create(Box::new(record.clone()));
    first
}

/// What the store gives back for `record` when the newest event is `last_seq`.
pub fn stored(record: &SessionRecord, last_seq: u64) -> SessionRecord {
    let mut record = record.clone();
    record.snapshot.last_seq = last_seq;
    record
}

pub fn turn(record: &SessionRecord, state: TurnState, rank: i64) -> TurnRecord {
    let turn = Turn {
        id: TurnId::new(),
        session: record.snapshot.key.clone(),
        state,
        source: "api".into(),
        client_id: Some("c1".into()),
        text: "do it".into(),
        attachments: Vec::new(),
        metadata: object(json!({"k": 1})),
        agent: "echo".into(),
        model: None,
        position: None,
        attempt: 1,
        created_at: NOW,
        started_at: None,
        finished_at: state.is_terminal().then_some(NOW),
        error: None,
        reason: None,
        summary: None,
        usage: Usage::default(),
        continued_from: None,
    };
    TurnRecord {
        turn,
        conversation: record.snapshot.id,
        rank,
        mode: Some("plan".into()),
        permission_mode: None,
        attachments: Arc::default(),
        first_seq: 2,
        steers: None,
    }
}

pub fn with_file(mut record: TurnRecord) -> TurnRecord {
    let file = Attachment { name: "a.txt".into(), media_type: "text/plain".into(), content_base64: "aGk=".into() };
    let info = AttachmentInfo { name: file.name.clone(), media_type: file.media_type.clone(), bytes: 2 };
    record.turn.attachments = vec![info];
    record.attachments = Arc::new(vec![file]);
    record
}

pub fn message(text: &str) -> Message {
    Message {
        id: MessageId::new(),
        role: Role::Assistant,
        parts: vec![Part::Text { text: text.into() }],
        turn_id: Some(TurnId::new()),
        agent: Some("echo".into()),
        client_id: None,
        created_at: NOW,
    }
}

pub fn choice(key: &SessionKey) -> Choice {
    let option = ChoiceOption { id: "o1".into(), label: "Yes".into(), kind: OptionKind::AllowOnce };
    Choice {
        id: ChoiceId::new(),
        session: key.clone(),
        turn_id: TurnId::new(),
        kind: ChoiceKind::Permission,
        title: "Run ls?".into(),
        tool: Some("bash".into()),
        input_summary: Some("ls".into()),
        options: vec![option],
        questions: None,
        created_at: NOW,
        expires_at: NOW.plus(std::time::Duration::from_secs(600)),
    }
}

/// Messages as they are written: in order, from a place in their conversation on.
pub fn numbered(conversation: SessionId, first: u64, messages: impl IntoIterator<Item = Message>) -> Vec<MessageWrite> {
    let numbered = (first..).zip(messages);
    numbered.map(|(ordinal, message)| MessageWrite { conversation, ordinal, message }).collect()
}
