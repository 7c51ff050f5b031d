//! The cursor of the feed: a place in every lane. Opaque on the wire: version, database, lanes, as base64.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The version of the form on the wire.
const VERSION: u8 = 2;
/// Lanes that a cursor may name; more cannot come from us.
const MAX_LANES: usize = 4096;

/// What has been seen of the feed: in each lane every row up to a position. Of the row that was seen last, maybe not its
/// last events. Those are counted from the end, because what comes before them may be pruned meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The database that it belongs to; 0 at the beginning of any.
    feed: u32,
    /// Lane and position, by lane.
    lanes: Vec<(i32, i64)>,
    /// The lane of the event that was seen last.
    last: i32,
    /// How many events at the end of the row at its position there have not been seen yet.
    left: u32,
}

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of the feed")]
pub struct InvalidCursor;

impl Cursor {
    /// The place behind all rows up to these positions, in the feed of a database.
    #[must_use]
    pub fn at(feed: u32, mut lanes: Vec<(i32, i64)>) -> Self {
        lanes.sort_unstable();
        let last = lanes.iter().max_by_key(|(_, position)| *position).map_or(0, |(lane, _)| *lane);
        Self { feed, lanes, last, left: 0 }
    }

    /// The database that it belongs to; 0 for the beginning.
    #[must_use]
    pub const fn feed(&self) -> u32 {
        self.feed
    }

    /// From now on it belongs to that database.
    pub fn belong_to(&mut self, feed: u32) {
        self.feed = feed;
    }

    /// True when nothing has been seen.
    #[must_use]
    pub const fn is_start(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Lanes with the position up to which each has been seen, the last row maybe in part.
    #[must_use]
    pub fn lanes(&self) -> &[(i32, i64)] {
        &self.lanes
    }

    /// The position up to which a lane has been seen; 0 when nothing has.
    #[must_use]
    pub fn position(&self, lane: i32) -> i64 {
        self.lanes
            .binary_search_by_key(&lane, |(lane, _)| *lane)
            .ok()
            .and_then(|i| self.lanes.get(i))
            .map_or(0, |l| l.1)
    }

    /// The row of the event that was seen last: lane, position, and how many events at its end were not seen.
    #[must_use]
    pub fn last(&self) -> (i32, i64, u32) {
        (self.last, self.position(self.last), self.left)
    }

    /// The row that was seen in part: lane, position, and how many events at its end were not seen.
    #[must_use]
    pub fn partial(&self) -> Option<(i32, i64, u32)> {
        (self.left > 0).then(|| self.last())
    }

    /// Goes past a row, but for its last `left` events.
    pub fn pass(&mut self, lane: i32, position: i64, left: u32) {
        match self.lanes.binary_search_by_key(&lane, |(lane, _)| *lane) {
            Ok(i) => {
                if let Some(place) = self.lanes.get_mut(i) {
                    place.1 = position;
                }
            }
            Err(i) => self.lanes.insert(i, (lane, position)),
        }
        self.last = lane;
        self.left = left;
    }

    /// The same with every position cut down to `limit`.
    #[must_use]
    pub fn up_to(&self, limit: i64) -> Self {
        let lanes = self.lanes.iter().map(|(lane, position)| (*lane, (*position).min(limit))).collect();
        Self { lanes, left: 0, ..self.clone() }
    }

    /// The text for the wire.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(8 + self.lanes.len() * 6);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.feed.to_be_bytes());
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        put(&mut bytes, number(self.last.into()));
        put(&mut bytes, self.left.into());
        for (lane, position) in &self.lanes {
            put(&mut bytes, number((*lane).into()));
            put(&mut bytes, number(*position));
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > MAX_LANES * 16 {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_bad| InvalidCursor)?;
        let (version, rest) = bytes.split_first().ok_or(InvalidCursor)?;
        let (feed, mut rest) = rest.split_first_chunk::<4>().ok_or(InvalidCursor)?;
        if *version != VERSION {
            return Err(InvalidCursor);
        }
        let next = |rest: &mut &[u8]| take(rest).ok_or(InvalidCursor);
        let lane = |n: u64| i32::try_from(n).map_err(|_big| InvalidCursor);
        let last = lane(next(&mut rest)?)?;
        let left = u32::try_from(next(&mut rest)?).map_err(|_big| InvalidCursor)?;
        let mut lanes: Vec<(i32, i64)> = Vec::new();
        while !rest.is_empty() {
            let place = (lane(next(&mut rest)?)?, i64::try_from(next(&mut rest)?).map_err(|_big| InvalidCursor)?);
            if lanes.last().is_some_and(|before| before.0 >= place.0) || lanes.len() >= MAX_LANES {
                return Err(InvalidCursor);
            }
            lanes.push(place);
        }
        let cursor = Self { feed: u32::from_be_bytes(*feed), lanes, last, left };
        // One form for one place, and no part of a row that is not there.
        if cursor.encode() == text && (left == 0 || cursor.position(last) > 0) {
            Ok(cursor)
        } else {
            Err(InvalidCursor)
        }
    }
}

/// Adds a number, seven bits a byte.
fn put(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
        n >>= 7;
    }
    bytes.push(u8::try_from(n).unwrap_or(0));
}

/// Takes a number off the front.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back(feed: u32, places in proptest::collection::btree_map(0..i32::MAX, 1..i64::MAX, 0..20), left: u32) {
            let mut cursor = Cursor::at(feed, places.clone().into_iter().collect());
            if let Some((lane, position)) = places.iter().next() {
                cursor.pass(*lane, *position, left);
            }
            prop_assert_eq!(cursor.encode().parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn what_is_no_cursor_is_refused_or_reads_back(text in "[A-Za-z0-9_-]{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn passing_rows_moves_one_lane() {
        let mut cursor = Cursor::default();
        cursor.pass(2, 7, 0);
        cursor.pass(0, 9, 3);
        assert_eq!((cursor.position(2), cursor.position(0), cursor.position(1)), (7, 9, 0));
        assert_eq!((cursor.partial(), cursor.last()), (Some((0, 9, 3)), (0, 9, 3)));
        cursor.pass(0, 9, 0);
        assert_eq!((cursor.partial(), cursor.last()), (None, (0, 9, 0)));
        assert_eq!(cursor.up_to(8).lanes(), [(0, 8), (2, 7)]);
    }

    #[test]
    fn nonsense_is_no_cursor() {
        for text in ["", "0", "17", "Ag", "!!!!", "AQAAAAAAAA"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }
}
