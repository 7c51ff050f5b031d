//! The feed, as it is stored: the rows of all sessions in the order of their positions, read from a cursor.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Integer, Text},
};

use super::{
    Audience, FeedPage, FeedRow, FeedState, Store, StoreError,
    codec::{parse, unsigned},
    connection::{AnyConnection, at_one_moment, each},
    fault::Fault,
    schema::{event_batches, feed_ids, feed_lanes, logs, sessions},
};
use crate::{
    feed::{Cursor, Ring},
    ids::SessionKey,
    protocol::Visibility,
};

/// Greenroom's advisory locks on lanes, apart from those of other programs on the same database ("gree" as a number).
const LANE_LOCKS: i32 = 0x6772_6565;
/// Writers at once on one database.
const MAX_LANES: i32 = 4096;

/// Takes the first lane that nobody holds, for as long as the connection lives. By then whatever the lane's last holder
/// had under way is over: a connection gives up its locks after its transaction.
pub(super) fn take_lane(connection: &mut AnyConnection) -> Result<i32, Fault> {
    #[derive(QueryableByName)]
    struct Taken {
        #[diesel(sql_type = Bool)]
        taken: bool,
    }
    // SQLite has one writer, which a lock on the file makes sure of.
    let AnyConnection::Postgres(c) = connection else { return Ok(0) };
    for lane in 0..MAX_LANES {
        let ask = sql_query("SELECT pg_try_advisory_lock($1, $2) AS taken");
        let answer = ask.bind::<Integer, _>(LANE_LOCKS).bind::<Integer, _>(lane).get_result::<Taken>(c)?;
        if answer.taken {
            let row = diesel::insert_into(feed_lanes::table).values(feed_lanes::lane.eq(lane));
            row.on_conflict_do_nothing().execute(c)?;
            return Ok(lane);
        }
    }
    Err(Fault::Unavailable(format!("{MAX_LANES} writers work on this database already")))
}

#[derive(Queryable, QueryableByName)]
struct Stored {
    #[diesel(sql_type = Integer)]
    lane: i32,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = Text)]
    payload: String,
}

impl Stored {
    fn read(self) -> Result<FeedRow, Fault> {
        let events: Vec<String> =
            if self.payload.is_empty() { Vec::new() } else { self.payload.split('\n').map(str::to_owned).collect() };
        Ok(FeedRow {
            lane: self.lane,
            position: self.position,
            key: parse("event_batches.key", &self.key)?,
            first_seq: unsigned("event_batches.first_seq", self.first_seq)?,
            last_seq: unsigned("event_batches.last_seq", self.last_seq)?,
            events,
        })
    }
}

/// A stretch of a lane: the positions from `.1` to `.2`, both included.
type Stretch = (i32, i64, i64);

/// Rows, and whether there may be more.
type Part = (Vec<FeedRow>, bool);

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// The positions and sizes of the first rows of some stretches, in order.
fn sizes(c: &mut AnyConnection, of: &[Stretch], way: Way, limit: usize) -> Result<Vec<(i64, i64)>, Fault> {
    #[derive(QueryableByName)]
    struct Size {
        #[diesel(sql_type = BigInt)]
        position: i64,
        #[diesel(sql_type = BigInt)]
        bytes: i64,
    }
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    match c {
        AnyConnection::Sqlite(c) => {
            let Some((_, low, high)) = of.first() else { return Ok(Vec::new()) };
            let rows = event_batches::table
                .filter(event_batches::position.ge(low))
                .filter(event_batches::position.le(high))
                .select((event_batches::position, event_batches::bytes))
                .limit(limit);
            Ok(match way {
                Way::Up => rows.order(event_batches::position.asc()).load(c)?,
                Way::Down => rows.order(event_batches::position.desc()).load(c)?,
            })
        }
        AnyConnection::Postgres(c) => {
            let order = if way == Way::Up { "ASC" } else { "DESC" };
            let sql = format!(
                "SELECT b.position, b.bytes FROM unnest($1, $2, $3) AS s(lane, low, high) \
                 CROSS JOIN LATERAL (SELECT position, bytes FROM event_batches \
                     WHERE lane = s.lane AND position BETWEEN s.low AND s.high ORDER BY position {order} LIMIT $4) b \
                 ORDER BY b.position {order} LIMIT $4"
            );
            let (lanes, lows, highs) = columns(of);
            let query = sql_query(sql).bind::<Array<Integer>, _>(lanes).bind::<Array<BigInt>, _>(lows);
            let sizes = query.bind::<Array<BigInt>, _>(highs).bind::<BigInt, _>(limit).load::<Size>(c)?;
            Ok(sizes.into_iter().map(|size| (size.position, size.bytes)).collect())
        }
    }
}

