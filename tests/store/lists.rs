//! Lists: pages in both directions, filters.

use greenroom::{
    ids::{MessageId, SessionId},
    protocol::TurnState,
    store::{ChoiceWrite, Page, SessionFilter, SessionWrite, TurnWrite},
};

use super::{Database, build::*};

fn page(limit: u32, after: Option<&str>, before: Option<&str>, ascending: bool) -> Page {
    Page { limit, after: after.map(Into::into), before: before.map(Into::into), ascending }
}

pub async fn sessions_are_paged_and_filtered(db: Database) {
    let store = db.open();
    let mut records: Vec<_> = (0..5).map(|n| session(&key(&format!("web:{n}")))).collect();
    records.sort_by_key(|record| record.snapshot.id.to_string());
    records[1].snapshot.archived = true;
    records[2].snapshot.agent = "claude".into();
    records[2].snapshot.title = "Größe 50% of_it\\".into();
    records[3].snapshot.busy = false;
    records[3].snapshot.owner = "alice".into();
    for record in &records {
        store.append(create(record)).await.unwrap();
    }
    // A conversation of the past is no entry.
    let newest = session(&records[4].snapshot.key);
    let mut reset = append(&newest.snapshot.key, 1, 1, &["reset"]);
    let (previous, next) = (Box::new(records[4].clone()), Box::new(newest.clone()));
    reset.session = SessionWrite::Replace { previous, next };
    store.append(reset).await.unwrap();
    // It keeps the place of the key.
    let expected = [newest.clone(), records[3].clone(), records[2].clone(), records[0].clone()];
    let ids: Vec<String> = expected.iter().map(|record| record.snapshot.id.to_string()).collect();

    let list = async |filter: SessionFilter, page: Page| {
        let page = store.sessions(&filter, &page).await.unwrap();
        (page.data.iter().map(|record| record.snapshot.id.to_string()).collect::<Vec<_>>(), page.has_more)
    };
    let all = SessionFilter::default;
    assert_eq!(list(all(), page(3, None, None, false)).await, (ids[..3].to_vec(), true));
    assert_eq!(list(all(), page(3, Some(&ids[2]), None, false)).await, (ids[3..].to_vec(), false));
    assert_eq!(list(all(), page(2, None, Some(&ids[3]), false)).await, (ids[1..3].to_vec(), true));
    assert_eq!(list(all(), page(2, None, Some(&ids[2]), false)).await, (ids[..2].to_vec(), false));
    let upwards: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(list(all(), page(9, None, None, true)).await, (upwards.clone(), false));
    assert_eq!(list(all(), page(2, None, Some(&upwards[3]), true)).await, (upwards[1..3].to_vec(), true));

    let only = async |filter: SessionFilter| list(filter, page(9, None, None, false)).await.0;
    let id = |n: usize| vec![records[n].snapshot.id.to_string()];
    assert_eq!(only(SessionFilter { archived: true, ..all() }).await, id(1));
    assert_eq!(only(SessionFilter { agent: Some("claude".into()), ..all() }).await, id(2));
    assert_eq!(only(SessionFilter { busy: Some(false), ..all() }).await, id(3));
    assert_eq!(only(SessionFilter { owner: Some("alice".into()), ..all() }).await, id(3));
    for text in ["größE 50% OF_", "OF_IT\\", "50%"] {
        let found = only(SessionFilter { text: Some(text.into()), ..all() }).await;
        assert_eq!(found, id(2), "{text}");
    }
    let by_key = SessionFilter { text: Some(records[0].snapshot.key.as_str().to_uppercase()), ..all() };
    assert_eq!(only(by_key).await, id(0));
    assert_eq!(only(SessionFilter { text: Some("5%of".into()), ..all() }).await, Vec::<String>::new());
}

pub async fn messages_are_paged_in_the_order_of_writing(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let id = record.snapshot.id;
    // Their ids are made in another order than the one they are written in.
    let mut written: Vec<_> = (0..6).map(|n| message(&n.to_string())).collect();
    written.reverse();
    let mut next = append(&key("k"), 1, 1, &["a"]);
    next.messages = numbered(id, 1, written[..4].iter().cloned());
    store.append(next).await.unwrap();
    let mut next = append(&key("k"), 1, 2, &["b"]);
    next.messages = numbered(id, 5, written[4..].iter().cloned());
    store.append(next).await.unwrap();

    let cursor = |n: usize| written[n].id.to_string();
    let list = async |page: Page| {
        let page = store.messages(id, &page).await.unwrap();
        (page.data, page.has_more)
    };
    assert_eq!(list(page(4, None, None, true)).await, (written[..4].to_vec(), true));
    assert_eq!(list(page(4, Some(&cursor(3)), None, true)).await, (written[4..].to_vec(), false));
    assert_eq!(list(page(2, None, Some(&cursor(4)), true)).await, (written[2..4].to_vec(), true));
    let newest: Vec<_> = written[4..].iter().rev().cloned().collect();
    assert_eq!(list(page(2, None, None, false)).await, (newest, true));
    assert_eq!(list(page(9, Some(&cursor(1)), None, false)).await, (vec![written[0].clone()], false));
    let unknown = MessageId::new().to_string();
    assert_eq!(list(page(9, Some(&unknown), None, true)).await, (Vec::new(), false));
    assert_eq!(store.transcript(id, 2, u64::MAX).await.unwrap(), written[4..]);
    assert_eq!(store.transcript(SessionId::new(), 2, u64::MAX).await.unwrap(), []);
    // No more than fits, but one.
    let bytes = serde_json::to_string(&written[5].parts).unwrap().len() as u64;
    for (room, from) in [(2 * bytes, 4), (2 * bytes - 1, 5), (0, 5)] {
        assert_eq!(store.transcript(id, 9, room).await.unwrap(), written[from..], "{room} bytes");
    }
}

