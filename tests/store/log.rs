//! The event log: appending, fencing, replaying.

use greenroom::store::{AppendError, SessionWrite, Store, StoreError};

use super::{Database, build::*};

async fn replay(store: &Store, name: &str, after: u64) -> Vec<String> {
    store.events(&key(name), after, 1000, usize::MAX).await.unwrap().unwrap().events
}

pub async fn events_come_back_byte_for_byte(db: Database) {
    let store = db.open();
    let mut written = Vec::new();
    let first = create(&session(&key("k")));
    written.extend(json_of(&first.events));
    store.append(first).await.unwrap();
    for texts in [&["a \"q\" \\ \n \u{0} \u{2028} ü"][..], &["b", "c\nd", "e"], &[], &["f"]] {
        let next = append(&key("k"), 1, written.len() as u64, texts);
        written.extend(json_of(&next.events));
        store.append(next).await.unwrap();
    }
    // Another key beside it must not show.
    store.append(create(&session(&key("k2")))).await.unwrap();
    for after in 0..written.len() {
        assert_eq!(replay(&store, "k", after as u64).await, written[after..], "after {after}");
    }
    let page = store.events(&key("k"), 0, 1000, usize::MAX).await.unwrap().unwrap();
    assert_eq!((page.oldest_seq, page.last_seq), (1, 6));
}

pub async fn pages_are_bounded_by_count_and_bytes(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    let long = "x".repeat(1000);
    store.append(append(&key("k"), 1, 1, &[&long, &long, &long])).await.unwrap();
    store.append(append(&key("k"), 1, 4, &[&long])).await.unwrap();
    let page = async |after, limit, bytes| {
        let page = store.events(&key("k"), after, limit, bytes).await.unwrap().unwrap();
        assert_eq!((page.oldest_seq, page.last_seq), (1, 5));
        page.events.len()
    };
    assert_eq!(page(0, 2, usize::MAX).await, 2);
    assert_eq!(page(1, 10, 2500).await, 2);
    assert_eq!(page(2, 10, 2500).await, 2);
    assert_eq!(page(3, 10, 2500).await, 2);
    assert_eq!(page(1, 10, 1).await, 1, "at least one event");
    assert_eq!(page(1, 10, 0).await, 1, "at least one event");
    assert_eq!(page(0, 10, usize::MAX).await, 5);
}

pub async fn a_cursor_beyond_the_end_gives_an_empty_page(db: Database) {
    let store = db.open();
    assert_eq!(store.events(&key("k"), 0, 10, 1000).await.unwrap(), None);
    store.append(create(&session(&key("k")))).await.unwrap();
    for after in [1, 99, u64::MAX] {
        let page = store.events(&key("k"), after, 10, 1000).await.unwrap().unwrap();
        assert_eq!((page.events.len(), page.oldest_seq, page.last_seq), (0, 1, 1));
    }
}

pub async fn an_append_at_the_wrong_place_is_fenced_and_writes_nothing(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    for (epoch, expected) in [(1, 0), (1, 2), (0, 1), (2, 1)] {
        let mut wrong = append(&key("k"), epoch, expected, &["no"]);
        wrong.messages = numbered(record.snapshot.id, 1, [message("no")]);
        assert!(matches!(store.append(wrong).await, Err(AppendError::Fenced)), "{epoch} {expected}");
    }
    assert!(matches!(store.append(append(&key("other"), 1, 0, &["no"])).await, Err(AppendError::Fenced)));
    assert_eq!(replay(&store, "k", 0).await.len(), 1);
    assert_eq!(store.transcript(record.snapshot.id, 10, u64::MAX).await.unwrap(), []);
    assert_eq!(store.events(&key("other"), 0, 10, 1000).await.unwrap(), None);
    store.append(append(&key("k"), 1, 1, &["yes"])).await.unwrap();
}

pub async fn a_claim_fences_the_previous_owner(db: Database) {
    let store = db.open();
    assert_eq!(store.claim(&key("k")).await.unwrap(), None);
    assert_eq!(store.events(&key("k"), 0, 10, 1000).await.unwrap(), None, "a claim of nothing writes nothing");
    store.append(create(&session(&key("k")))).await.unwrap();
    let claimed = store.claim(&key("k")).await.unwrap().unwrap();
    assert_eq!((claimed.epoch, claimed.last_seq, claimed.oldest_seq), (2, 1, 1));
    assert!(matches!(store.append(append(&key("k"), 1, 1, &["old"])).await, Err(AppendError::Fenced)));
    assert!(matches!(store.append(append(&key("k"), 1, 1, &[])).await, Err(AppendError::Fenced)));
    store.append(append(&key("k"), 2, 1, &["new"])).await.unwrap();
}

pub async fn a_key_is_created_once(db: Database) {
    let store = db.open();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.append(create(&session(&key("k")))).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert!(matches!(error, AppendError::Fenced), "{error}"),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(replay(&store, "k", 0).await.len(), 1);
}

pub async fn numbering_goes_on_after_a_delete(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    store.append(append(&key("k"), 1, 1, &["a", "b"])).await.unwrap();
    let mut delete = append(&key("k"), 1, 3, &["deleted"]);
    delete.session = SessionWrite::Delete;
    let last_words = json_of(&delete.events);
    store.append(delete).await.unwrap();

    let page = store.events(&key("k"), 0, 10, 1000).await.unwrap().unwrap();
    assert_eq!((page.events, page.oldest_seq, page.last_seq), (last_words, 4, 4));
    assert_eq!(store.session(&key("k")).await.unwrap(), None);
    // Who believes the key to be new is fenced; who claims it learns where its numbering is.
    assert!(matches!(store.append(create(&session(&key("k")))).await, Err(AppendError::Fenced)));
    let claimed = store.claim(&key("k")).await.unwrap().unwrap();
    assert_eq!((claimed.epoch, claimed.last_seq, claimed.oldest_seq, claimed.session), (2, 4, 4, None));
    let mut again = append(&key("k"), 2, 4, &["created again"]);
    let record = session(&key("k"));
    again.session = SessionWrite::Create(Box::new(record.clone()));
    store.append(again).await.unwrap();
    assert_eq!(replay(&store, "k", 3).await.len(), 2);
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap(), stored(&record, 5));
}

pub async fn wrong_numbers_are_refused(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    let mut gap = append(&key("k"), 1, 1, &[]);
    gap.events = events(&key("k"), 2, &["three"]);
    let refused = store.append(gap).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::Corrupt(_)))), "{refused:?}");
    assert_eq!(replay(&store, "k", 0).await.len(), 1);
}
