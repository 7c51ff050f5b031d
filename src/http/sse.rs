//! Server-sent events: the body of a stream. It is pulled by the connection, so a stream holds no more than one piece;
//! what a slow client has not taken waits in its session, which bounds it.

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::unfold};
use serde::Deserialize;

use crate::{gateway::Item, protocol::frame::write_control_sse};

/// Whether the stream tells its place before its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prime {
    /// No: the client has a cursor.
    No,
    /// After `session.hello` a lone `id:` line sets the cursor of a client that came without one. It is no event,
    /// and without it a client that is cut off before its first event would come back with a gap.
    FromHello,
}

/// The stream as an answer. Its head goes out at once.
pub(super) fn response(items: impl Stream<Item = Item> + 'static, heartbeat: Duration, prime: Prime) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body(items, heartbeat, prime))
}

fn body(
    items: impl Stream<Item = Item> + 'static,
    heartbeat: Duration,
    prime: Prime,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(Some(Box::pin(items)), move |items| async move {
        let mut items = items?;
        let bytes = match tokio::time::timeout(heartbeat, items.next()).await {
            Err(_) => Bytes::from_static(b": ping\n\n"),
            Ok(Some(Item::Events(batch))) => batch.sse(),
            Ok(Some(Item::Frames(frames))) => {
                let mut out = Vec::new();
                frames.iter().for_each(|frame| frame.write_sse(&mut out));
                out.into()
            }
            Ok(Some(Item::Placed(events))) => {
                let mut out = Vec::new();
                events.iter().for_each(|(cursor, frame)| frame.write_sse_at(cursor, &mut out));
                out.into()
            }
            Ok(Some(Item::Place(cursor, _))) => format!("id: {cursor}\n\n").into(),
            Ok(Some(Item::Control(kind, json))) => {
                let mut out = control(kind, &json);
                if prime == Prime::FromHello && kind == "session.hello" {
                    out.extend_from_slice(place(&json).as_bytes());
                }
                out.into()
            }
            Ok(Some(Item::End(_, json))) => return Some((Ok(control("stream.end", &json).into()), None)),
            Ok(Some(Item::Done) | None) => return None,
        };
        Some((Ok(bytes), Some(items)))
    })
}

fn control(kind: &str, json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 32);
    write_control_sse(kind, json, &mut out);
    out
}

/// The `id:` line for the place that a hello tells.
fn place(hello: &str) -> String {
    #[derive(Deserialize)]
    struct Hello {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        last_seq: u64,
    }
    serde_json::from_str::<Hello>(hello).map(|hello| format!("id: {}\n\n", hello.data.last_seq)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{iter, pending};

    use super::*;
    use crate::protocol::{
        Control, Event, EventBody, Frame,
        frame::{Batch, EndReason},
    };

    fn frame(seq: u64) -> Frame {
        let body = EventBody::Error { code: "x".into(), message: "y".into() };
        let at = crate::timestamp::Timestamp(0);
        Frame::encode(&Event { seq, body, session: "a".parse().unwrap(), turn_id: None, at })
    }

    async fn all(items: Vec<Item>, prime: Prime) -> String {
        let pieces: Vec<_> = body(iter(items), Duration::from_secs(9), prime).map(Result::unwrap).collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn batches_and_single_frames_are_the_same_on_the_wire() {
        let batch = all(vec![Item::Events(Batch::new(vec![frame(1), frame(2)]))], Prime::No).await;
        let single = all(vec![Item::Frames(vec![frame(1)]), Item::Frames(vec![frame(2)])], Prime::No).await;
        assert_eq!(batch, single);
        assert!(batch.starts_with("id: 1\nevent: error\ndata: {\"seq\":1,"), "{batch}");
        assert_eq!(batch.matches("\n\n").count(), 2);
    }

    #[tokio::test]
    async fn the_end_is_the_last_thing_and_has_no_id() {
        let end = Control::End { reason: EndReason::TooSlow, retry: true }.encode(&"a".parse().unwrap(), None);
        let items =
            vec![Item::Frames(vec![frame(1)]), Item::End(EndReason::TooSlow, end), Item::Frames(vec![frame(2)])];
        let text = all(items, Prime::No).await;
        let (_, last) = text.trim_end().rsplit_once("\n\n").unwrap();
        assert!(last.starts_with("event: stream.end\ndata: {") && !last.contains("id:"), "{text}");
        assert!(!text.contains("\"seq\":2"));
        assert_eq!(all(vec![Item::Done, Item::Frames(vec![frame(1)])], Prime::No).await, "");
    }

    #[tokio::test]
    async fn a_client_without_cursor_gets_its_place() {
        let hello =
            || vec![Item::Control("session.hello", r#"{"type":"session.hello","data":{"last_seq":41}}"#.into())];
        assert!(all(hello(), Prime::FromHello).await.ends_with("}}\n\nid: 41\n\n"));
        assert!(!all(hello(), Prime::No).await.contains("id:"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_comments() {
        let mut body = Box::pin(body(pending(), Duration::from_secs(15), Prime::No));
        let started = tokio::time::Instant::now();
        for beats in 1..=2 {
            assert_eq!(body.next().await.unwrap().unwrap(), ": ping\n\n");
            assert_eq!(started.elapsed(), Duration::from_secs(15 * beats));
        }
    }
}
