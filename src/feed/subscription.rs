//! One stream of the feed, for one subscriber, on any transport.
//!
//! It takes its place in the ring first, then reads from the store until nothing is left, then goes on in the ring,
//! passing over what it has seen. It is pulled: its memory is a page, whatever the client does.

use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc};

use super::{Cursor, Listener, Published};
use crate::{
    access::{Access, Principal},
    ids::SessionKey,
    metrics::{self, Held},
    protocol::{Control, Frame, frame::EndReason},
    session::{Item, misses_progress, passes},
    store::{Audience, FeedPage, FeedRow, Store, StoreError},
    timestamp::Timestamp,
};

/// Rows and bytes in one page of a replay.
const PAGE: (usize, usize) = (512, 256 * 1024);
/// Rows that may be passed over before the subscriber is told where it is.
const SILENT: usize = 256;

/// Where a stream of the feed begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedStart {
    /// With the next commit.
    Now,
    /// After this place; a default cursor is the beginning.
    After(Cursor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Find out where to begin, and say hello.
    Start,
    /// Read from the store.
    Replay,
    /// Go on in the ring.
    Live,
    /// Nothing more.
    Over,
}

/// A stream of the feed. Dropping it unsubscribes.
pub struct FeedSubscription {
    store: Store,
    who: Principal,
    /// Knows what has become of the caller since: its organisations may be others now.
    access: Option<Arc<Access>>,
    types: Vec<String>,
    start: FeedStart,
    listener: Listener,
    cursor: Cursor,
    /// Rows that were passed over since the subscriber last heard of its place.
    silent: usize,
    phase: Phase,
    /// Things to show before anything else.
    ready: VecDeque<Item>,
    _counted: Held,
}

impl FeedSubscription {
    /// A stream that has not begun yet, of events whose types have one of the prefixes; none is all.
    #[must_use]
    pub fn new(
        store: Store,
        who: Principal,
        access: Option<Arc<Access>>,
        start: FeedStart,
        types: Vec<String>,
    ) -> Self {
        let listener = Listener::new(Arc::clone(store.ring()));
        let (cursor, ready) = (Cursor::default(), VecDeque::new());
        let _counted = Held::of(|metrics| metrics.streams.with_label_values(&["all"]));
        Self { store, who, access, types, start, listener, cursor, silent: 0, phase: Phase::Start, ready, _counted }
    }

