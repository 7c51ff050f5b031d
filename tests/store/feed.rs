//! The feed: one order over all sessions that stays right with several writers, over deletes and restarts.

use std::{collections::HashMap, sync::Arc};

use greenroom::{
    feed::{Cursor, FeedStart, FeedSubscription, Listener},
    gateway::{Item, Principal, Scope},
    protocol::Visibility,
    store::{Audience, SessionRecord, SessionWrite, Store},
};

use super::{Database, build::*};

/// Reads the feed to its end in pages of `limit` rows; gives each row's key with its events' numbers.
async fn read(store: &Store, cursor: &mut Cursor, limit: usize) -> Vec<(String, u64, u64)> {
    let mut seen = Vec::new();
    loop {
        let page = store.feed_after(cursor, limit, 1 << 20, false).await.unwrap();
        for row in &page.rows {
            seen.push((row.key.to_string(), row.first_seq, row.last_seq));
            cursor.pass(row.lane, row.position, 0);
        }
        if !page.more {
            return seen;
        }
    }
}

/// Every key's rows follow each other without a hole.
#[track_caller]
fn whole(rows: &[(String, u64, u64)]) -> HashMap<String, u64> {
    let mut last = HashMap::new();
    for (key, first, end) in rows {
        let before = last.insert(key.clone(), *end).unwrap_or(0);
        assert_eq!(*first, before + 1, "{key}");
    }
    last
}

pub async fn no_writer_is_overtaken(db: Database) {
    const KEYS: usize = 24;
    const ROUNDS: u64 = 60;
    let store = Store::open(&greenroom::config::StoreConfig { writers: 5, ..db.config() }).unwrap();
    let mut producers = Vec::new();
    for n in 0..KEYS {
        let store = store.clone();
        producers.push(tokio::spawn(async move {
            let name = format!("k{n}");
            store.append(create(&session(&key(&name)))).await.unwrap();
            for round in 0..ROUNDS {
                store.append(append(&key(&name), 1, 1 + round * 2, &["a", "b"])).await.unwrap();
            }
        }));
    }
    // One reads along from the store, page by page; one listens, and goes to the store when it has fallen behind.
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
            while rows.len() < KEYS * (1 + usize::try_from(ROUNDS).unwrap()) {
                rows.extend(read(&store, &mut cursor, 7).await);
                tokio::task::yield_now().await;
            }
            rows
        })
    };
    let listener = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut listener = Listener::new(Arc::clone(store.ring()));
            let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
            rows.extend(read(&store, &mut cursor, 1000).await);
            while rows.len() < KEYS * (1 + usize::try_from(ROUNDS).unwrap()) {
                let Some(batches) = listener.next().await else {
                    listener.rejoin();
                    rows.extend(read(&store, &mut cursor, 1000).await);
                    continue;
                };
                for published in batches {
                    if published.position > cursor.position(published.lane) {
                        cursor.pass(published.lane, published.position, 0);
                        let frames = published.batch.frames();
                        rows.push((published.key.to_string(), frames[0].seq, frames[frames.len() - 1].seq));
                    }
                }
            }
            rows
        })
    };
    for producer in producers {
        producer.await.unwrap();
    }
    for rows in [reader.await.unwrap(), listener.await.unwrap()] {
        let last = whole(&rows);
        assert_eq!(last.len(), KEYS);
        assert!(last.values().all(|last| *last == 1 + ROUNDS * 2));
    }
}

