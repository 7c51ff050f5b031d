//! Retention in the store: what goes, what stays as it was, and how readers see it.

use std::{sync::Arc, time::Duration};

use greenroom::{
    feed::{Cursor, FeedStart, FeedSubscription},
    gateway::{Item, Principal},
    ids::{MessageId, TurnId},
    protocol::{Event, EventBody, Frame, TurnState, Usage, event::DeltaKind, frame::Batch},
    store::{Append, Audience, FeedRow, Pruned, SessionWrite, Store, TurnWrite},
};

use super::{Database, Kind, build::*};

/// What an event of a test is.
#[derive(Debug, Clone, Copy)]
enum Is {
    Delta,
    Said,
    End,
}

fn body(is: Is) -> EventBody {
    match is {
        Is::Delta => EventBody::MessageDelta {
            message_id: MessageId::new(),
            part: 0,
            kind: DeltaKind::Text,
            delta: "x".repeat(400),
        },
        Is::Said => EventBody::Error { code: "x".into(), message: "stays".into() },
        Is::End => EventBody::TurnFinished {
            state: TurnState::Completed,
            reason: None,
            error: None,
            usage: Usage::default(),
            summary: None,
        },
    }
}

/// Appends events of a turn to the log of `k`, one append for each group; gives their JSON.
async fn write(store: &Store, after: &mut u64, turn: TurnId, groups: &[&[Is]]) -> Vec<String> {
    let mut written = Vec::new();
    for group in groups {
        let frame = |(seq, is): (u64, &Is)| {
            Frame::encode(&Event { seq, body: body(*is), session: key("k"), turn_id: Some(turn), at: NOW })
        };
        let events: Arc<Batch> = Batch::new((*after + 1..).zip(*group).map(frame).collect());
        written.extend(json_of(&events));
        store.append(Append { events, ..append(&key("k"), 1, *after, &[]) }).await.unwrap();
        *after += group.len() as u64;
    }
    written
}

/// A log with a finished turn in rows of all kinds, and the JSON of all of its events.
async fn a_finished_turn(store: &Store, after: &mut u64) -> (TurnId, Vec<String>) {
    let record = session(&key("k"));
    let mut all = Vec::new();
    let first = if *after == 0 {
        let first = create(&record);
        all.extend(json_of(&first.events));
        store.append(first).await.unwrap();
        *after = 1;
        2
    } else {
        *after + 1
    };
    let mut done = turn(&record, TurnState::Completed, 1);
    done.first_seq = first;
    let mut insert = append(&key("k"), 1, *after, &[]);
    insert.turns = vec![TurnWrite::Insert(Box::new(done.clone()))];
    store.append(insert).await.unwrap();
    use Is::{Delta, End, Said};
    let groups: Vec<&[Is]> = [&[Said, Delta][..], &[Delta], &[Delta, Delta], &[Delta, Said, Delta, Said]]
        .into_iter()
        .chain(std::iter::repeat_n(&[Delta, Delta][..], 150))
        .chain([&[Delta, End][..]])
        .collect();
    all.extend(write(store, after, done.turn.id, &groups).await);
    (done.turn.id, all)
}

async fn prune_all(store: &Store) -> Pruned {
    let mut sum = Pruned::default();
    for mut step in store.prunable(None, 100).await.unwrap() {
        loop {
            let done = store.prune(step.clone()).await.unwrap();
            assert!(done.events <= 64 * 4, "a step is bounded: {done:?}");
            sum.events += done.events;
            sum.bytes += done.bytes;
            match done.next {
                Some(next) => step.after = next,
                None => break,
            }
        }
    }
    sum
}

async fn rows(store: &Store) -> Vec<FeedRow> {
    store.feed_after(&Cursor::default(), 10_000, usize::MAX, false).await.unwrap().rows
}

fn survivors(all: &[String]) -> Vec<String> {
    all.iter().filter(|event| !event.contains("message.delta")).cloned().collect()
}