    /// The next piece; none after [`Item::End`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let done = match self.phase {
                Phase::Over => return None,
                Phase::Start => self.begin().await,
                Phase::Replay => self.replay().await,
                Phase::Live => match self.listener.next().await {
                    Some(batches) => {
                        self.renew();
                        batches.iter().for_each(|batch| self.show_live(batch));
                        Ok(())
                    }
                    None => {
                        if let Some(metrics) = metrics::get() {
                            metrics.lags.with_label_values(&["all"]).inc();
                        }
                        self.listener.rejoin();
                        self.phase = Phase::Replay;
                        Ok(())
                    }
                },
            };
            if let Err(error) = done {
                log::warn!(error:% = error; "a stream over all sessions could not be read");
                self.ready.push_back(Item::end(EndReason::StoreUnavailable, None));
                self.phase = Phase::Over;
            }
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let state = self.store.feed_state().await?;
        let mut gap = false;
        self.cursor = match &self.start {
            FeedStart::Now => Cursor::at(state.id, state.lanes),
            FeedStart::After(cursor) => {
                let beyond = cursor.lanes().iter().any(|(_, position)| *position > state.newest);
                gap = !cursor.is_start() && (cursor.feed() != state.id || beyond);
                if gap { Cursor::default() } else { cursor.clone() }
            }
        };
        self.cursor.belong_to(state.id);
        let hello = Control::StreamHello { cursor: self.cursor.encode(), at: Timestamp::now() };
        self.ready.push_back(Item::Control("stream.hello", hello.encode_for_all()));
        if gap {
            let gap = Control::Gap { from: None, to: None, reason: "unknown_cursor" };
            self.ready.push_back(Item::Control("stream.gap", gap.encode_for_all()));
        }
        self.tell_place();
        // From now on everything is in the ring, where this stream has had its place since before it looked.
        self.phase = if self.start == FeedStart::Now { Phase::Live } else { Phase::Replay };
        Ok(())
    }

    /// Tells the subscriber where it is.
    fn tell_place(&mut self) {
        self.silent = 0;
        let cursor = self.cursor.encode();
        let frame = Control::Cursor { cursor: cursor.clone() }.encode_for_all();
        self.ready.push_back(Item::Place(cursor, frame));
    }

    async fn replay(&mut self) -> Result<(), StoreError> {
        self.renew();
        let FeedPage { rows, audiences, more } =
            self.store.feed_after(&self.cursor, PAGE.0, PAGE.1, !self.who.is_admin()).await?;
        for row in &rows {
            let visible = self.sees(audiences.get(&row.key));
            self.show_row(row, visible);
        }
        if !more {
            // All of a snapshot that is younger than the place in the ring: what comes after it is there.
            self.phase = Phase::Live;
        }
        Ok(())
    }

    /// The caller as it is now. One whose credentials are gone loses its lease, which ends the stream.
    fn renew(&mut self) {
        if let Some(Ok(who)) = self.access.as_ref().map(|access| access.renew(&self.who)) {
            self.who = who;
        }
    }

    /// What nobody knows the audience of is for admins.
    fn sees(&self, audience: Option<&Audience>) -> bool {
        self.who.is_admin() || audience.is_some_and(|audience| self.who.may_follow(audience))
    }

    fn show_row(&mut self, row: &FeedRow, visible: bool) {
        let first = match self.cursor.partial() {
            Some((lane, position, left)) if (lane, position) == (row.lane, row.position) => {
                row.first_seq.max(row.last_seq.saturating_sub(left.into()).saturating_add(1))
            }
            _ => row.first_seq,
        };
        if visible && row.events.is_empty() {
            self.cursor.pass(row.lane, row.position, 0);
            return self.gap(row, "session_deleted");
        }
        let mut frames = Vec::new();
        if visible {
            let decoded: Result<Vec<Frame>, _> = row.events.iter().map(|event| Frame::decode(event)).collect();
            match decoded {
                Ok(decoded) => frames = decoded,
                // What cannot be read of one session must not keep the others' events back.
                Err(error) => {
                    log::error!(session:% = row.key, error:% = error; "events cannot be read and are not shown");
                    self.cursor.pass(row.lane, row.position, 0);
                    return self.gap(row, "unreadable");
                }
            }
        }
        self.show((row.lane, row.position), &row.key, first..=row.last_seq, &frames);
    }

    /// Says that a row's events are not shown, and why.
    fn gap(&mut self, row: &FeedRow, reason: &'static str) {
        let gap = Control::Gap { from: Some(row.first_seq), to: Some(row.last_seq), reason };
        self.ready.push_back(Item::Control("stream.gap", gap.encode(&row.key, None)));
        self.tell_place();
    }

    fn show_live(&mut self, published: &Published) {
        if published.position <= self.cursor.position(published.lane) {
            return;
        }
        let visible = self.sees(published.audience.as_ref());
        let frames = if visible { published.batch.frames() } else { &[] };
        let of = |frame: Option<&Frame>| frame.map_or(0, |frame| frame.seq);
        let span = of(frames.first())..=of(frames.last());
        self.show((published.lane, published.position), &published.key, span, frames);
    }

    /// Goes past a row and shows those of its events that are wanted, and which are pruned. `span` is what of the row
    /// has not been seen yet.
    fn show(&mut self, (lane, position): (i32, i64), key: &SessionKey, span: RangeInclusive<u64>, frames: &[Frame]) {
        let (first, last) = span.into_inner();
        let mut next = first;
        let holes = misses_progress(&self.types);
        let hole = |from: u64, to: u64| {
            let gap = Control::Gap { from: Some(from), to: Some(to), reason: "pruned" };
            Item::Control("stream.gap", gap.encode(key, None))
        };
        let (mut items, mut shown) = (Vec::new(), Vec::new());
        for frame in frames.iter().skip_while(|frame| frame.seq < first) {
            if frame.seq > next && holes {
                items.push(Item::Placed(std::mem::take(&mut shown)));
                items.push(hole(next, frame.seq - 1));
            }
            next = frame.seq.saturating_add(1);
            if passes(&self.types, &frame.kind) {
                let mut behind = self.cursor.clone();
                behind.pass(lane, position, u32::try_from(last.saturating_sub(frame.seq)).unwrap_or(u32::MAX));
                shown.push((behind.encode(), frame.clone()));
            }
        }
        items.push(Item::Placed(shown));
        if !frames.is_empty() && next <= last && holes {
            items.push(hole(next, last));
        }
        items.retain(|item| !matches!(item, Item::Placed(shown) if shown.is_empty()));
        self.cursor.pass(lane, position, 0);
        if items.is_empty() {
            self.silent += 1;
            if self.silent >= SILENT {
                self.tell_place();
            }
        } else {
            self.silent = 0;
            self.ready.extend(items);
        }
    }
}
