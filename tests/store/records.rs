//! Sessions, turns, choices, rules and the ledgers: what is written comes back.

use std::time::Duration;

use greenroom::{
    agents::ProcessRecord,
    protocol::{TurnState, turn::TurnError},
    store::{AppendError, ChoiceWrite, IdempotencyRecord, Page, Rule, SessionWrite, StoreError, TurnWrite},
    timestamp::Timestamp,
};
use serde_json::json;

use super::{Database, build::*};

pub async fn a_session_comes_back_as_it_was_written(db: Database) {
    let store = db.open();
    let mut record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap(), stored(&record, 1));
    store.append(append(&key("k"), 1, 1, &["a", "b"])).await.unwrap();
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap(), stored(&record, 3), "the log grows without its row");

    record.snapshot.title = "Other".into();
    record.snapshot.model = None;
    record.snapshot.busy = false;
    record.feedback = json!(null);
    let mut update = append(&key("k"), 1, 3, &["c"]);
    update.session = SessionWrite::Update(Box::new(record.clone()));
    store.append(update).await.unwrap();
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap(), stored(&record, 4));
    assert_eq!(store.session_by_id(record.snapshot.id).await.unwrap().unwrap(), stored(&record, 4));
    assert_eq!(store.session(&key("none")).await.unwrap(), None);
}

fn rule(agent: &str, summary: Option<&str>, allow: bool) -> Rule {
    Rule { agent: agent.into(), tool: "bash".into(), input_summary: summary.map(Into::into), allow }
}

pub async fn a_claim_brings_what_an_actor_needs(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let done = turn(&record, TurnState::Completed, 1);
    let running = with_file(turn(&record, TurnState::Running, 9));
    let (second, first) = (turn(&record, TurnState::Queued, 6), turn(&record, TurnState::Queued, 5));
    let mut steering = turn(&record, TurnState::Queued, 2);
    steering.steers = Some(running.turn.id);
    let (asked, settled) = (choice(&key("k")), choice(&key("k")));

    let mut all = append(&key("k"), 1, 1, &["a"]);
    let turns = [&steering, &done, &second, &running, &first];
    all.turns = turns.into_iter().map(|turn| TurnWrite::Insert(Box::new(turn.clone()))).collect();
    all.choices = vec![
        ChoiceWrite::Insert { choice: Box::new(asked.clone()), ask_id: "ask-1".into() },
        ChoiceWrite::Insert { choice: Box::new(settled.clone()), ask_id: "ask-2".into() },
        ChoiceWrite::Resolve { id: settled.id, outcome: json!({}), source: "api".into(), at: NOW },
    ];
    all.rules = vec![rule("a", None, true), rule("a", Some("ls"), true), rule("a", None, false)];
    let id = record.snapshot.id;
    all.native_ids = vec![
        (id, "claude".into(), Some("old".into())),
        (id, "codex".into(), Some("gone".into())),
        (id, "claude".into(), Some("new".into())),
        (id, "codex".into(), None),
    ];
    store.append(all).await.unwrap();
    assert_eq!(store.unfinished_keys().await.unwrap(), [key("k")]);

    let session = store.claim(&key("k")).await.unwrap().unwrap().session.unwrap();
    assert_eq!(session.record, stored(&record, 2));
    assert_eq!(session.unfinished, [running, first, second, steering]);
    assert_eq!(session.choices, [(asked, "ask-1".to_owned())]);
    assert_eq!(session.rules, [rule("a", Some("ls"), true), rule("a", None, false)], "a later rule replaces the same");
    assert_eq!(session.native_ids, [("claude".to_owned(), "new".to_owned())].into());
}

pub async fn turns_keep_their_files_through_changes(db: Database) {
    let store = db.open();
    let record = session(&key("k"));
    store.append(create(&record)).await.unwrap();
    let mut one = with_file(turn(&record, TurnState::Queued, 1));
    let mut insert = append(&key("k"), 1, 1, &["a"]);
    insert.turns = vec![TurnWrite::Insert(Box::new(one.clone()))];
    store.append(insert).await.unwrap();
    assert_eq!(store.turn(&key("k"), one.turn.id).await.unwrap().unwrap(), one);
    assert_eq!(store.turn(&key("other"), one.turn.id).await.unwrap(), None);

    one.turn.state = TurnState::Failed;
    one.turn.text = "edited".into();
    one.turn.started_at = Some(NOW);
    one.turn.finished_at = Some(NOW);
    one.turn.error = Some(TurnError { code: "agent_error".into(), message: "m".into() });
    one.turn.usage.output_tokens = 9;
    one.turn.summary = Some("s".into());
    one.rank = 7;
    let mut update = append(&key("k"), 1, 2, &["b"]);
    update.turns = vec![TurnWrite::Update(Box::new(one.clone())), TurnWrite::Text(one.turn.id, "edited".into())];
    store.append(update).await.unwrap();
    assert_eq!(store.turn(&key("k"), one.turn.id).await.unwrap().unwrap(), one);
    assert_eq!(store.unfinished_keys().await.unwrap(), []);

    let mut steering = with_file(turn(&record, TurnState::Queued, 2));
    steering.steers = Some(one.turn.id);
    let mut offer = append(&key("k"), 1, 3, &["c"]);
    offer.turns = vec![TurnWrite::Insert(Box::new(steering.clone()))];
    store.append(offer).await.unwrap();
    assert_eq!(store.turn(&key("k"), steering.turn.id).await.unwrap(), None, "not shown to clients");
    let mut taken = append(&key("k"), 1, 4, &["d"]);
    taken.turns = vec![TurnWrite::Remove(steering.turn.id)];
    store.append(taken).await.unwrap();
    assert_eq!(store.claim(&key("k")).await.unwrap().unwrap().session.unwrap().unfinished, []);
}

