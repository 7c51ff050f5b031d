//! Streams and pages of the event log.

use super::{EventRange, Events, Filter, From, Gateway, Lease, Principal, session_not_found};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::Frame,
    session::{Subscription, messages::Expect, misses_progress, passes},
    store::StoreError,
};

/// Bytes that a page of events may have, beyond its first event.
const PAGE_BYTES: usize = 4 << 20;

impl Gateway {
    /// Follows a session. Brings it into memory, since only its actor can tell what comes next; wakes no agent.
    ///
    /// # Errors
    /// `session_not_found`, before anything is streamed; `too_many_sessions`; `rate_limited` when the caller has too many
    /// streams; `store_unavailable`.
    pub async fn subscribe(
        &self,
        who: &Principal,
        key: &SessionKey,
        from: From,
        filter: Filter,
    ) -> Result<(Subscription, Lease), ApiError> {
        let lease = self.lease(who, key).await?;
        let (session, subscribers) = self.reach(key, false, Expect).await?.ok_or_else(|| session_not_found(key))?;
        let limit = self.config().stream.max_subscribers;
        if subscribers >= limit {
            let message = "too many streams follow this session; try again in a moment";
            return Err(ApiError::new(Code::TooManySubscribers, message).with("limit", limit));
        }
        Ok((Subscription::new(key.clone(), session, self.deps.store.clone(), from, filter), lease))
    }

    /// A page of the log, oldest first, whichever way it goes.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn events(
        &self,
        who: &Principal,
        key: &SessionKey,
        range: EventRange,
        limit: usize,
        types: &[String],
    ) -> Result<Events, ApiError> {
        self.snapshot(who, key).await?;
        match range {
            EventRange::After(after) => self.events_after(key, after, limit, types).await,
            EventRange::Before(before) => self.events_before(key, before, limit, types).await,
        }
    }

    async fn events_after(
        &self,
        key: &SessionKey,
        mut after: u64,
        limit: usize,
        types: &[String],
    ) -> Result<Events, ApiError> {
        let mut found: Vec<(u64, String)> = Vec::new();
        let (mut has_more, mut gaps) = (false, Gaps::default());
        while !has_more {
            let Some(page) = self.deps.store.events(key, after, 2048, PAGE_BYTES).await? else { break };
            if page.events.is_empty() {
                break;
            }
            for event in page.events {
                let frame = decode(key, &event)?;
                gaps.between(after, frame.seq);
                after = frame.seq;
                if !wanted(types, &frame.kind) {
                    continue;
                }
                if found.len() == limit {
                    has_more = true;
                    break;
                }
                found.push((frame.seq, event));
            }
        }
        if has_more {
            // What is behind the last one is of the next page.
            let last = found.last().map_or(0, |(seq, _)| *seq);
            gaps.0.retain(|(_, to)| *to < last);
        }
        Ok(page_of(found, has_more, gaps.wanted(types)))
    }

    async fn events_before(
        &self,
        key: &SessionKey,
        before: u64,
        limit: usize,
        types: &[String],
    ) -> Result<Events, ApiError> {
        let (mut found, mut gaps): (Vec<(u64, String)>, Gaps) = <_>::default();
        let mut end = before;
        let mut step = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut oldest = 1;
        while end > oldest && found.len() <= limit {
            let start = end.saturating_sub(step).max(oldest);
            let (mut window, mut holes) = (Vec::new(), Gaps::default());
            let mut after = start.saturating_sub(1);
            while after + 1 < end {
                let Some(page) = self.deps.store.events(key, after, 2048, PAGE_BYTES).await? else { break };
                oldest = page.oldest_seq;
                if page.events.is_empty() {
                    break;
                }
                for event in page.events {
                    let frame = decode(key, &event)?;
                    holes.between(after, frame.seq.min(end));
                    after = frame.seq;
                    if frame.seq < end && wanted(types, &frame.kind) {
                        window.push((frame.seq, event));
                    }
                }
            }
            window.extend(std::mem::take(&mut found));
            found = window;
            gaps = holes.joined(gaps);
            end = start;
            step = step.saturating_mul(2);
        }
        let extra = found.len().saturating_sub(limit);
        found.drain(..extra);
        if extra > 0 {
            let first = found.first().map_or(0, |(seq, _)| *seq);
            gaps.0.retain(|(from, _)| *from > first);
        }
        Ok(page_of(found, extra > 0, gaps.wanted(types)))
    }
}

fn decode(key: &SessionKey, event: &str) -> Result<Frame, ApiError> {
    Frame::decode(event).map_err(|error| StoreError::Corrupt(format!("an event of {key}: {error}")).into())
}

fn wanted(types: &[String], kind: &str) -> bool {
    passes(types, kind)
}

/// Stretches of a log that are pruned, in order.
#[derive(Debug, Default)]
struct Gaps(Vec<(u64, u64)>);

impl Gaps {
    /// Notes what is missing between two events that follow each other.
    fn between(&mut self, seen: u64, next: u64) {
        if next > seen.saturating_add(1) {
            self.0.push((seen + 1, next - 1));
        }
    }

    /// With those of a later part of the log behind them.
    fn joined(mut self, later: Self) -> Self {
        let mut later = later.0.into_iter().peekable();
        if let (Some((_, to)), Some((from, end))) = (self.0.last_mut(), later.peek().copied())
            && to.saturating_add(1) == from
        {
            *to = end;
            later.next();
        }
        self.0.extend(later);
        self
    }

    /// Those that matter to who asks for these types.
    fn wanted(self, types: &[String]) -> Vec<(u64, u64)> {
        if misses_progress(types) { self.0 } else { Vec::new() }
    }
}

fn page_of(found: Vec<(u64, String)>, has_more: bool, gaps: Vec<(u64, u64)>) -> Events {
    Events {
        first: found.first().map(|(seq, _)| *seq),
        last: found.last().map(|(seq, _)| *seq),
        events: found.into_iter().map(|(_, event)| event).collect(),
        has_more,
        gaps,
    }
}
