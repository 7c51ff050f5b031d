//! Frames: events encoded once and shared by every subscriber, and control frames that are no part of the log.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use bytestring::ByteString;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    event::{DeltaKind, Event, EventBody},
    session::Snapshot,
};
use crate::{
    ids::{MessageId, SessionKey, TurnId},
    timestamp::Timestamp,
};

/// An event as it is stored and sent: the bytes are the same in the log, over SSE and over WebSocket.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its place in the log.
    pub seq: u64,
    /// Its type, for filters and the SSE `event:` line.
    pub kind: ByteString,
    /// Its turn, for streams of one turn.
    pub turn_id: Option<TurnId>,
    /// The whole JSON object.
    pub json: ByteString,
}

/// The `data` of an adjacently tagged value: what stands between `{"type":"…","data":` and the last `}`.
fn data_of(value: &impl Serialize, kind: &str) -> String {
    let tagged = serde_json::to_string(value).unwrap_or_default();
    let data = tagged.get(r#"{"type":"","data":"#.len() + kind.len()..tagged.len().saturating_sub(1));
    data.unwrap_or("null").to_owned()
}

/// One object of the wire. Keys, types and ids hold no character that JSON would escape.
fn envelope(
    seq: Option<u64>,
    kind: &str,
    session: Option<&SessionKey>,
    turn_id: Option<TurnId>,
    at: Timestamp,
    data: String,
) -> String {
    let mut out = String::with_capacity(data.len() + 192);
    out.push('{');
    if let Some(seq) = seq {
        let _ = write!(out, r#""seq":{seq},"#);
    }
    let _ = write!(out, r#""type":"{kind}","session":"#);
    let _ = match session {
        Some(key) => write!(out, r#""{key}""#),
        None => write!(out, "null"),
    };
    let _ = write!(out, r#","turn_id":"#);
    let _ = match turn_id {
        Some(id) => write!(out, r#""{id}""#),
        None => write!(out, "null"),
    };
    let _ = write!(out, r#","at":"{}","data":{data}}}"#, at.to_rfc3339());
    out
}

/// The `seq` of a stored event, from its first bytes. None for what is no event.
#[must_use]
pub fn seq_of(json: &str) -> Option<u64> {
    json.strip_prefix(r#"{"seq":"#)?.split(',').next()?.parse().ok()
}

/// The types of events that only tell how far something has come: once their turn is over, what they told is in
/// `message.completed` and `tool.finished`, and they may be pruned.
pub const PROGRESS: [&str; 3] = ["message.delta", "tool.delta", "tool.updated"];

/// The head of a stored event: enough to filter it without decoding the rest.
#[derive(serde::Deserialize)]
struct Head<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    kind: &'a str,
    turn_id: Option<TurnId>,
}

impl Frame {
    /// Encodes an event. The order of the fields is fixed: the bytes are what the log keeps.
    #[must_use]
    pub fn encode(event: &Event) -> Self {
        let kind = event.body.type_name();
        let json =
            envelope(Some(event.seq), kind, Some(&event.session), event.turn_id, event.at, data_of(&event.body, kind));
        Self { seq: event.seq, kind: ByteString::from_static(kind), turn_id: event.turn_id, json: json.into() }
    }

    /// Reads a frame back from the bytes that the log kept.
    ///
    /// # Errors
    /// When the text is no event.
    pub fn decode(json: &str) -> Result<Self, serde_json::Error> {
        let head: Head<'_> = serde_json::from_str(json)?;
        Ok(Self { seq: head.seq, kind: head.kind.into(), turn_id: head.turn_id, json: json.into() })
    }

    /// The frame as one SSE event: `id`, `event`, `data`.
    pub fn write_sse(&self, out: &mut Vec<u8>) {
        self.write_sse_at(&self.seq.to_string(), out);
    }

    /// The same with another cursor, as in a stream over all sessions.
    pub fn write_sse_at(&self, id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\nevent: ");
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(self.json.as_bytes());
        out.extend_from_slice(b"\n\n");
    }
}

impl Frame {
    /// The object with the cursor of the feed behind it as one more field, for streams that have no other place for it.
    #[must_use]
    pub fn with_cursor(&self, cursor: &str) -> ByteString {
        let fields = self.json.strip_suffix('}').unwrap_or(&self.json);
        format!(r#"{fields},"cursor":"{cursor}"}}"#).into()
    }
}

/// The frames of one commit, shared by all subscribers.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Frame>,
    bytes: usize,
    sse: OnceLock<Bytes>,
}

impl Batch {
    /// A batch of frames in the order of the log.
    #[must_use]
    pub fn new(frames: Vec<Frame>) -> Arc<Self> {
        let bytes = frames.iter().map(|frame| frame.json.len()).sum();
        Arc::new(Self { frames, bytes, sse: OnceLock::new() })
    }

    /// The frames.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Bytes of JSON in all of them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The whole batch as SSE events, made at the first use and then shared.
    #[must_use]
    pub fn sse(&self) -> Bytes {
        let encode = || {
            let mut out = Vec::with_capacity(self.bytes + self.frames.len() * 48);
            self.frames.iter().for_each(|frame| frame.write_sse(&mut out));
            Bytes::from(out)
        };
        self.sse.get_or_init(encode).clone()
    }
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Hash)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The server stops: come back with the cursor.
    ShuttingDown,
    /// The subscriber did not keep up: come back with the cursor.
    TooSlow,
    /// The session was deleted.
    SessionDeleted,
    /// The store cannot be read now: come back with the cursor.
    StoreUnavailable,
    /// The session failed inside: come back with the cursor.
    SessionFailed,
    /// The caller's credentials have ended: revoked, expired, logged out.
    CredentialsRevoked,
    /// The caller may not see the session any more.
    AccessLost,
}

impl EndReason {
    /// True when coming back with the cursor makes sense.
    #[must_use]
    pub const fn retry(self) -> bool {
        !matches!(self, Self::SessionDeleted | Self::CredentialsRevoked | Self::AccessLost)
    }
}

/// Frames without a `seq`: never stored, never a cursor.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Control {
    /// The first frame of a stream.
    #[serde(rename = "session.hello")]
    Hello {
        /// The session now.
        snapshot: Box<Snapshot>,
        /// The oldest event that can be replayed; one past `last_seq` when there is none.
        oldest_seq: u64,
        /// The newest event.
        last_seq: u64,
        /// The server's clock.
        at: Timestamp,
    },
    /// The session has changed; the latest wins.
    #[serde(rename = "session.state")]
    State {
        /// The session now.
        snapshot: Box<Snapshot>,
    },
    /// Events that cannot be replayed.
    #[serde(rename = "stream.gap")]
    Gap {
        /// The first missing event; null where they are of many sessions.
        from: Option<u64>,
        /// The last missing event; likewise.
        to: Option<u64>,
        /// `pruned`, `unknown_cursor` or `session_deleted`.
        reason: &'static str,
    },
    /// The first frame of a stream over all sessions.
    #[serde(rename = "stream.hello")]
    StreamHello {
        /// Where it begins.
        cursor: String,
        /// The server's clock.
        at: Timestamp,
    },
    /// A place in a stream over all sessions that no event stands at.
    #[serde(rename = "stream.cursor")]
    Cursor {
        /// The place: to come back with.
        cursor: String,
    },
    /// The last frame of a stream.
    #[serde(rename = "stream.end")]
    End {
        /// Why.
        reason: EndReason,
        /// True when coming back with the cursor makes sense.
        retry: bool,
    },
    /// The agent's own message; no stability promise, not stored.
    #[serde(rename = "agent.raw")]
    Raw {
        /// The message as it came.
        message: Value,
    },
}

impl Control {
    /// The `type` on the wire.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "session.hello",
            Self::State { .. } => "session.state",
            Self::Gap { .. } => "stream.gap",
            Self::StreamHello { .. } => "stream.hello",
            Self::Cursor { .. } => "stream.cursor",
            Self::End { .. } => "stream.end",
            Self::Raw { .. } => "agent.raw",
        }
    }

    /// Encodes the frame for `session`.
    #[must_use]
    pub fn encode(&self, session: &SessionKey, turn_id: Option<TurnId>) -> ByteString {
        self.encode_for(Some(session), turn_id)
    }

    /// Encodes the frame for a stream over all sessions: `session` is null.
    #[must_use]
    pub fn encode_for_all(&self) -> ByteString {
        self.encode_for(None, None)
    }

    fn encode_for(&self, session: Option<&SessionKey>, turn_id: Option<TurnId>) -> ByteString {
        let data = data_of(self, self.type_name());
        envelope(None, self.type_name(), session, turn_id, Timestamp::now(), data).into()
    }
}

/// A sign of life for a WebSocket, which may follow many sessions or none. A page's script sees it, unlike the
/// protocol's own pings, and so notices a server that is gone.
#[must_use]
pub fn ping(at: Timestamp) -> ByteString {
    let at = at.to_rfc3339();
    format!(r#"{{"type":"ping","session":null,"turn_id":null,"at":"{at}","data":{{"at":"{at}"}}}}"#).into()
}

/// Writes a control frame as an SSE event; it carries no `id`, so it never becomes a cursor.
pub fn write_control_sse(kind: &str, json: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// The body of a `message.delta` out of its `data`.
fn delta_of(data: &str) -> EventBody {
    #[derive(serde::Deserialize)]
    struct Delta {
        message_id: MessageId,
        part: u32,
        kind: DeltaKind,
        delta: String,
    }
    let Ok(Delta { message_id, part, kind, delta }) = serde_json::from_str(data) else { return EventBody::Unknown };
    EventBody::MessageDelta { message_id, part, kind, delta }
}

/// Reads a stored event in full.
///
/// # Errors
/// When the text is no event. An event of an unknown type reads as [`EventBody::Unknown`].
pub fn decode_event(json: &str) -> Result<Event, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        seq: u64,
        // No type has a character that JSON would escape; one that a newer version made up may.
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        session: SessionKey,
        turn_id: Option<TurnId>,
        at: Timestamp,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Tagged<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        data: &'a RawValue,
    }
    let envelope: Envelope<'_> = serde_json::from_str(json)?;
    let body = match &*envelope.kind {
        // By far the most of them: read without writing it out again.
        "message.delta" => delta_of(envelope.data.get()),
        kind => {
            let tagged = serde_json::to_string(&Tagged { kind, data: envelope.data })?;
            serde_json::from_str(&tagged).unwrap_or(EventBody::Unknown)
        }
    };
    Ok(Event { seq: envelope.seq, body, session: envelope.session, turn_id: envelope.turn_id, at: envelope.at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let delta = "a \"quoted\" \u{1} ü".to_owned();
        let text = EventBody::MessageDelta { message_id: MessageId::new(), part: 1, kind: DeltaKind::Text, delta };
        let event = Event {
            seq: 7,
            body: EventBody::Error { code: "x".into(), message: "a \"quoted\" \u{1} ü".into() },
            session: "web:alice".parse().unwrap(),
            turn_id: Some(TurnId::new()),
            at: Timestamp(1_763_733_600_123_000),
        };
        let said = Event { body: text, ..event.clone() };
        assert_eq!(decode_event(&Frame::encode(&said).json).unwrap(), said);
        let frame = Frame::encode(&event);
        assert!(frame.json.starts_with(r#"{"seq":7,"type":"error","session":"web:alice","turn_id":"turn_"#));
        assert_eq!(decode_event(&frame.json).unwrap(), event);
        let again = Frame::decode(&frame.json).unwrap();
        assert_eq!((again.seq, again.kind, again.turn_id), (7, "error".into(), event.turn_id));
    }

    #[test]
    fn an_event_of_a_newer_version_is_not_an_error() {
        let json = r#"{"seq":1,"type":"new.thing","session":"a","turn_id":null,"at":"2025-11-21T14:00:00.123Z","data":{"a":[1]}}"#;
        assert_eq!(decode_event(json).unwrap().body, EventBody::Unknown);
        assert_eq!(&*Frame::decode(json).unwrap().kind, "new.thing");
    }

    #[test]
    fn control_frames_have_no_seq() {
        let gap = Control::Gap { from: Some(1), to: Some(2), reason: "pruned" }.encode(&"a".parse().unwrap(), None);
        for (frame, kind) in [(gap, "stream.gap"), (ping(Timestamp(0)), "ping")] {
            let value: Value = serde_json::from_str(&frame).unwrap();
            assert_eq!(value["type"], kind);
            assert!(value.get("seq").is_none() && value["at"].is_string() && value["data"].is_object());
        }
    }
}