pub async fn a_choice_is_settled_once(db: Database) {
    let store = db.open();
    store.append(create(&session(&key("k")))).await.unwrap();
    let asked = choice(&key("k"));
    let mut ask = append(&key("k"), 1, 1, &["a"]);
    ask.choices = vec![ChoiceWrite::Insert { choice: Box::new(asked.clone()), ask_id: "x".into() }];
    store.append(ask).await.unwrap();
    assert_eq!(store.choice(&key("k"), asked.id).await.unwrap(), Some((asked.clone(), false)));
    assert_eq!(store.choice(&key("other"), asked.id).await.unwrap(), None);
    let settle = |seq| {
        let mut settle = append(&key("k"), 1, seq, &["b"]);
        let outcome = json!({"option_id": "o1"});
        settle.choices = vec![ChoiceWrite::Resolve { id: asked.id, outcome, source: "api".into(), at: NOW }];
        settle
    };
    store.append(settle(2)).await.unwrap();
    assert_eq!(store.choice(&key("k"), asked.id).await.unwrap(), Some((asked.clone(), true)));
    assert_eq!(store.pending_choices(None, None).await.unwrap(), []);
    let again = store.append(settle(3)).await;
    assert!(matches!(again, Err(AppendError::Store(StoreError::Corrupt(_)))), "{again:?}");
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap().snapshot.last_seq, 3, "and its event is not written");
}

pub async fn a_reset_keeps_the_old_conversation_readable(db: Database) {
    let store = db.open();
    let (mut old, new) = (session(&key("k")), session(&key("k")));
    store.append(create(&old)).await.unwrap();
    let said = message("old");
    let mut fill = append(&key("k"), 1, 1, &["a"]);
    fill.messages = numbered(old.snapshot.id, 1, [said.clone()]);
    fill.rules = vec![rule("a", None, true)];
    fill.native_ids = vec![(old.snapshot.id, "claude".into(), Some("n".into()))];
    store.append(fill).await.unwrap();

    old.snapshot.busy = false;
    old.snapshot.last_seq = 2;
    let mut reset = append(&key("k"), 1, 2, &["reset"]);
    let (previous, next) = (Box::new(old.clone()), Box::new(new.clone()));
    reset.session = SessionWrite::Replace { previous, next };
    reset.rules = vec![rule("b", None, true)];
    store.append(reset).await.unwrap();

    assert_eq!(store.session(&key("k")).await.unwrap().unwrap(), stored(&new, 3));
    assert_eq!(store.session_by_id(old.snapshot.id).await.unwrap().unwrap(), stored(&old, 2));
    assert_eq!(store.transcript(old.snapshot.id, 10, u64::MAX).await.unwrap(), std::slice::from_ref(&said));
    assert_eq!(store.transcript(new.snapshot.id, 10, u64::MAX).await.unwrap(), []);
    assert_eq!(store.message(&key("k"), said.id).await.unwrap(), Some(said));
    let claimed = store.claim(&key("k")).await.unwrap().unwrap().session.unwrap();
    assert_eq!((claimed.rules.len(), claimed.native_ids.len()), (1, 0));
    assert_eq!(claimed.rules[0], rule("b", None, true));
}

