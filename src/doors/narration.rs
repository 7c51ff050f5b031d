//! A turn told in another protocol's words: its events, one after the other, through a [`Narrator`], as a stream of bytes.
//!
//! It is pulled by the connection, like every stream here: a slow client costs no more than its subscription.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::unfold};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    gateway::Item,
    ids::ChoiceId,
    protocol::{
        Event, Frame,
        event::DeltaKind,
        frame::{EndReason, decode_event},
    },
};

/// Tells events in another protocol's words. Pure: what it writes depends on what it was told, in that order.
pub trait Narrator: Send + 'static {
    /// Writes what an event means.
    fn event(&mut self, event: &Event, out: &mut Vec<u8>);

    /// Writes what an event means that is not decoded yet. A door that has to be cheap looks at the type first, passes over
    /// what it does not tell, and reads a delta as a [`Delta`].
    fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        // What cannot be read is left out: the log holds only what was encoded here.
        if let Ok(event) = decode_event(&frame.json) {
            self.event(&event, out);
        }
    }

    /// Nothing more is known for now: all events of one or more commits have been told.
    fn pause(&mut self, _out: &mut Vec<u8>) {}

    /// True once all is told that this answer tells, though the turn may go on: the stream ends here, without
    /// [`Self::finish`].
    fn is_over(&self) -> bool {
        false
    }

    /// The turn is told to its end: writes what comes last.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// The stream ends though the turn has not: the server stops, or the client was too slow. Writes what a client of this
    /// protocol understands as "lost, not over".
    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>);
}

/// What was known of a session when a client came back to its turn: a question up to `last_seq` that is not `pending` was
/// answered, and is no end of what is told.
#[derive(Debug, Clone)]
pub struct Known {
    /// The newest event then.
    pub last_seq: u64,
    /// The questions that waited then, or came since.
    pub pending: Vec<ChoiceId>,
}

impl Known {
    /// True when the answer to a question of this event is known not to be missing.
    #[must_use]
    pub fn is_answered(&self, choice: ChoiceId, seq: u64) -> bool {
        seq <= self.last_seq && !self.pending.contains(&choice)
    }
}

/// A `message.delta`, read without copying: the piece of text stays the JSON string that the log holds, quotes and escapes
/// included, so that a door whose words are JSON too can pass it on as it is.
#[derive(Debug, Deserialize)]
pub struct Delta<'a> {
    /// The message.
    pub message_id: &'a str,
    /// The part of the message, from 0.
    pub part: u32,
    /// What the part is.
    pub kind: DeltaKind,
    /// The piece, as a JSON string.
    #[serde(borrow)]
    pub delta: &'a RawValue,
}

impl<'a> Delta<'a> {
    /// Reads the event of a `message.delta`; none when it is something else.
    #[must_use]
    pub fn of(json: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            data: Delta<'a>,
        }
        serde_json::from_str::<Envelope<'_>>(json).ok().map(|event| event.data)
    }
}

/// The frames of a piece of a stream, in order.
pub fn frames_of(item: &Item) -> Box<dyn Iterator<Item = &Frame> + Send + '_> {
    match item {
        Item::Events(batch) => Box::new(batch.frames().iter()),
        Item::Frames(frames) => Box::new(frames.iter()),
        Item::Placed(events) => Box::new(events.iter().map(|(_, frame)| frame)),
        Item::Place(..) | Item::Control(..) | Item::End(..) | Item::Done => Box::new(std::iter::empty()),
    }
}

/// The events of a piece of a stream. What cannot be read is left out: the log holds only what was encoded here.
#[must_use]
pub fn events_of(item: &Item) -> Vec<Event> {
    frames_of(item).filter_map(|frame| decode_event(&frame.json).ok()).collect()
}