pub async fn the_progress_of_a_finished_turn_goes_and_the_rest_stays_as_it_was(db: Database) {
    let store = db.open();
    let mut last = 0;
    let (turn, all) = a_finished_turn(&store, &mut last).await;
    // A turn that runs, and one that has ended without anything to prune.
    let record = session(&key("k"));
    let mut running = crate::build::turn(&record, TurnState::Running, 2);
    running.first_seq = last + 1;
    let mut insert = append(&key("k"), 1, last, &[]);
    insert.turns = vec![TurnWrite::Insert(Box::new(running.clone()))];
    store.append(insert).await.unwrap();
    let runs = write(&store, &mut last, running.turn.id, &[&[Is::Delta], &[Is::Delta, Is::Said]]).await;
    let before = rows(&store).await;

    let steps = store.prunable(None, 100).await.unwrap();
    assert_eq!(steps.iter().map(|step| step.turn).collect::<Vec<_>>(), [turn]);
    assert_eq!(store.prunable(Some(NOW), 100).await.unwrap(), [], "it has not ended before that");
    let later = NOW.plus(Duration::from_micros(1));
    assert_eq!(store.prunable(Some(later), 100).await.unwrap().len(), 1);
    let pruned = prune_all(&store).await;
    assert_eq!(pruned.events, all.len() - survivors(&all).len());
    assert!(pruned.bytes > pruned.events * 400);
    assert_eq!(store.prunable(None, 100).await.unwrap(), [], "it is done");

    // The log of the key: what stays, byte for byte, and all of the turn that runs.
    let page = store.events(&key("k"), 0, 10_000, usize::MAX).await.unwrap().unwrap();
    assert_eq!(page.events, [survivors(&all), runs].concat());
    assert_eq!((page.oldest_seq, page.last_seq), (1, last));
    // A cursor inside of what is gone is answered with what follows.
    let page = store.events(&key("k"), 20, 1, usize::MAX).await.unwrap().unwrap();
    assert!(page.events[0].contains("turn.finished"), "{page:?}");

    // The feed: rows keep their places, and each begins where the one before it ended.
    let after = rows(&store).await;
    assert!(after.len() < 10 && before.len() > 150, "{} rows of {}", after.len(), before.len());
    assert!(after.iter().all(|row| before.iter().any(|old| (old.lane, old.position) == (row.lane, row.position))));
    let mut next = 1;
    for row in &after {
        assert_eq!(row.first_seq, next, "{row:?}");
        next = row.last_seq + 1;
    }
    assert_eq!(next, last + 1);
    // The log goes on.
    write(&store, &mut last, running.turn.id, &[&[Is::End]]).await;
    assert_eq!(rows(&store).await.last().unwrap().last_seq, last);
}

/// What a stream over all sessions shows up to the event `last`: numbers, and gaps.
async fn shown(store: &Store, start: FeedStart, types: Vec<String>, last: u64) -> (Vec<String>, Vec<String>) {
    let mut stream = FeedSubscription::new(store.clone(), Principal::local(), None, start, types);
    let (mut seen, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let item = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.unwrap();
        match item.unwrap() {
            Item::Placed(events) => {
                for (cursor, frame) in events {
                    seen.push(frame.seq.to_string());
                    cursors.push(cursor);
                    if frame.seq == last {
                        return (seen, cursors);
                    }
                }
            }
            Item::Control("stream.gap", json) => {
                let gap: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert_eq!((gap["session"].as_str(), gap["data"]["reason"].as_str()), (Some("k"), Some("pruned")));
                seen.push(format!("{}-{}", gap["data"]["from"], gap["data"]["to"]));
            }
            _ => {}
        }
    }
}

pub async fn who_reads_the_feed_is_told_what_is_pruned(db: Database) {
    let store = db.open();
    let mut last = 0;
    a_finished_turn(&store, &mut last).await;
    let start = || FeedStart::After(Cursor::default());
    let (all, cursors) = shown(&store, start(), Vec::new(), last).await;
    assert_eq!(all, (1..=last).map(|seq| seq.to_string()).collect::<Vec<_>>());
    prune_all(&store).await;
    // Rows: [1] [2 said, 3] [4] [5 6] [7, 8 said, 9, 10 said] … [last - 1, last end].
    let end = format!("11-{}", last - 1);
    let expected = ["1", "2", "3-3", "4-7", "8", "9-9", "10", end.as_str(), &last.to_string()];
    assert_eq!(shown(&store, start(), Vec::new(), last).await.0, expected);
    let few = shown(&store, start(), vec!["turn.".into(), "error".into()], last).await.0;
    assert_eq!(few, ["1", "2", "8", "10", &last.to_string()], "who wants no deltas misses none");
    // Every cursor that was ever given out goes on where it was, also in the middle of a row that is thinner now.
    for (seq, cursor) in (1..last).zip(&cursors) {
        let after = FeedStart::After(cursor.parse().unwrap());
        let seen = shown(&store, after, Vec::new(), last).await.0;
        let events: Vec<u64> = seen.iter().filter_map(|one| one.parse().ok()).collect();
        let stays: Vec<u64> = [1, 2, 8, 10, last].into_iter().filter(|one| *one > seq).collect();
        assert_eq!(events, stays, "after {seq}: {seen:?}");
        let told = seen.iter().any(|one| one.ends_with(&format!("-{}", last - 1)));
        assert_eq!(told, seq < last - 1, "after {seq}: {seen:?}");
    }
}