pub async fn a_delete_takes_everything_along(db: Database) {
    let store = db.open();
    let mut kept = None;
    for name in ["k", "kept"] {
        let record = session(&key(name));
        store.append(create(&record)).await.unwrap();
        let mut fill = append(&key(name), 1, 1, &["a"]);
        let one = with_file(turn(&record, TurnState::Queued, 1));
        let (said, asked) = (message("m"), choice(&key(name)));
        fill.turns = vec![TurnWrite::Insert(Box::new(one.clone()))];
        fill.messages = numbered(record.snapshot.id, 1, [said.clone()]);
        fill.choices = vec![ChoiceWrite::Insert { choice: Box::new(asked.clone()), ask_id: "x".into() }];
        fill.rules = vec![rule("a", None, true)];
        fill.native_ids = vec![(record.snapshot.id, "claude".into(), Some("n".into()))];
        fill.idempotency = vec![call(name, Timestamp::now())];
        store.append(fill).await.unwrap();
        let found = || async {
            (
                store.session_by_id(record.snapshot.id).await.unwrap().is_some(),
                store.turn(&key(name), one.turn.id).await.unwrap().is_some_and(|turn| turn.attachments.len() == 1),
                !store.transcript(record.snapshot.id, 9, u64::MAX).await.unwrap().is_empty(),
                store.choice(&key(name), asked.id).await.unwrap().is_some(),
                store.idempotency("scope", name).await.unwrap().is_some(),
                store.unfinished_keys().await.unwrap().contains(&key(name)),
            )
        };
        assert_eq!(found().await, (true, true, true, true, true, true));
        if name == "k" {
            let mut delete = append(&key("k"), 1, 2, &["deleted"]);
            delete.session = SessionWrite::Delete;
            store.append(delete).await.unwrap();
            assert_eq!(found().await, (false, false, false, false, false, false));
        } else {
            assert_eq!(found().await, (true, true, true, true, true, true), "others keep theirs");
            kept = Some(record);
        }
    }
    // What comes after a delete must not find old rules or agents.
    let claimed = store.claim(&key("k")).await.unwrap().unwrap();
    let mut again = append(&key("k"), claimed.epoch, 3, &["created"]);
    again.session = SessionWrite::Create(Box::new(session(&key("k"))));
    store.append(again).await.unwrap();
    let claimed = store.claim(&key("k")).await.unwrap().unwrap().session.unwrap();
    assert_eq!((claimed.rules.len(), claimed.native_ids.len(), claimed.unfinished.len()), (0, 0, 0));
    let kept = kept.unwrap();
    let claimed = store.claim(&key("kept")).await.unwrap().unwrap().session.unwrap();
    assert_eq!((claimed.rules.len(), claimed.native_ids.len(), claimed.unfinished.len()), (1, 1, 1));
    assert_eq!(claimed.record, stored(&kept, 2));
}

fn call(name: &str, at: Timestamp) -> IdempotencyRecord {
    IdempotencyRecord {
        scope: "scope".into(),
        key: name.into(),
        request_hash: "h".into(),
        outcome: "{}".into(),
        created_at: at,
    }
}

pub async fn calls_are_remembered_for_a_day(db: Database) {
    let store = db.open();
    let ago = |hours: u64| {
        Timestamp(Timestamp::now().0 - i64::try_from(Duration::from_secs(hours * 3600).as_micros()).unwrap())
    };
    let (fresh, old) = (call("fresh", ago(23)), call("old", ago(25)));
    store.remember_call(fresh.clone()).await.unwrap();
    store.remember_call(old.clone()).await.unwrap();
    assert_eq!(store.idempotency("scope", "fresh").await.unwrap(), Some(fresh.clone()));
    assert_eq!(store.idempotency("other", "fresh").await.unwrap(), None);
    assert_eq!(store.idempotency("scope", "old").await.unwrap(), None, "too old");
    let again = IdempotencyRecord { request_hash: "h2".into(), created_at: ago(0), ..old };
    store.remember_call(again.clone()).await.unwrap();
    assert_eq!(store.idempotency("scope", "old").await.unwrap(), Some(again), "the key can be used again");
    assert_eq!(store.sweep_idempotency(ago(1)).await.unwrap(), 1);
    assert_eq!(store.idempotency("scope", "fresh").await.unwrap(), None);
}

pub async fn processes_are_listed_until_they_end(db: Database) {
    let store = db.open();
    let process = |pgid, ticks| ProcessRecord {
        pgid,
        started_ticks: ticks,
        boot_id: "b".into(),
        agent: "claude".into(),
        session: "k".into(),
        marker: format!("m{ticks}"),
    };
    store.process_started(process(7, 1)).await.unwrap();
    store.process_started(process(5, 2)).await.unwrap();
    store.process_started(process(7, 3)).await.unwrap();
    assert_eq!(store.processes().await.unwrap(), [process(5, 2), process(7, 3)]);
    store.process_ended(5).await.unwrap();
    store.process_ended(99).await.unwrap();
    assert_eq!(store.processes().await.unwrap(), [process(7, 3)]);
}

pub async fn nul_characters_are_stored(db: Database) {
    let store = db.open();
    let mut record = session(&key("k"));
    record.snapshot.title = "a\0b".into();
    store.append(create(&record)).await.unwrap();
    let mut one = turn(&record, TurnState::Queued, 1);
    one.turn.text = "\0".into();
    let said = message("x\0y");
    let mut next = append(&key("k"), 1, 1, &["\0"]);
    next.turns = vec![TurnWrite::Insert(Box::new(one.clone()))];
    next.messages = numbered(record.snapshot.id, 1, [said.clone()]);
    store.append(next).await.unwrap();
    assert_eq!(store.session(&key("k")).await.unwrap().unwrap().snapshot.title, "a\u{fffd}b");
    assert_eq!(store.turn(&key("k"), one.turn.id).await.unwrap().unwrap().turn.text, "\u{fffd}");
    let page = Page { limit: 5, after: None, before: None, ascending: true };
    assert_eq!(store.messages(record.snapshot.id, &page).await.unwrap().data, [said], "JSON keeps it");
}