/// A server dies, the database finishes its last commit when its follower has joined the next server already, and the
/// session goes on there.
pub async fn a_session_that_comes_over_is_followed_without_a_hole(db: Database) {
    let (before, now, name) = (db.open(), db.open(), key("k"));
    before.append(create(&session(&name))).await.unwrap();
    let mut listener = Listener::new(Arc::clone(now.ring()));
    let mut cursor = Cursor::default();
    let mut rows = read(&now, &mut cursor, 100).await;
    assert_eq!(rows.len(), 1);
    before.append(append(&name, 1, 1, &["a", "b"])).await.unwrap();
    let claimed = now.claim(&name).await.unwrap().unwrap();
    now.append(append(&name, claimed.epoch, 3, &["c"])).await.unwrap();
    while rows.last().is_none_or(|(_, _, last)| *last < 4) {
        match listener.next().await {
            Some(batches) => {
                for published in batches {
                    cursor.pass(published.lane, published.position, 0);
                    rows.push((name.to_string(), published.batch.frames()[0].seq, 4));
                }
            }
            None => {
                listener.rejoin();
                rows.extend(read(&now, &mut cursor, 100).await);
            }
        }
    }
    assert_eq!(whole(&rows)["k"], 4);
    // One that is its own already sends nobody back to the store.
    let claimed = now.claim(&name).await.unwrap().unwrap();
    now.append(append(&name, claimed.epoch, 4, &["d"])).await.unwrap();
    assert!(listener.next().await.is_some());
}

pub async fn a_cursor_goes_on_after_a_restart(db: Database) {
    let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
    for life in 0..3u64 {
        let store = db.open();
        for n in 0..6 {
            let name = key(&format!("k{n}"));
            if life == 0 {
                store.append(create(&session(&name))).await.unwrap();
            }
            let epoch = if life == 0 { 1 } else { store.claim(&name).await.unwrap().unwrap().epoch };
            store.append(append(&name, epoch, 1 + life, &["x"])).await.unwrap();
            if n == 2 {
                rows.extend(read(&store, &mut cursor, 2).await);
            }
        }
        let text = cursor.encode();
        cursor = text.parse().unwrap();
        store.flush_and_close().await;
    }
    let store = db.open();
    rows.extend(read(&store, &mut cursor, 2).await);
    assert!(whole(&rows).values().all(|last| *last == 4), "{rows:?}");
    let state = store.feed_state().await.unwrap();
    assert!(state.newest >= 24);
    let mut end = Cursor::at(state.id, state.lanes);
    assert_eq!(read(&store, &mut end, 5).await, []);
}

pub async fn a_delete_leaves_one_mark(db: Database) {
    let store = db.open();
    let owner: Arc<str> = "local".into();
    for life in 0..2u64 {
        let mut first = create(&session(&key("k")));
        let base = life * 6;
        if life > 0 {
            first = append(&key("k"), 1, base, &["created"]);
            first.session = SessionWrite::Create(Box::new(session(&key("k"))));
        }
        store.append(first).await.unwrap();
        store.append(append(&key("k"), 1, base + 1, &["a", "b"])).await.unwrap();
        store.append(append(&key("k"), 1, base + 3, &["c", "d"])).await.unwrap();
        let mut delete = append(&key("k"), 1, base + 5, &["deleted"]);
        delete.session = SessionWrite::Delete;
        delete.audience = Some(Audience::of(&session(&key("k")).snapshot));
        store.append(delete).await.unwrap();
        let page = store.feed_after(&Cursor::default(), 100, 1 << 20, true).await.unwrap();
        let rows: Vec<_> = page.rows.iter().map(|row| (row.first_seq, row.last_seq, row.events.len())).collect();
        assert_eq!(rows, [(1, base + 5, 0), (base + 6, base + 6, 1)]);
        assert_eq!(page.audiences[&key("k")].owner, owner, "its last owner may see that");
    }
}

pub async fn pages_up_to_a_cursor_are_the_last_ones(db: Database) {
    let store = db.open();
    for n in 0..10 {
        store.append(create(&session(&key(&format!("k{n}"))))).await.unwrap();
    }
    let state = store.feed_state().await.unwrap();
    let mut cursor = Cursor::at(state.id, state.lanes);
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = store.feed_up_to(&cursor, 3, 1 << 20, false).await.unwrap();
        let names: Vec<String> = page.rows.iter().map(|row| row.key.to_string()).collect();
        seen = [names, seen].concat();
        let Some(first) = page.rows.first().filter(|_| page.more) else { break };
        cursor = cursor.up_to(first.position - 1);
    }
    assert_eq!(seen, (0..10).map(|n| format!("k{n}")).collect::<Vec<_>>());
}

