//! A turn told in another protocol's words: its events, one after the other, through a [`Narrator`], as a stream of bytes.
//!
//! It is pulled by the connection, like every stream here: a slow client costs no more than its subscription.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::unfold};

use crate::{
    gateway::Item,
    protocol::{
        Event,
        frame::{Batch, EndReason, decode_event},
    },
};

/// Tells events in another protocol's words. Pure: what it writes depends on what it was told, in that order.
pub trait Narrator: Send + 'static {
    /// Writes what an event means.
    fn event(&mut self, event: &Event, out: &mut Vec<u8>);

    /// Nothing more is known for now: all events of one or more commits have been told. True when there is nothing more
    /// to tell either, though the turn may go on: the stream ends here, without [`Self::finish`].
    fn pause(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// The turn is told to its end: writes what comes last.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// The stream ends though the turn has not: the server stops, or the client was too slow. Writes what a client of this
    /// protocol understands as "lost, not over".
    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>);
}

/// The events of a piece of a stream. What cannot be read is left out: the log holds only what was encoded here.
#[must_use]
pub fn events_of(item: &Item) -> Vec<Event> {
    match item {
        Item::Events(batch) => decode(batch),
        Item::Frames(frames) => frames.iter().filter_map(|frame| decode_event(&frame.json).ok()).collect(),
        Item::Placed(events) => events.iter().filter_map(|(_, frame)| decode_event(&frame.json).ok()).collect(),
        Item::Place(..) | Item::Control(..) | Item::End(..) | Item::Done => Vec::new(),
    }
}

fn decode(batch: &Arc<Batch>) -> Vec<Event> {
    batch.frames().iter().filter_map(|frame| decode_event(&frame.json).ok()).collect()
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
                    events_of(&item).iter().for_each(|event| narrator.event(event, &mut out));
                    if narrator.pause(&mut out) {
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
        protocol::{EventBody, Frame},
        timestamp::Timestamp,
    };

    struct Names(bool);

    impl Narrator for Names {
        fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
            if let EventBody::Error { code, .. } = &event.body {
                out.extend_from_slice(code.as_bytes());
                self.0 = code == "over";
            }
        }

        fn pause(&mut self, _: &mut Vec<u8>) -> bool {
            self.0
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
        let pieces = narrate(iter(items), Names(false), Duration::from_secs(9)).map(Result::unwrap);
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
        let over = vec![Item::Frames(vec![fault(1, "over")]), Item::Frames(vec![fault(2, "b")]), Item::Done];
        assert_eq!(told(over).await, ["over"], "a narrator that has told all ends the stream");
    }
}