pub async fn a_session_that_is_deleted_meanwhile_comes_not_back(db: Database) {
    let store = db.open();
    let mut last = 0;
    a_finished_turn(&store, &mut last).await;
    let step = store.prunable(None, 1).await.unwrap().remove(0);
    let mut delete = append(&key("k"), 1, last, &["deleted"]);
    delete.session = SessionWrite::Delete;
    delete.audience = Some(Audience::of(&session(&key("k")).snapshot));
    store.append(delete).await.unwrap();
    let before = rows(&store).await;
    assert_eq!(store.prune(step).await.unwrap().events, 0);
    assert_eq!(rows(&store).await, before);
    assert_eq!(store.prunable(None, 1).await.unwrap(), []);
}

pub async fn two_servers_may_prune_at_once(db: Database) {
    // SQLite takes one server; there the two are two tasks.
    let first = db.open();
    let second = if db.kind == Kind::Postgres { db.open() } else { first.clone() };
    let (mut last, mut all) = (0, Vec::new());
    for _ in 0..4 {
        all.extend(a_finished_turn(&first, &mut last).await.1);
    }
    let (one, two) = tokio::join!(prune_all(&first), prune_all(&second));
    assert!(one.events + two.events >= all.len() - survivors(&all).len());
    let page = first.events(&key("k"), 0, 10_000, usize::MAX).await.unwrap().unwrap();
    assert_eq!(page.events, survivors(&all));
    let mut next = 1;
    for row in rows(&first).await {
        assert_eq!(row.first_seq, next, "{row:?}");
        next = row.last_seq + 1;
    }
}

pub async fn archived_sessions_are_listed_by_when_they_were_touched(db: Database) {
    let store = db.open();
    for (n, name) in ["c", "a", "b"].into_iter().enumerate() {
        let mut record = session(&key(name));
        record.snapshot.archived = true;
        record.snapshot.busy = false;
        record.snapshot.updated_at = NOW.plus(Duration::from_secs(n as u64));
        store.append(create(&record)).await.unwrap();
    }
    for (name, primary, archived, busy) in
        [("primary", true, true, false), ("used", false, false, false), ("busy", false, true, true)]
    {
        let mut record = session(&key(name));
        record.snapshot.primary = primary;
        record.snapshot.archived = archived;
        record.snapshot.busy = busy;
        store.append(create(&record)).await.unwrap();
    }
    let listed = async |after, before| {
        let found = store.forgotten(after, before, 10).await.unwrap();
        found.into_iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>()
    };
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    let (start, end) = (greenroom::timestamp::Timestamp(0), greenroom::timestamp::Timestamp(i64::MAX));
    assert_eq!(listed(start, end).await, ["c", "a", "b"]);
    assert_eq!(listed(start, at(1)).await, ["c"]);
    assert_eq!(listed(at(0), end).await, ["a", "b"]);
    assert!(store.log_bytes(&key("c")).await.unwrap() > 50);
}

pub async fn the_size_is_told_and_what_is_free_is_given_back(db: Database) {
    let store = db.open();
    let mut last = 0;
    for _ in 0..30 {
        a_finished_turn(&store, &mut last).await;
    }
    let full = store.size().await.unwrap();
    assert!(full.total > 3 << 20, "{full:?}");
    prune_all(&store).await;
    let pruned = store.size().await.unwrap();
    if db.kind == Kind::Postgres {
        assert_eq!((pruned.free, pruned.gives_back, pruned.log), (None, false, 0));
        return;
    }
    assert!(pruned.gives_back && pruned.total == full.total, "{pruned:?}");
    let free = pruned.free.unwrap();
    assert!(free > 3 << 20, "{pruned:?}");
    store.give_back(16).await.unwrap();
    let step = store.size().await.unwrap();
    // Pages of SQLite's own, which tell where the others are, go with them.
    assert!((1..=17).contains(&((free - step.free.unwrap()) / 4096)), "one step is bounded: {pruned:?} {step:?}");
    store.give_back(100_000).await.unwrap();
    let small = store.size().await.unwrap();
    assert!(small.free == Some(0) && small.total <= full.total - free, "{full:?} {pruned:?} {small:?}");
    store.empty_log().await.unwrap();
    // It is emptied after the answer; the next write is behind it.
    store.give_back(0).await.unwrap();
    let file = std::fs::metadata(db.folder.path().join("test.db")).unwrap().len();
    assert_eq!(file, small.total, "the file itself is as small");
    let page = store.events(&key("k"), 0, 10, usize::MAX).await.unwrap().unwrap();
    assert_eq!(page.last_seq, last);
}