pub async fn messages_around_one(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let id = record.snapshot.id;
    let written: Vec<_> = (0..7).map(|n| message(&n.to_string())).collect();
    let mut next = append(&key("k"), 1, 1, &["a"]);
    next.messages = numbered(id, 1, written.iter().cloned());
    store.append(next).await.unwrap();
    let around = async |n: usize, limit| {
        let page = store.messages_around(id, written[n].id, limit).await.unwrap().unwrap();
        (page.data, page.has_more)
    };
    assert_eq!(around(3, 3).await, (written[2..5].to_vec(), true));
    assert_eq!(around(3, 1).await, (written[3..4].to_vec(), true));
    assert_eq!(around(3, 7).await, (written.clone(), false));
    assert_eq!(around(0, 4).await, (written[..3].to_vec(), true));
    assert_eq!(around(6, 20).await, (written.clone(), false));
    assert_eq!(store.messages_around(id, MessageId::new(), 5).await.unwrap(), None);
    assert_eq!(store.messages_around(SessionId::new(), written[0].id, 5).await.unwrap(), None);
}

pub async fn turns_are_paged_and_filtered(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let mut turns: Vec<_> = (0..4).map(|n| turn(&record, TurnState::Queued, n)).collect();
    turns[3] = with_file(turns[3].clone());
    turns.sort_by_key(|record| record.turn.id.to_string());
    turns[1].turn.state = TurnState::Completed;
    let mut hidden = turn(&record, TurnState::Queued, 9);
    hidden.steers = Some(turns[0].turn.id);
    let mut next = append(&key("k"), 1, 1, &["a"]);
    next.turns = turns.iter().chain([&hidden]).map(|turn| TurnWrite::Insert(Box::new(turn.clone()))).collect();
    store.append(next).await.unwrap();
    let list = async |state, page: Page| {
        let page = store.turns(&key("k"), state, &page).await.unwrap();
        assert!(page.data.iter().all(|record| record.attachments.is_empty()), "lists do not load files");
        (page.data.iter().map(|record| record.turn.clone()).collect::<Vec<_>>(), page.has_more)
    };
    let expected = |range: &[usize]| range.iter().map(|n| turns[*n].turn.clone()).collect::<Vec<_>>();
    let id = |n: usize| turns[n].turn.id.to_string();
    assert_eq!(list(None, page(2, None, None, false)).await, (expected(&[3, 2]), true));
    assert_eq!(list(None, page(2, Some(&id(2)), None, false)).await, (expected(&[1, 0]), false));
    assert_eq!(list(None, page(1, None, Some(&id(0)), false)).await, (expected(&[1]), true));
    assert_eq!(list(Some(TurnState::Queued), page(9, None, None, true)).await, (expected(&[0, 2, 3]), false));
    assert_eq!(store.turns(&key("other"), None, &page(9, None, None, true)).await.unwrap().data, []);
}

pub async fn choices_are_listed_by_owner(db: Database) {
    let store = db.open();
    let mut asked = Vec::new();
    for (name, owner) in [("a", "alice"), ("b", "bob")] {
        let mut record = session(&key(name));
        record.snapshot.owner = owner.into();
        let mut first = create(&record);
        asked.push(choice(&key(name)));
        let question = Box::new(asked.last().unwrap().clone());
        first.choices = vec![ChoiceWrite::Insert { choice: question, ask_id: "x".into() }];
        store.append(first).await.unwrap();
    }
    asked.sort_by_key(|choice| choice.id.to_string());
    let of = |name: &str| asked.iter().filter(|choice| choice.session == key(name)).cloned().collect::<Vec<_>>();
    assert_eq!(store.pending_choices(None, None).await.unwrap(), asked);
    assert_eq!(store.pending_choices(Some(&key("a")), None).await.unwrap(), of("a"));
    assert_eq!(store.pending_choices(None, Some("bob")).await.unwrap(), of("b"));
    assert_eq!(store.pending_choices(Some(&key("a")), Some("bob")).await.unwrap(), []);
}