/// A stream of one turn, narrated, with a comment as a sign of life when nothing happens for `heartbeat`.
pub fn narrate(
    items: impl Stream<Item = Item> + 'static,
    narrator: impl Narrator,
    heartbeat: Duration,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(Some((Box::pin(items), narrator)), move |state| async move {
        let (mut items, mut narrator) = state?;
        let mut out = Vec::new();
        // What means nothing to the client is passed over, not sent as an empty chunk, which would end the body.
        while out.is_empty() {
            match tokio::time::timeout(heartbeat, items.next()).await {
                Err(_silent) => out.extend_from_slice(b": ping\n\n"),
                Ok(Some(Item::End(reason, _))) => {
                    narrator.cut(reason, &mut out);
                    return Some((Ok(out.into()), None));
                }
                Ok(Some(Item::Done) | None) => {
                    narrator.finish(&mut out);
                    return Some((Ok(out.into()), None));
                }
                Ok(Some(item)) => {
                    for frame in frames_of(&item) {
                        narrator.frame(frame, &mut out);
                        if narrator.is_over() {
                            return Some((Ok(out.into()), None));
                        }
                    }
                    narrator.pause(&mut out);
                    if narrator.is_over() {
                        return Some((Ok(out.into()), None));
                    }
                }
            }
        }
        Some((Ok(out.into()), Some((items, narrator))))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;
    use crate::{
        protocol::{EventBody, frame::Batch},
        timestamp::Timestamp,
    };

    /// Tells codes; is over behind `over` at once, and behind `ask` when there is a pause.
    #[derive(Default)]
    struct Names {
        asks: bool,
        is_over: bool,
    }

    impl Narrator for Names {
        fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
            if let EventBody::Error { code, .. } = &event.body {
                out.extend_from_slice(code.as_bytes());
                (self.asks, self.is_over) = (code == "ask", code == "over");
            }
        }

        fn pause(&mut self, out: &mut Vec<u8>) {
            if self.asks {
                out.push(b'?');
                self.is_over = true;
            }
        }

        fn is_over(&self) -> bool {
            self.is_over
        }

        fn finish(&mut self, out: &mut Vec<u8>) {
            out.push(b'.');
        }

        fn cut(&mut self, _: EndReason, out: &mut Vec<u8>) {
            out.push(b'!');
        }
    }

    fn frame(seq: u64, body: EventBody) -> Frame {
        Frame::encode(&Event { seq, body, session: "a".parse().unwrap(), turn_id: None, at: Timestamp(0) })
    }

    async fn told(items: Vec<Item>) -> Vec<String> {
        let pieces = narrate(iter(items), Names::default(), Duration::from_secs(9)).map(Result::unwrap);
        pieces.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect().await
    }

    #[tokio::test]
    async fn a_turn_is_told_in_order_and_nothing_is_an_empty_chunk() {
        let fault = |seq, code: &str| frame(seq, EventBody::Error { code: code.into(), message: String::new() });
        let silent = frame(2, EventBody::SessionUpdated { changed: serde_json::Map::new() });
        let items = vec![
            Item::Events(Batch::new(vec![fault(1, "a"), silent.clone()])),
            Item::Frames(vec![silent]),
            Item::Frames(vec![fault(3, "b")]),
            Item::Done,
        ];
        assert_eq!(told(items).await, ["a", "b", "."]);
        let cut = vec![Item::Frames(vec![fault(1, "a")]), Item::End(EndReason::ShuttingDown, "{}".into())];
        assert_eq!(told(cut).await, ["a", "!"]);
        let items = |first: &str| {
            vec![Item::Frames(vec![fault(1, first), fault(2, "b")]), Item::Frames(vec![fault(3, "c")]), Item::Done]
        };
        assert_eq!(told(items("over")).await, ["over"], "what is over ends the stream");
        assert_eq!(told(items("ask")).await, ["askb", "c", "."], "a pause comes behind a whole piece");
        assert_eq!(told(vec![Item::Frames(vec![fault(1, "ask")]), Item::Done]).await, ["ask?"]);
    }

    #[test]
    fn a_delta_is_read_as_it_stands() {
        let id = crate::ids::MessageId::new();
        let body = EventBody::MessageDelta {
            message_id: id,
            part: 3,
            kind: DeltaKind::Reasoning,
            delta: "a \"b\"\n\u{1}ü".into(),
        };
        let frame = frame(7, body);
        let delta = Delta::of(&frame.json).unwrap();
        assert_eq!((delta.message_id, delta.part, delta.kind), (id.to_string().as_str(), 3, DeltaKind::Reasoning));
        assert_eq!(delta.delta.get(), r#""a \"b\"\n\u0001ü""#);
        let other = super::tests::frame(8, EventBody::Error { code: "x".into(), message: String::new() });
        assert!(Delta::of(&other.json).is_none());
    }
}