/// All rows of some stretches, oldest first.
fn rows(c: &mut AnyConnection, of: &[Stretch]) -> Result<Vec<FeedRow>, Fault> {
    let stored: Vec<Stored> = match c {
        AnyConnection::Sqlite(c) => {
            let Some((_, low, high)) = of.first() else { return Ok(Vec::new()) };
            event_batches::table
                .filter(event_batches::position.ge(low))
                .filter(event_batches::position.le(high))
                .order(event_batches::position.asc())
                .select((
                    event_batches::lane,
                    event_batches::position,
                    event_batches::key,
                    event_batches::first_seq,
                    event_batches::last_seq,
                    event_batches::payload,
                ))
                .load(c)?
        }
        AnyConnection::Postgres(c) => {
            let sql = "SELECT b.lane, b.position, b.key, b.first_seq, b.last_seq, b.payload \
                       FROM unnest($1, $2, $3) AS s(lane, low, high) \
                       JOIN event_batches b ON b.lane = s.lane AND b.position BETWEEN s.low AND s.high \
                       ORDER BY b.position";
            let (lanes, lows, highs) = columns(of);
            let query = sql_query(sql).bind::<Array<Integer>, _>(lanes).bind::<Array<BigInt>, _>(lows);
            query.bind::<Array<BigInt>, _>(highs).load(c)?
        }
    };
    stored.into_iter().map(Stored::read).collect()
}

fn columns(of: &[Stretch]) -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let lanes = of.iter().map(|stretch| stretch.0).collect();
    (lanes, of.iter().map(|stretch| stretch.1).collect(), of.iter().map(|stretch| stretch.2).collect())
}

fn lanes(c: &mut AnyConnection) -> Result<Vec<i32>, Fault> {
    Ok(feed_lanes::table.select(feed_lanes::lane).order(feed_lanes::lane.asc()).load(c)?)
}

/// The newest row of a lane, and before that nothing.
fn newest(c: &mut AnyConnection, lane: i32) -> Result<i64, Fault> {
    let newest = match c {
        AnyConnection::Sqlite(c) => {
            event_batches::table.select(diesel::dsl::max(event_batches::position)).first::<Option<i64>>(c)?
        }
        AnyConnection::Postgres(c) => event_batches::table
            .filter(event_batches::lane.eq(lane))
            .select(diesel::dsl::max(event_batches::position))
            .first::<Option<i64>>(c)?,
    };
    Ok(newest.unwrap_or(0))
}

/// How far the rows of `sizes` fit into `max_bytes`: the position of the last that does, at least the first, and whether
/// there may be more.
fn fitting(sizes: &[(i64, i64)], limit: usize, max_bytes: usize) -> Option<(i64, bool)> {
    let most = i64::try_from(max_bytes).unwrap_or(i64::MAX);
    let (mut end, mut bytes) = (None, 0i64);
    for (position, size) in sizes {
        bytes = bytes.saturating_add(*size);
        if let Some(end) = end.filter(|_| bytes > most) {
            return Some((end, true));
        }
        end = Some(*position);
    }
    end.map(|end| (end, sizes.len() >= limit))
}

/// The rows after a cursor. The row that was seen in part comes alone and first, whatever has been committed before it
/// since.
fn after(c: &mut AnyConnection, cursor: &Cursor, limit: usize, max_bytes: usize) -> Result<Part, Fault> {
    if let Some((lane, position, _)) = cursor.partial() {
        let rest = rows(c, &[(lane, position, position)])?;
        if !rest.is_empty() {
            return Ok((rest, true));
        }
    }
    let of: Vec<Stretch> =
        lanes(c)?.into_iter().map(|lane| (lane, cursor.position(lane).saturating_add(1), i64::MAX)).collect();
    let fitting = fitting(&sizes(c, &of, Way::Up, limit)?, limit, max_bytes);
    let Some((end, more)) = fitting else { return Ok((Vec::new(), false)) };
    let of: Vec<Stretch> =
        of.into_iter().map(|(lane, low, _)| (lane, low, end)).filter(|(_, low, high)| low <= high).collect();
    Ok((rows(c, &of)?, more))
}

