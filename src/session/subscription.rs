//! One stream of one session, for one subscriber, on any transport.
//!
//! Replay and live are joined without a gap: the session names its newest event and begins to fill the outbox in
//! one message; everything up to that event is read from the store, everything after it comes out of the outbox.
//! A subscriber that is far behind reads pages first and joins when it is near. It is pulled, so its memory is a
//! page of events and its outbox, whatever the client does.

use std::sync::Arc;

use bytestring::ByteString;

use super::{
    SessionHandle,
    messages::{Join, Joined, Leave},
    outbox::{Outbox, Taken, Waiting},
};
use crate::{
    gateway::{Filter, From},
    ids::SessionKey,
    metrics::{self, Held},
    protocol::{
        Control, Frame,
        frame::{Batch, EndReason, PROGRESS},
    },
    store::{Store, StoreError},
    timestamp::Timestamp,
};

/// Events in one page of a replay.
const PAGE_EVENTS: usize = 2048;
/// Bytes in one page of a replay.
const PAGE_BYTES: usize = 256 * 1024;
/// A subscriber that has at most so many events to read joins the live stream and reads them meanwhile.
const NEAR: u64 = 2048;

/// The last event of a session.
const DELETED: &str = "session.deleted";

/// A piece of a stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// All events of a commit, or of a page of the log.
    Events(Arc<Batch>),
    /// Some events, in order.
    Frames(Vec<Frame>),
    /// Events of the feed, in order, each with the cursor behind it.
    Placed(Vec<(String, Frame)>),
    /// A place in the feed that no shown event stands at: its cursor, and the JSON of its `stream.cursor` frame.
    Place(String, ByteString),
    /// A control frame: its type and its JSON.
    Control(&'static str, ByteString),
    /// The stream is over: show the `stream.end` frame and close.
    End(EndReason, ByteString),
    /// A stream of one turn has shown its `turn.finished`: close without a frame.
    Done,
}

impl Item {
    /// The end of a stream: of a session's, or of one over all sessions.
    #[must_use]
    pub fn end(reason: EndReason, session: Option<&SessionKey>) -> Self {
        let end = Control::End { reason, retry: reason.retry() };
        Self::End(reason, session.map_or_else(|| end.encode_for_all(), |session| end.encode(session, None)))
    }
}

enum Phase {
    /// Ask the session to join; say hello first when it is the first time.
    Join,
    /// Read up to this event; then go on with the outbox when `live`, else join.
    Replay { until: u64, live: bool },
    /// Take from the outbox.
    Live,
    /// The session is deleted: what the log still has is shown, up to `session.deleted`.
    Deleted,
    /// Nothing more.
    Over,
}

/// A stream of one session. Dropping it unsubscribes; that cancels nothing.
pub struct Subscription {
    key: SessionKey,
    session: SessionHandle,
    store: Store,
    outbox: Arc<Outbox>,
    filter: Filter,
    from: From,
    id: Option<u64>,
    /// The last event that was shown or passed over.
    cursor: u64,
    /// True when that was the end of a session. One that is made anew under the key goes on after it.
    told_deleted: bool,
    phase: Phase,
    /// Things to show before anything else.
    ready: std::collections::VecDeque<Item>,
    _counted: Held,
}

impl Subscription {
    /// A stream that has not begun yet.
    #[must_use]
    pub fn new(key: SessionKey, session: SessionHandle, store: Store, from: From, filter: Filter) -> Self {
        let outbox = Arc::default();
        let ready = std::collections::VecDeque::new();
        let _counted = Held::of(|metrics| metrics.streams.with_label_values(&["session"]));
        let (cursor, told_deleted, phase) = (0, false, Phase::Join);
        Self { key, session, store, outbox, filter, from, id: None, cursor, told_deleted, phase, ready, _counted }
    }

