//! Webhook endpoints, and the outbox of their deliveries.

use std::time::Duration;

use greenroom::{
    config::Secret,
    ids::{DeliveryId, EndpointId, SessionKey},
    protocol::{TurnState, webhook::DeliveryState},
    store::{
        AppendError, AttemptRecord, DeliveryWrite, EndpointChange, EndpointRecord, Page, SessionWrite, Store, TurnWrite,
    },
    timestamp::Timestamp,
};

use super::{Database, build::*};

const ALL: Page = Page { limit: 100, after: None, before: None, ascending: true };

fn endpoint(name: Option<&str>) -> EndpointRecord {
    EndpointRecord {
        id: uuid::Uuid::now_v7().into(),
        owner: "alice".into(),
        name: name.map(Into::into),
        sees_all: true,
        url: "https://h.example/x".into(),
        types: vec!["turn.".into(), "error".into()],
        sessions: Some(vec!["web:*".into()]),
        description: Some("d\u{e9}".into()),
        secret: Some(Secret::new("whsec_new")),
        old_secret: Some((Secret::new("whsec_old"), NOW)),
        disabled_reason: None,
        failures: 0,
        dropped: 0,
        last_error: None,
        last_success_at: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

async fn insert(store: &Store, record: &EndpointRecord) {
    assert_eq!(store.change_endpoints(EndpointChange::Insert(Box::new(record.clone()))).await.unwrap(), 1);
}

fn delivery(endpoint: EndpointId, key: &SessionKey, seq: u64) -> DeliveryWrite {
    DeliveryWrite {
        id: uuid::Uuid::now_v7().into(),
        endpoint,
        event: Some((key.clone(), seq)),
        kind: "error".into(),
        body: format!(r#"{{"type":"error","timestamp":"x","data":{{"seq":{seq}}}}}"#).into(),
        at: NOW,
        answers: None,
    }
}

fn attempt(
    delivery: DeliveryId,
    endpoint: EndpointId,
    error: Option<&str>,
    next_at: Option<Timestamp>,
) -> AttemptRecord {
    let status = Some(if error.is_some() { 500 } else { 204 });
    let error = error.map(Into::into);
    AttemptRecord { id: delivery, endpoint, at: NOW, ended_at: NOW, status, error, next_at, disables: None }
}

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

pub async fn endpoints_come_back_as_they_were_written(db: Database) {
    let store = db.open();
    let (first, second) = (endpoint(None), EndpointRecord { owner: "bob".into(), ..endpoint(Some("ci")) });
    insert(&store, &first).await;
    insert(&store, &second).await;
    assert_eq!(store.endpoint(first.id).await.unwrap(), Some(first.clone()));
    let listed: Vec<_> = store.endpoints().await.unwrap().into_iter().map(|(record, _)| record).collect();
    assert_eq!(listed, [first.clone(), second.clone()]);
    assert_eq!(store.endpoints_page(Some("bob"), &ALL).await.unwrap().data, [second.clone()]);
    assert_eq!(store.endpoints_page(None, &ALL).await.unwrap().data.len(), 2);
    assert!(
        store.change_endpoints(EndpointChange::Insert(Box::new(endpoint(Some("ci"))))).await.is_err(),
        "one of a name"
    );

    let mut changed =
        EndpointRecord { types: vec!["a".into()], sessions: None, url: "https://o/".into(), ..first.clone() };
    changed.updated_at = later(1);
    changed.secret = Some(Secret::new("whsec_third"));
    store.change_endpoints(EndpointChange::Define(Box::new(changed.clone()))).await.unwrap();
    let now = store.endpoint(first.id).await.unwrap().unwrap();
    assert_eq!((&now.types, &now.sessions, &now.secret), (&changed.types, &None, &first.secret), "not its secrets");
    changed.old_secret = None;
    store.change_endpoints(EndpointChange::Secrets(Box::new(changed.clone()))).await.unwrap();
    assert_eq!(store.endpoint(first.id).await.unwrap(), Some(changed));

    let able = |reason: Option<&str>| EndpointChange::Able(first.id, reason.map(Into::into), later(2));
    store.change_endpoints(able(Some("gone"))).await.unwrap();
    assert_eq!(store.endpoint(first.id).await.unwrap().unwrap().disabled_reason.as_deref(), Some("gone"));
    store.change_endpoints(able(None)).await.unwrap();
    assert_eq!(store.endpoint(first.id).await.unwrap().unwrap().disabled_reason, None);
    store.change_endpoints(EndpointChange::Delete(first.id)).await.unwrap();
    assert_eq!(store.endpoint(first.id).await.unwrap(), None);
}

pub async fn one_server_at_a_time_delivers_to_an_endpoint(db: Database) {
    let store = db.open();
    let (one, two) = (endpoint(None), endpoint(None));
    insert(&store, &one).await;
    insert(&store, &two).await;
    let claim = |server: &str, now: Timestamp, until: Timestamp| EndpointChange::Claim(server.into(), now, until);
    let holders =
        || async { store.endpoints().await.unwrap().into_iter().map(|(_, server)| server).collect::<Vec<_>>() };
    assert_eq!(store.change_endpoints(claim("a", later(0), later(20))).await.unwrap(), 2);
    assert_eq!(store.change_endpoints(claim("b", later(10), later(30))).await.unwrap(), 0);
    assert_eq!(store.change_endpoints(claim("a", later(11), later(31))).await.unwrap(), 2, "renewed");
    assert_eq!(store.change_endpoints(claim("b", later(25), later(45))).await.unwrap(), 0);
    assert_eq!(holders().await, ["a", "a"]);
    store.change_endpoints(EndpointChange::Able(two.id, Some("gone".into()), NOW)).await.unwrap();
    assert_eq!(store.change_endpoints(claim("b", later(32), later(52))).await.unwrap(), 1, "a is gone");
    assert_eq!(holders().await, ["b", "a"]);
    store.change_endpoints(EndpointChange::Release("b".into())).await.unwrap();
    assert_eq!(store.change_endpoints(claim("c", later(33), later(53))).await.unwrap(), 1, "left to others");
}

pub async fn deliveries_are_written_with_their_append_or_not_at_all(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    let to = endpoint(None);
    insert(&store, &to).await;
    let mut first = create(&record);
    first.deliveries = vec![delivery(to.id, &key("k"), 1)];
    let ids: Vec<DeliveryId> = first.deliveries.iter().map(|one| one.id).collect();
    store.append(first).await.unwrap();
    let mut stale = append(&key("k"), 1, 7, &["x"]);
    stale.deliveries = vec![delivery(to.id, &key("k"), 8)];
    stale.dropped = vec![(to.id, 3)];
    assert!(matches!(store.append(stale).await, Err(AppendError::Fenced)));
    let mut second = append(&key("k"), 1, 1, &["a", "b"]);
    second.deliveries = vec![delivery(to.id, &key("k"), 2), delivery(to.id, &key("k"), 3)];
    second.dropped = vec![(to.id, 2)];
    let ids: Vec<DeliveryId> = ids.into_iter().chain(second.deliveries.iter().map(|one| one.id)).collect();
    store.append(second).await.unwrap();
    assert_eq!(store.endpoint(to.id).await.unwrap().unwrap().dropped, 2);
    assert_eq!(store.backlogs().await.unwrap()[&to.id], 3);

    let next = store.next_delivery(to.id).await.unwrap().unwrap();
    assert_eq!((next.id, next.tries, next.next_at), (ids[0], 0, NOW));
    assert_eq!(next.body, r#"{"type":"error","timestamp":"x","data":{"seq":1}}"#);
    store.note_attempt(attempt(ids[0], to.id, Some("no\0"), Some(later(9)))).await.unwrap();
    let next = store.next_delivery(to.id).await.unwrap().unwrap();
    assert_eq!((next.id, next.tries, next.next_at), (ids[0], 1, later(9)), "it holds back the others");
    store.note_attempt(attempt(ids[0], to.id, None, None)).await.unwrap();
    assert_eq!(store.next_delivery(to.id).await.unwrap().unwrap().id, ids[1]);
    let mut last = attempt(ids[1], to.id, Some("no"), None);
    last.disables = Some("failing".into());
    store.note_attempt(last).await.unwrap();
    let now = store.endpoint(to.id).await.unwrap().unwrap();
    assert_eq!((now.failures, now.disabled_reason.as_deref()), (1, Some("failing")));
    assert_eq!((now.last_success_at, now.last_error), (Some(NOW), Some((NOW, "no".into()))));

    let states = |data: Vec<greenroom::protocol::webhook::Delivery>| {
        data.into_iter().map(|one| (one.id, one.state, one.attempts)).collect::<Vec<_>>()
    };
    let listed = store.deliveries(to.id, None, &ALL).await.unwrap().data;
    let (done, failed, pending) = (DeliveryState::Delivered, DeliveryState::Failed, DeliveryState::Pending);
    assert_eq!(states(listed), [(ids[0], done, 2), (ids[1], failed, 1), (ids[2], pending, 0)]);
    let only = store.deliveries(to.id, Some(failed), &ALL).await.unwrap().data;
    assert_eq!((only.len(), only[0].seq, only[0].session.clone()), (1, Some(2), Some(key("k"))));

    // Sent again, it is the next one; and it is the same.
    assert!(store.redeliver(ids[0], later(1)).await.unwrap());
    let next = store.next_delivery(to.id).await.unwrap().unwrap();
    assert_eq!((next.id, next.tries), (ids[0], 0));
    assert!(!store.redeliver(DeliveryId::new(), NOW).await.unwrap());
    store.note_attempt(attempt(ids[0], to.id, None, None)).await.unwrap();
    assert_eq!(store.endpoint(to.id).await.unwrap().unwrap().failures, 0);

    // A session that goes takes along what was over; the rest goes out, and is forgotten in time.
    let mut delete = append(&key("k"), 1, 3, &["gone"]);
    delete.session = SessionWrite::Delete;
    store.append(delete).await.unwrap();
    assert_eq!(states(store.deliveries(to.id, None, &ALL).await.unwrap().data), [(ids[2], pending, 0)]);
    store.note_attempt(attempt(ids[2], to.id, None, None)).await.unwrap();
    assert_eq!(store.purge_deliveries(NOW).await.unwrap(), 0);
    assert_eq!(store.purge_deliveries(later(1)).await.unwrap(), 1);
    store.enqueue_delivery(DeliveryWrite { event: None, ..delivery(to.id, &key("k"), 1) }).await.unwrap();
    store.change_endpoints(EndpointChange::Delete(to.id)).await.unwrap();
    assert_eq!(store.backlogs().await.unwrap().len(), 0);
    store.enqueue_delivery(delivery(to.id, &key("k"), 1)).await.unwrap();
    assert_eq!(store.purge_deliveries(NOW).await.unwrap(), 1, "nobody waits for it");
}

pub async fn a_reply_has_the_final_text(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    let to = endpoint(None);
    insert(&store, &to).await;
    store.append(create(&record)).await.unwrap();
    let done = turn(&record, TurnState::Completed, 1);
    let mut last = append(&key("k"), 1, 1, &["end"]);
    last.turns = vec![TurnWrite::Insert(Box::new(done.clone()))];
    let mut texts = [message("first"), message("It is \"done\"\u{0}.")];
    texts.iter_mut().for_each(|text| text.turn_id = Some(done.turn.id));
    last.messages = numbered(record.snapshot.id, 1, texts);
    last.deliveries =
        vec![DeliveryWrite { answers: Some((record.snapshot.id, done.turn.id)), ..delivery(to.id, &key("k"), 2) }];
    store.append(last).await.unwrap();
    let body = store.next_delivery(to.id).await.unwrap().unwrap().body;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["data"], serde_json::json!({"seq": 2, "response": "It is \"done\"\u{0}."}));
}