/// The last rows up to a cursor, its own row included, oldest first.
fn up_to(c: &mut AnyConnection, cursor: &Cursor, limit: usize, max_bytes: usize) -> Result<Part, Fault> {
    let of: Vec<Stretch> = cursor.lanes().iter().map(|(lane, position)| (*lane, 1, *position)).collect();
    let fitting = fitting(&sizes(c, &of, Way::Down, limit)?, limit, max_bytes);
    let Some((start, more)) = fitting else { return Ok((Vec::new(), false)) };
    let of: Vec<Stretch> =
        of.into_iter().map(|(lane, _, high)| (lane, start, high)).filter(|(_, low, high)| low <= high).collect();
    Ok((rows(c, &of)?, more))
}

fn audiences(c: &mut AnyConnection, rows: &[FeedRow]) -> Result<HashMap<SessionKey, Audience>, Fault> {
    let mut keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let gone = logs::table.filter(logs::key.eq_any(&keys)).filter(logs::last_owner.is_not_null());
    let gone = gone.select((logs::key, logs::last_owner)).load::<(String, Option<String>)>(c)?;
    let present = sessions::table.filter(sessions::key.eq_any(&keys)).filter(sessions::is_current);
    let columns = (sessions::key, sessions::owner, sessions::visibility, sessions::org_id);
    let present = present.select(columns).load::<(String, String, String, Option<String>)>(c)?;
    let mut found = HashMap::new();
    for (key, owner) in gone {
        let owner = owner.unwrap_or_default().into();
        let audience = Audience { owner, visibility: Visibility::Private, org_id: None };
        found.insert(parse("logs.key", &key)?, audience);
    }
    for (key, owner, visibility, org) in present {
        let visibility =
            Visibility::parse(&visibility).ok_or_else(|| Fault::Row(format!("sessions.visibility: {visibility:?}")))?;
        let audience = Audience { owner: owner.into(), visibility, org_id: org.map(Into::into) };
        found.insert(parse("sessions.key", &key)?, audience);
    }
    Ok(found)
}

/// The highest position that was ever given out.
fn highest(c: &mut AnyConnection) -> Result<i64, Fault> {
    #[derive(QueryableByName)]
    struct Highest {
        #[diesel(sql_type = BigInt)]
        highest: i64,
    }
    match c {
        AnyConnection::Sqlite(_) => newest(c, 0),
        AnyConnection::Postgres(c) => {
            let sql = "SELECT coalesce(pg_sequence_last_value(\
                       pg_get_serial_sequence('event_batches', 'position')::regclass), 0) AS highest";
            Ok(sql_query(sql).get_result::<Highest>(c)?.highest)
        }
    }
}

impl Store {
    /// What was committed since, for those that follow live.
    #[must_use]
    pub fn ring(&self) -> &std::sync::Arc<Ring> {
        &self.0.ring
    }

    /// The rows after a cursor, oldest first: at most `limit` and `max_bytes` of JSON, but at least one where there is
    /// one. With `audiences` also who may see them. All of one moment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn feed_after(
        &self,
        cursor: &Cursor,
        limit: usize,
        max_bytes: usize,
        with_audiences: bool,
    ) -> Result<FeedPage, StoreError> {
        let cursor = cursor.clone();
        self.page_of_feed(with_audiences, move |c| after(c, &cursor, limit, max_bytes)).await
    }

    /// The last rows up to a cursor, its own included, oldest first; otherwise like [`Store::feed_after`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn feed_up_to(
        &self,
        cursor: &Cursor,
        limit: usize,
        max_bytes: usize,
        with_audiences: bool,
    ) -> Result<FeedPage, StoreError> {
        let cursor = cursor.clone();
        self.page_of_feed(with_audiences, move |c| up_to(c, &cursor, limit, max_bytes)).await
    }

    async fn page_of_feed(
        &self,
        with_audiences: bool,
        read: impl Fn(&mut AnyConnection) -> Result<Part, Fault> + Send + 'static,
    ) -> Result<FeedPage, StoreError> {
        self.read(move |c| {
            at_one_moment(c, |c| {
                let (rows, more) = read(c)?;
                let audiences = if with_audiences { audiences(c, &rows)? } else { HashMap::new() };
                Ok(FeedPage { rows, audiences, more })
            })
        })
        .await
    }

    /// Where the feed stands.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn feed_state(&self) -> Result<FeedState, StoreError> {
        self.read(|c| {
            let (id, lanes) = at_one_moment(c, |c| {
                let id = each!(c, c => feed_ids::table.select(feed_ids::id).first::<i32>(c))?;
                let mut places = Vec::new();
                for lane in lanes(c)? {
                    places.push((lane, newest(c, lane)?));
                }
                Ok((id, places))
            })?;
            // Read last: every row of the snapshot has its number by now.
            let newest = highest(c)?;
            Ok(FeedState { id: u32::try_from(id).unwrap_or(0).max(1), newest, lanes })
        })
        .await
    }
}