    /// The last event that was shown or passed over: the cursor to come back with.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next piece; none after [`Item::End`] or [`Item::Done`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.phase {
                Phase::Over => return None,
                Phase::Join => self.join().await,
                Phase::Replay { until, live } if self.cursor >= until => {
                    self.phase = if live { Phase::Live } else { Phase::Join };
                }
                Phase::Replay { until, .. } => match self.replay(until).await {
                    Ok(()) => {}
                    Err(error) => self.cannot_read(&error),
                },
                Phase::Live => match self.outbox.take().await {
                    Taken::Item(Waiting::Events(batch)) => self.show(batch),
                    Taken::Item(Waiting::Control(kind, frame)) => {
                        if self.wants_control(kind) {
                            self.ready.push_back(Item::Control(kind, frame));
                        }
                    }
                    Taken::State(state) => {
                        if self.wants_control("session.state") {
                            self.ready.push_back(Item::Control("session.state", state.frame()));
                        }
                    }
                    Taken::Lagging => {
                        if let Some(metrics) = metrics::get() {
                            metrics.lags.with_label_values(&["session"]).inc();
                        }
                        self.phase = Phase::Join;
                    }
                    Taken::End(EndReason::SessionDeleted) => self.phase = Phase::Deleted,
                    Taken::End(reason) => self.end(reason),
                },
                Phase::Deleted => match self.last_words().await {
                    Ok(true) => {}
                    Ok(false) => self.end(EndReason::SessionDeleted),
                    Err(error) => self.cannot_read(&error),
                },
            }
        }
    }

    async fn join(&mut self) {
        let after = match (self.id, self.from) {
            (None, From::Now) => None,
            (None, From::After(after)) => Some(after),
            (Some(_), _) => Some(self.cursor),
        };
        let hello = self.id.is_none() && self.filter.turn.is_none();
        let outbox = Arc::clone(&self.outbox);
        let join = Join { id: self.id, outbox, raw: self.filter.raw, after, near: NEAR, hello };
        let Ok(Joined { id, oldest_seq, last_seq, live, snapshot }) = self.session.send(join).await else {
            // A session that ends on purpose says why; one that is just gone has failed.
            match self.outbox.try_take() {
                Some(Taken::End(EndReason::SessionDeleted)) => self.phase = Phase::Deleted,
                Some(Taken::End(reason)) => self.end(reason),
                _ => self.end(EndReason::SessionFailed),
            }
            return;
        };
        self.id = Some(id);
        if let Some(snapshot) = snapshot {
            let hello = Control::Hello { snapshot, oldest_seq, last_seq, at: Timestamp::now() };
            self.ready.push_back(Item::Control("session.hello", hello.encode(&self.key, None)));
        }
        let after = after.unwrap_or(last_seq);
        let (cursor, gap) = if after > last_seq {
            (oldest_seq.saturating_sub(1), Some((last_seq + 1, after, "unknown_cursor")))
        } else if after.saturating_add(1) < oldest_seq {
            (oldest_seq - 1, Some((after + 1, oldest_seq - 1, "pruned")))
        } else {
            (after, None)
        };
        if let Some((from, to, reason)) = gap {
            self.tell_gap(from, to, reason);
        }
        self.cursor = cursor;
        self.phase = Phase::Replay { until: last_seq, live };
    }

    async fn replay(&mut self, until: u64) -> Result<(), StoreError> {
        let mut frames = self.page(until).await?;
        frames.retain(|frame| frame.seq <= until);
        if frames.is_empty() {
            // All up to there is pruned, or went with the session under the reader: that is told by now.
            if self.cursor < until {
                self.tell_hole(self.cursor.saturating_add(1), until);
            }
            self.cursor = self.cursor.max(until);
            return Ok(());
        }
        self.show_replayed(frames);
        Ok(())
    }

    /// Shows what was read, and says where something was pruned.
    fn show_replayed(&mut self, frames: Vec<Frame>) {
        let mut run: Vec<Frame> = Vec::new();
        let mut next = self.cursor.saturating_add(1);
        for frame in frames {
            if frame.seq > next {
                self.show(Batch::new(std::mem::take(&mut run)));
                if matches!(self.phase, Phase::Over) {
                    return;
                }
                self.tell_hole(next, frame.seq - 1);
            }
            next = frame.seq.saturating_add(1);
            run.push(frame);
        }
        self.show(Batch::new(run));
    }

    /// Says that these events are pruned, to who could have wanted them.
    fn tell_hole(&mut self, from: u64, to: u64) {
        if misses_progress(&self.filter.types) {
            self.tell_gap(from, to, "pruned");
        }
    }

    /// Shows the rest of the log of a deleted session to one who was behind. False when there is no more.
    async fn last_words(&mut self) -> Result<bool, StoreError> {
        if self.told_deleted {
            return Ok(false);
        }
        let mut frames = self.page(u64::MAX).await?;
        // The key may have been taken again by now: what comes after is for those who follow that session.
        if let Some(last) = frames.iter().position(|frame| &*frame.kind == DELETED) {
            frames.truncate(last + 1);
        }
        let more = !frames.is_empty();
        self.show(Batch::new(frames));
        Ok(more)
    }

    /// The next page of the log. What went with a deleted session under the reader is told as a gap, up to `until`.
    async fn page(&mut self, until: u64) -> Result<Vec<Frame>, StoreError> {
        let page = self.store.events(&self.key, self.cursor, PAGE_EVENTS, PAGE_BYTES).await?;
        let Some(page) = page else { return Ok(Vec::new()) };
        let before = page.oldest_seq.saturating_sub(1).min(until);
        if before > self.cursor {
            self.tell_gap(self.cursor + 1, before, "pruned");
            self.cursor = before;
        }
        let decoded: Result<Vec<Frame>, _> = page.events.iter().map(|event| Frame::decode(event)).collect();
        decoded.map_err(|error| StoreError::Corrupt(format!("event of {}: {error}", self.key)))
    }

    fn tell_gap(&mut self, from: u64, to: u64, reason: &'static str) {
        let gap = Control::Gap { from: Some(from), to: Some(to), reason };
        self.ready.push_back(Item::Control("stream.gap", gap.encode(&self.key, None)));
    }

    fn cannot_read(&mut self, error: &StoreError) {
        log::warn!(session:% = self.key, error:% = error; "a stream could not be replayed");
        self.end(EndReason::StoreUnavailable);
    }

    /// Shows the events of a batch that are new to this stream and pass its filter.
    fn show(&mut self, batch: Arc<Batch>) {
        let cursor = self.cursor;
        let Some((last, kind)) = batch.frames().last().map(|frame| (frame.seq, &*frame.kind)) else { return };
        if last <= cursor {
            return;
        }
        self.cursor = last;
        self.told_deleted = kind == DELETED;
        let all_new = batch.frames().first().is_some_and(|frame| frame.seq > cursor);
        if all_new && self.filter.types.is_empty() && self.filter.turn.is_none() {
            return self.ready.push_back(Item::Events(batch));
        }
        let filter = &self.filter;
        let new = batch.frames().iter().filter(|frame| frame.seq > cursor);
        let mut frames: Vec<Frame> = Vec::new();
        let mut done = false;
        for frame in new.filter(|frame| filter.turn.is_none() || frame.turn_id == filter.turn) {
            if passes(&filter.types, &frame.kind) {
                frames.push(frame.clone());
            }
            done = filter.turn.is_some() && &*frame.kind == "turn.finished";
            if done {
                break;
            }
        }
        if !frames.is_empty() {
            self.ready.push_back(Item::Frames(frames));
        }
        if done {
            self.ready.push_back(Item::Done);
            self.phase = Phase::Over;
        }
    }

    fn wants_control(&self, kind: &str) -> bool {
        match kind {
            "session.state" => self.filter.turn.is_none() && passes(&self.filter.types, kind),
            "agent.raw" => self.filter.raw,
            _ => true,
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.ready.push_back(Item::end(reason, Some(&self.key)));
        self.phase = Phase::Over;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.session.tell(Leave { id });
        }
    }
}

/// True when who asks for types with these prefixes asks for some that may be pruned.
pub(crate) fn misses_progress(prefixes: &[String]) -> bool {
    PROGRESS.iter().any(|kind| passes(prefixes, kind))
}

/// True when an event type has one of the prefixes, or when there are none.
pub(crate) fn passes(prefixes: &[String], kind: &str) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| kind.starts_with(prefix.as_str()))
}
