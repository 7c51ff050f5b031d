//! One server-sent event of a session's stream, read into what a client can act on.

use serde_json::Value;

use crate::protocol::{Event, frame::decode_event};

/// What a stream says.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// An entry of the log.
    Event(Box<Event>),
    /// Events that are lost for this client.
    Gap,
    /// The server ends the stream; coming back makes sense when `retry`.
    End {
        /// Why.
        reason: String,
        /// True when coming back with the cursor makes sense.
        retry: bool,
    },
}

/// Reads the `data` of an SSE event. `None` for what a client ignores: signs of life, snapshots, and types that this
/// version does not know.
pub fn read(data: &str) -> Option<Piece> {
    if let Ok(event) = decode_event(data) {
        // An unknown type still moves the cursor, so it is passed on.
        return Some(Piece::Event(Box::new(event)));
    }
    let frame: Value = serde_json::from_str(data).ok()?;
    match frame.get("type")?.as_str()? {
        "stream.gap" => Some(Piece::Gap),
        "stream.end" => {
            let reason = frame.pointer("/data/reason").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
            let retry = frame.pointer("/data/retry").and_then(Value::as_bool).unwrap_or(true);
            Some(Piece::End { reason, retry })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Control, EventBody, Frame, frame::EndReason},
        timestamp::Timestamp,
    };

    #[test]
    fn events_and_control_frames_are_told_apart() {
        let key = "a".parse().unwrap();
        let body = EventBody::Error { code: "x".into(), message: "y".into() };
        let event = Event { seq: 3, body, session: "a".parse().unwrap(), turn_id: None, at: Timestamp(0) };
        assert_eq!(read(&Frame::encode(&event).json), Some(Piece::Event(Box::new(event))));

        let end = Control::End { reason: EndReason::ShuttingDown, retry: true }.encode(&key, None);
        assert_eq!(read(&end), Some(Piece::End { reason: "shutting_down".into(), retry: true }));
        let gap = Control::Gap { from: Some(1), to: Some(2), reason: "pruned" }.encode(&key, None);
        assert_eq!(read(&gap), Some(Piece::Gap));
        assert_eq!(read(&crate::protocol::frame::ping(Timestamp(0))), None);
        assert_eq!(read("not json"), None);
    }

    #[test]
    fn an_unknown_type_still_has_its_seq() {
        let newer =
            r#"{"seq":9,"type":"new.thing","session":"a","turn_id":null,"at":"2025-11-21T14:00:00.123Z","data":{}}"#;
        assert!(matches!(read(newer), Some(Piece::Event(event)) if event.seq == 9 && event.body == EventBody::Unknown));
    }
}
