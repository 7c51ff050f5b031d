//! The feed: the events of all sessions that the caller may see, as a stream and in pages.

use super::{Events, Gateway, Lease, Principal};
use crate::{
    access::Shows,
    error::{ApiError, Code},
    feed::{Cursor, FeedStart, FeedSubscription},
    protocol::{Frame, frame::seq_of},
    session::passes,
    store::{FeedPage, FeedRow, StoreError},
};

/// Rows and bytes that are read at once.
const READ: (usize, usize) = (512, 1 << 20);
/// How often a page is filled up at most: a rare type must not make one call read the whole log.
const ROUNDS: usize = 64;
/// Bytes that a page may have, beyond its first event.
const PAGE_BYTES: usize = 4 << 20;

/// Which page of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedRange {
    /// The events after this place, oldest first.
    After(Cursor),
    /// The events before the one that this cursor stands behind, oldest first.
    Before(Cursor),
}

/// A page that is being filled.
#[derive(Default)]
struct Filling {
    events: Vec<(Cursor, String)>,
    bytes: usize,
}

impl Filling {
    fn is_full(&self, limit: usize, next: usize) -> bool {
        self.events.len() >= limit || (!self.events.is_empty() && self.bytes + next > PAGE_BYTES)
    }

    fn push(&mut self, cursor: Cursor, event: &str) {
        self.bytes += event.len();
        self.events.push((cursor, event.to_owned()));
    }
}

impl Gateway {
    /// Follows all sessions that the caller may see. Brings none of them into memory.
    ///
    /// # Errors
    /// `too_many_subscribers`; `rate_limited` when the caller has too many streams.
    pub fn follow_all(
        &self,
        who: &Principal,
        start: FeedStart,
        types: Vec<String>,
    ) -> Result<(FeedSubscription, Lease), ApiError> {
        let limit = self.config().stream.max_subscribers;
        if self.deps.store.ring().listeners() >= limit {
            let message = "too many streams follow all sessions; try again in a moment";
            return Err(ApiError::new(Code::TooManySubscribers, message).with("limit", limit));
        }
        let lease = self.access.lease(who, Shows::All)?;
        let access = Some(std::sync::Arc::clone(&self.access));
        Ok((FeedSubscription::new(self.deps.store.clone(), who.clone(), access, start, types), lease))
    }

    /// A page of the feed. It may be short of `limit` and yet have more behind it, when only few of the events that
    /// were read are wanted.
    ///
    /// # Errors
    /// `invalid_cursor` for one of another database, `store_unavailable`.
    pub async fn all_events(
        &self,
        who: &Principal,
        range: FeedRange,
        limit: usize,
        types: &[String],
    ) -> Result<Events<String>, ApiError> {
        let (FeedRange::After(cursor) | FeedRange::Before(cursor)) = &range;
        let state = self.deps.store.feed_state().await?;
        if !cursor.is_start() && cursor.feed() != state.id {
            let message = "The cursor is one of another database: begin with after=0.";
            return Err(ApiError::new(Code::InvalidCursor, message));
        }
        let mut cursor = cursor.clone();
        cursor.belong_to(state.id);
        match range {
            FeedRange::After(_) => self.feed_after(who, cursor, limit, types).await,
            FeedRange::Before(_) => self.feed_before(who, cursor, limit, types).await,
        }
    }

    async fn feed_after(
        &self,
        who: &Principal,
        mut cursor: Cursor,
        limit: usize,
        types: &[String],
    ) -> Result<Events<String>, ApiError> {
        let mut page = Filling::default();
        for _ in 0..ROUNDS {
            let read = self.deps.store.feed_after(&cursor, READ.0, READ.1, !who.is_admin()).await?;
            for row in &read.rows {
                let own = cursor.partial().filter(|(lane, at, _)| (*lane, *at) == (row.lane, row.position));
                let seen = own.map_or(0, |(_, _, left)| row.last_seq.saturating_sub(left.into()));
                for (seq, event, wanted) in events_of(who, &read, row, types)? {
                    if seq <= seen {
                        continue;
                    }
                    if wanted && page.is_full(limit, event.len()) {
                        return Ok(finish(page, cursor, true));
                    }
                    cursor.pass(row.lane, row.position, left_of(row, seq));
                    if wanted {
                        page.push(cursor.clone(), event);
                    }
                }
                cursor.pass(row.lane, row.position, 0);
            }
            if !read.more {
                return Ok(finish(page, cursor, false));
            }
        }
        Ok(finish(page, cursor, true))
    }

    async fn feed_before(
        &self,
        who: &Principal,
        before: Cursor,
        limit: usize,
        types: &[String],
    ) -> Result<Events<String>, ApiError> {
        let mut page = Filling::default();
        let (lane, position, left) = before.last();
        let mut cursor = before.clone();
        let mut has_more = true;
        'pages: for _ in 0..ROUNDS {
            let read = self.deps.store.feed_up_to(&cursor, READ.0, READ.1, !who.is_admin()).await?;
            for row in read.rows.iter().rev() {
                // The event that the cursor stands behind is not before it.
                let own = (row.lane, row.position) == (lane, position);
                let end = if own { row.last_seq.saturating_sub(left.into()) } else { u64::MAX };
                for (seq, event, wanted) in events_of(who, &read, row, types)?.into_iter().rev() {
                    if seq >= end || !wanted {
                        continue;
                    }
                    if page.is_full(limit, event.len()) {
                        break 'pages;
                    }
                    let mut behind = cursor.up_to(row.position.saturating_sub(1));
                    behind.pass(row.lane, row.position, left_of(row, seq));
                    page.push(behind, event);
                }
            }
            match read.rows.first() {
                Some(row) if read.more => cursor = cursor.up_to(row.position.saturating_sub(1)),
                _ => {
                    has_more = false;
                    break;
                }
            }
        }
        page.events.reverse();
        Ok(finish(page, cursor, has_more))
    }
}

/// How many events of the row come after this one.
fn left_of(row: &FeedRow, seq: u64) -> u32 {
    u32::try_from(row.last_seq.saturating_sub(seq)).unwrap_or(u32::MAX)
}

/// The events of a row with their numbers, and whether each is wanted.
fn events_of<'a>(
    who: &Principal,
    page: &FeedPage,
    row: &'a FeedRow,
    types: &[String],
) -> Result<Vec<(u64, &'a str, bool)>, ApiError> {
    let visible = who.is_admin() || page.audiences.get(&row.key).is_some_and(|audience| who.may_follow(audience));
    let of = |event: &'a String| {
        let corrupt = |error| StoreError::Corrupt(format!("an event of {}: {error}", row.key));
        let seq = seq_of(event).ok_or_else(|| corrupt("no seq".to_owned()))?;
        let kind = || Frame::decode(event).map(|frame| frame.kind).map_err(|error| corrupt(error.to_string()));
        let wanted = visible && (types.is_empty() || passes(types, &kind()?));
        Ok((seq, event.as_str(), wanted))
    };
    row.events.iter().map(of).collect()
}

/// The page. Where it is empty but more is behind it, both ids are the place that was reached.
fn finish(page: Filling, reached: Cursor, has_more: bool) -> Events<String> {
    let id = |entry: Option<&(Cursor, String)>| {
        entry.map(|(cursor, _)| cursor.encode()).or_else(|| has_more.then(|| reached.encode()))
    };
    Events {
        first: id(page.events.first()),
        last: id(page.events.last()),
        events: page.events.into_iter().map(|(_, event)| event).collect(),
        has_more,
        gaps: Vec::new(),
    }
}