/// The sessions and types of what a caller sees, up to the first event of `last`.
async fn seen_by(stream: &mut FeedSubscription, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let item = tokio::time::timeout(std::time::Duration::from_secs(60), stream.next()).await.unwrap();
        match item.unwrap() {
            Item::Placed(events) => {
                for (_, frame) in events {
                    let event: serde_json::Value = serde_json::from_str(&frame.json).unwrap();
                    seen.push(format!("{} {}", event["session"].as_str().unwrap(), event["seq"]));
                    if event["session"] == *last {
                        return seen;
                    }
                }
            }
            Item::Control("stream.gap", json) => {
                let gap: serde_json::Value = serde_json::from_str(&json).unwrap();
                seen.push(format!("{} gap", gap["session"].as_str().unwrap()));
            }
            Item::Control(..) | Item::Place(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub async fn who_may_not_see_a_session_sees_nothing_of_it(db: Database) {
    let store = db.open();
    let who = |user: &str| Principal { user: user.into(), scopes: vec![Scope::Read], ..Principal::local() };
    let stream = |user: &str, start| FeedSubscription::new(store.clone(), who(user), None, start, Vec::new());
    let admin = Principal { user: "root".into(), ..Principal::local() };
    let mut live: Vec<_> = ["alice", "eve"].map(|user| stream(user, FeedStart::Now)).into();
    live.push(FeedSubscription::new(store.clone(), admin.clone(), None, FeedStart::Now, Vec::new()));
    for stream in &mut live {
        assert!(matches!(stream.next().await, Some(Item::Control("stream.hello", _))));
    }
    let owned = |name: &str, owner: &str, visibility| {
        let mut record = session(&key(name));
        record.snapshot.owner = owner.into();
        record.snapshot.visibility = visibility;
        record
    };
    let put = async |mut append: greenroom::store::Append, record: &SessionRecord| {
        append.audience = Some(Audience::of(&record.snapshot));
        store.append(append).await.unwrap();
    };
    let secret = owned("secret", "alice", Visibility::Private);
    let gone = owned("gone", "alice", Visibility::Private);
    let shown = owned("shown", "alice", Visibility::Public);
    let end = owned("zz-end", "bob", Visibility::Public);
    for record in [&secret, &gone, &shown] {
        put(create(record), record).await;
        put(append(&record.snapshot.key, 1, 1, &["more"]), record).await;
    }
    let mut delete = append(&key("gone"), 1, 2, &["deleted"]);
    delete.session = SessionWrite::Delete;
    put(delete, &gone).await;
    put(create(&end), &end).await;

    let all = ["secret 1", "secret 2", "gone 1", "gone 2", "shown 1", "shown 2", "gone 3", "zz-end 1"];
    let public = ["shown 1", "shown 2", "zz-end 1"];
    let expected = [&all[..], &public[..], &all[..]];
    for (stream, expected) in live.iter_mut().zip(expected) {
        assert_eq!(seen_by(stream, "zz-end").await, expected);
    }
    // The same from the store; the rest of what is gone is a gap, for those who could see it.
    let replayed = ["secret 1", "secret 2", "gone gap", "shown 1", "shown 2", "gone 3", "zz-end 1"];
    let start = || FeedStart::After(Cursor::default());
    assert_eq!(seen_by(&mut stream("alice", start()), "zz-end").await, replayed);
    assert_eq!(seen_by(&mut stream("eve", start()), "zz-end").await, public);
    let mut root = FeedSubscription::new(store.clone(), admin, None, start(), Vec::new());
    assert_eq!(seen_by(&mut root, "zz-end").await, replayed);
}
