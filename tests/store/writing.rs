//! The writer: batches, order, ends.

use std::time::Duration;

use futures_util::future::join_all;
use greenroom::{
    protocol::TurnState,
    store::{AppendError, Store, StoreError, TurnWrite},
};

use super::{Database, build::*};

async fn replay(store: &Store, name: &str) -> Vec<String> {
    store.events(&key(name), 0, 10_000, usize::MAX).await.unwrap().unwrap().events
}

pub async fn a_bad_job_fails_alone(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let taken = turn(&record, TurnState::Queued, 1);
    let mut first = append(&key("k"), 1, 1, &["a"]);
    first.turns = vec![TurnWrite::Insert(Box::new(taken.clone()))];
    store.append(first).await.unwrap();

    // All are in the channel before the first commit is over, so the bad one shares a batch with good ones.
    let job = |n: u64| {
        let mut job = create(&session(&key(&format!("k{n}"))));
        if n == 20 {
            job.turns = vec![TurnWrite::Insert(Box::new(taken.clone()))];
        }
        job
    };
    let results = join_all((0..40).map(|n| store.append(job(n)))).await;
    for (n, result) in results.into_iter().enumerate() {
        if n == 20 {
            assert!(matches!(result, Err(AppendError::Store(StoreError::Corrupt(_)))), "{result:?}");
            assert_eq!(store.events(&key("k20"), 0, 10, 1000).await.unwrap(), None, "nothing of it is written");
        } else {
            result.unwrap();
            assert_eq!(replay(&store, &format!("k{n}")).await.len(), 1);
        }
    }
    store.health().await.unwrap();
}

pub async fn many_producers_at_once(db: Database) {
    let store = db.open();
    let producers = (0..64u64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = key(&format!("k{n}"));
            let record = session(&key);
            store.append(create(&record)).await.unwrap();
            let mut written = Vec::new();
            for seq in 1..=20 {
                let mut next = append(&key, 1, seq, &[&format!("{n}/{seq}")]);
                if seq % 5 == 0 {
                    next.turns = vec![TurnWrite::Insert(Box::new(with_file(turn(&record, TurnState::Queued, 1))))];
                    let said = (0..2).map(|i| message(&format!("{seq}.{i}")));
                    next.messages = numbered(record.snapshot.id, seq / 5 * 2 - 1, said);
                }
                written.extend(next.messages.iter().map(|write| write.message.clone()));
                store.append(next).await.unwrap();
            }
            (key, record.snapshot.id, written)
        })
    });
    for producer in join_all(producers).await {
        let (key, session, written) = producer.unwrap();
        let events = replay(&store, key.as_str()).await;
        assert_eq!(events.len(), 21);
        for (seq, event) in (1..).zip(events) {
            assert!(event.starts_with(&format!("{{\"seq\":{seq},")), "{event}");
        }
        assert_eq!(store.transcript(session, 100, u64::MAX).await.unwrap(), written);
        let claimed = store.claim(&key).await.unwrap().unwrap().session.unwrap();
        assert_eq!(claimed.unfinished.len(), 4);
        assert!(claimed.unfinished.iter().all(|turn| turn.attachments.len() == 1));
    }
}

pub async fn appends_of_one_key_may_be_sent_without_waiting(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let mut stale = append(&key("k"), 1, 3, &["stale"]);
    stale.messages = numbered(record.snapshot.id, 1, [message("stale")]);
    let mut jobs: Vec<_> = (1..=50).map(|seq| append(&key("k"), 1, seq, &["x"])).collect();
    jobs.insert(25, stale);
    for (n, result) in join_all(jobs.into_iter().map(|job| store.append(job))).await.into_iter().enumerate() {
        match n {
            25 => assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}"),
            _ => result.unwrap(),
        }
    }
    assert_eq!(replay(&store, "k").await.len(), 51);
    assert_eq!(store.transcript(record.snapshot.id, 5, u64::MAX).await.unwrap(), []);
}

pub async fn a_dropped_store_has_written_everything(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    for seq in 1..=30 {
        // Handed over, and not waited for.
        let _ = tokio::time::timeout(Duration::ZERO, store.append(append(&key("k"), 1, seq, &["x"]))).await;
    }
    drop(store);
    let store = db.open();
    assert_eq!(replay(&store, "k").await.len(), 31);
    assert_eq!(store.claim(&key("k")).await.unwrap().unwrap().last_seq, 31);
}

pub async fn nothing_is_taken_after_closing(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    store.flush_and_close().await;
    let late = store.append(append(&key("k"), 1, 1, &["x"])).await;
    assert!(matches!(late, Err(AppendError::Store(StoreError::Unavailable(_)))), "{late:?}");
    assert!(matches!(store.session(&key("k")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.health().await, Err(StoreError::Unavailable(_))));
    // The handle is still there, and in nobody's way.
    let again = db.open();
    assert_eq!(replay(&again, "k").await.len(), 1);
}
