//! Which table should hold the log? SQLite directly, at full durability: one row for each event or for each append,
//! with rowids and a unique index or clustered by session.
//!
//! An append is what one decision of a session writes: here four events of 250 bytes. A commit holds one append, or
//! the 64 of many busy sessions. Sessions take turns, which is the worst case for locality.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use diesel::{Connection as _, QueryResult, SqliteConnection, connection::SimpleConnection as _};

use crate::{Failure, Plan, process::Folder, report::Row};

const SESSIONS: usize = 1_000;
const EVENTS_PER_APPEND: i64 = 4;
/// Appends in one commit: a lone session, and many.
const GROUPS: [usize; 2] = [1, 64];
/// How many events a subscriber that comes back wants.
const TAIL: i64 = 50;

macro_rules! log_table {
    ($name:ident) => {
        mod $name {
            use diesel::{QueryResult, SqliteConnection, prelude::*};

            diesel::table! {
                $name (session, seq) {
                    session -> Text,
                    seq -> BigInt,
                    json -> Text,
                }
            }

            pub fn insert(
                connection: &mut SqliteConnection,
                session: &str,
                seq: i64,
                json: &str,
            ) -> QueryResult<usize> {
                use $name::columns;
                let row = (columns::session.eq(session), columns::seq.eq(seq), columns::json.eq(json));
                diesel::insert_into($name::table).values(row).execute(connection)
            }

            pub fn read(connection: &mut SqliteConnection, session: &str, after: i64) -> QueryResult<Vec<String>> {
                use $name::columns;
                let tail = $name::table.filter(columns::session.eq(session)).filter(columns::seq.gt(after));
                tail.order(columns::seq).select(columns::json).load(connection)
            }
        }
    };
}

log_table!(event_rowid);
log_table!(event_clustered);
log_table!(append_rowid);
log_table!(append_clustered);

/// One way to keep the log.
struct Layout {
    name: &'static str,
    table: &'static str,
    clustered: bool,
    row_per_event: bool,
    insert: fn(&mut SqliteConnection, &str, i64, &str) -> QueryResult<usize>,
    read: fn(&mut SqliteConnection, &str, i64) -> QueryResult<Vec<String>>,
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        name: "row per event, rowid + index",
        table: "event_rowid",
        clustered: false,
        row_per_event: true,
        insert: event_rowid::insert,
        read: event_rowid::read,
    },
    Layout {
        name: "row per event, WITHOUT ROWID",
        table: "event_clustered",
        clustered: true,
        row_per_event: true,
        insert: event_clustered::insert,
        read: event_clustered::read,
    },
    Layout {
        name: "row per append, rowid + index",
        table: "append_rowid",
        clustered: false,
        row_per_event: false,
        insert: append_rowid::insert,
        read: append_rowid::read,
    },
    Layout {
        name: "row per append, WITHOUT ROWID",
        table: "append_clustered",
        clustered: true,
        row_per_event: false,
        insert: append_clustered::insert,
        read: append_clustered::read,
    },
];

/// Figures of one layout over the runs: events per second for each group size, then reads per second.
#[derive(Default, Clone)]
struct Figures([Vec<f64>; 3]);

/// All layouts in turn, each in a fresh database.
pub fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut figures: Vec<Figures> = vec![Figures::default(); LAYOUTS.len()];
    for _ in 0..plan.runs {
        for (layout, figures) in LAYOUTS.iter().zip(&mut figures) {
            let folder = Folder::new(plan)?;
            let mut log = Log::new(layout, folder.path())?;
            let [single, grouped, reads] = &mut figures.0;
            single.push(log.write(GROUPS[0], plan.time / 4)?);
            grouped.push(log.write(GROUPS[1], plan.time / 2)?);
            reads.push(log.read(plan.time / 4)?);
        }
    }
    let whats =
        ["events written, one append a commit", "events written, 64 appends a commit", "reads of the last 50 events"];
    let mut rows = Vec::new();
    for (index, what) in whats.into_iter().enumerate() {
        let column = |figures: &Figures| figures.0.get(index).cloned().unwrap_or_default();
        let first = figures.first().map(column).unwrap_or_default();
        for (layout, figures) in LAYOUTS.iter().zip(&figures) {
            let row = Row::new(format!("{what}: {}", layout.name), "/s", column(figures));
            rows.push(row.against("row per event, rowid + index", first.clone()));
        }
    }
    Ok(rows)
}

/// A database with one log in it.
struct Log<'a> {
    layout: &'a Layout,
    connection: SqliteConnection,
    keys: Vec<String>,
    /// The last `seq` of each session.
    last: Vec<i64>,
    next: usize,
}

impl<'a> Log<'a> {
    fn new(layout: &'a Layout, folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("layout.db");
        let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
        let key = if layout.clustered { ", PRIMARY KEY (session, seq)) WITHOUT ROWID" } else { ")" };
        let table = layout.table;
        let index = if layout.clustered {
            String::new()
        } else {
            format!("CREATE UNIQUE INDEX {table}_seq ON {table} (session, seq);")
        };
        connection.batch_execute(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE {table} (session TEXT NOT NULL, seq BIGINT NOT NULL, json TEXT NOT NULL{key}; {index}"
        ))?;
        let keys = (0..SESSIONS).map(|index| format!("web:user-{index:06}")).collect();
        Ok(Self { layout, connection, keys, last: vec![0; SESSIONS], next: 0 })
    }

    /// Events per second in commits of `group` appends.
    fn write(&mut self, group: usize, time: Duration) -> Result<f64, Failure> {
        let json = "x".repeat(250);
        let whole = vec![json.as_str(); usize::try_from(EVENTS_PER_APPEND)?].join("\n");
        let begin = Instant::now();
        let mut appends = 0_u32;
        while begin.elapsed() < time {
            let Self { layout, connection, keys, last, next } = self;
            connection.transaction::<_, diesel::result::Error, _>(|connection| {
                for _ in 0..group {
                    *next = (*next + 1) % SESSIONS;
                    let (Some(key), Some(last)) = (keys.get(*next), last.get_mut(*next)) else { continue };
                    if layout.row_per_event {
                        for seq in 1..=EVENTS_PER_APPEND {
                            (layout.insert)(connection, key, *last + seq, &json)?;
                        }
                    } else {
                        (layout.insert)(connection, key, *last + EVENTS_PER_APPEND, &whole)?;
                    }
                    *last += EVENTS_PER_APPEND;
                }
                Ok(())
            })?;
            appends += u32::try_from(group)?;
        }
        Ok(f64::from(appends) * f64::from(i32::try_from(EVENTS_PER_APPEND)?) / begin.elapsed().as_secs_f64())
    }

    /// Reads per second of the tail of one session after another, in no order that helps a cache.
    fn read(&mut self, time: Duration) -> Result<f64, Failure> {
        let begin = Instant::now();
        let mut reads = 0_u32;
        while begin.elapsed() < time {
            self.next = (self.next + 617) % SESSIONS;
            let (Some(key), Some(last)) = (self.keys.get(self.next), self.last.get(self.next)) else { continue };
            let rows = (self.layout.read)(&mut self.connection, key, last - TAIL)?;
            let events: usize = rows.iter().map(|row| row.split('\n').count()).sum();
            if i64::try_from(events)? < TAIL.min(*last) {
                return Err("a read found too few events".into());
            }
            reads += 1;
        }
        Ok(f64::from(reads) / begin.elapsed().as_secs_f64())
    }
}
