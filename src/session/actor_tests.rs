//! What a session does when something goes wrong inside that no way through the code should lead to.

use std::sync::{Arc, RwLock};

use actix::{Actor, Context, Handler, Message};

use super::{
    Deps, Effective, SessionActor, SessionHandle,
    actor::Origin,
    admission::Admission,
    command::{Command, Enqueue},
    day_sums::DaySums,
    messages::{EvictIfIdle, Execute, Expect, GetView, Join, Joined, Leave, SessionStopped},
};
use crate::{
    access::{Access, Principal},
    agents::{Registry, pool::Pool, process::Unrecorded},
    config::{Config, Secret},
    protocol::{Policy, TurnState},
    server,
    store::Store,
    webhooks::outbound::Outbound,
};

/// Takes the reports that are a supervisor's.
struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<SessionStopped> for Nobody {
    type Result = ();

    fn handle(&mut self, _: SessionStopped, _: &mut Self::Context) {}
}

/// Loses the agent without a word.
#[derive(Message)]
#[rtype(result = "()")]
struct LoseAgent;

impl Handler<LoseAgent> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: LoseAgent, _: &mut Self::Context) {
        self.close_agent();
    }
}

async fn launch(folder: &tempfile::TempDir) -> SessionHandle {
    launch_with(Config::default(), folder).await.0
}

async fn launch_with(mut config: Config, folder: &tempfile::TempDir) -> (SessionHandle, Store) {
    config.store.url = Some(Secret::new(format!("sqlite:{}", folder.path().join("test.db").display())));
    config.data_dir = Some(folder.path().to_owned());
    let store = Store::open(&config.store).unwrap();
    let access = Arc::new(Access::open(store.clone(), &config.callers).await.unwrap());
    let deps = Deps {
        registry: Registry::new(&config).unwrap(),
        outbound: Outbound::open(store.clone(), Arc::clone(&access), &config, Vec::new()).await.unwrap(),
        access,
        store: store.clone(),
        pool: Pool::new(1),
        admission: Admission::new(1),
        day_sums: DaySums::default(),
        ledger: Arc::new(Unrecorded),
        effective: RwLock::new(Arc::new(Effective { settings: server::settings(&config), config })),
    };
    let origin =
        Origin { key: "k".parse().unwrap(), incarnation: 1, epoch: 0, last_seq: 0, state: None, recover: "test" };
    (SessionActor::launch(origin, Arc::new(deps), Nobody.start().recipient(), None), store)
}

fn message(text: &str) -> Execute {
    let message = Enqueue {
        user: "local".into(),
        text: text.into(),
        attachments: Arc::default(),
        policy: Policy::Enqueue,
        agent: None,
        model: None,
        mode: None,
        permission_mode: None,
        source: "test".into(),
        client_id: None,
        metadata: serde_json::Map::new(),
        continued_from: None,
        attempt: 1,
        once: None,
        request_id: None,
        before: Arc::default(),
        after: None,
    };
    Execute(Arc::new(Principal::local()), Command::Enqueue(Arc::new(message)))
}

/// Waits until the session's running turn is as wanted.
async fn until(session: &SessionHandle, wanted: Option<TurnState>) {
    let look = async {
        loop {
            let view = session.send(GetView).await.unwrap().unwrap();
            if view.state.running.as_ref().map(|running| running.turn.turn.state) == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), look).await.unwrap();
}

#[actix::test]
async fn a_session_that_somebody_is_about_to_follow_stays() {
    let folder = tempfile::tempdir().unwrap();
    let session = launch(&folder).await;
    let look = || session.send(EvictIfIdle { idle: std::time::Duration::ZERO });
    assert_eq!(session.send(Expect).await, Ok(0));
    assert!(!look().await.unwrap());
    let outbox = Arc::default();
    let join = Join { id: None, outbox, raw: false, after: None, near: 0, hello: false };
    let Joined { id, .. } = session.send(join).await.unwrap();
    assert!(!look().await.unwrap(), "somebody follows it");
    session.send(Leave { id }).await.unwrap();
    assert!(look().await.unwrap());
}

#[actix::test]
async fn a_turn_that_no_agent_has_ends_and_the_queue_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let session = launch(&folder).await;
    session.send(message(r#"/script {"hang":true}"#)).await.unwrap().unwrap();
    session.send(message("next")).await.unwrap().unwrap();
    until(&session, Some(TurnState::Running)).await;
    // One look alone is not enough: something may be on its way that does not show.
    let look = || session.send(EvictIfIdle { idle: std::time::Duration::from_secs(3600) });
    assert!(!look().await.unwrap());
    session.send(LoseAgent).await.unwrap();
    assert!(!look().await.unwrap());
    until(&session, Some(TurnState::Running)).await;
    assert!(!look().await.unwrap());
    until(&session, None).await;
    let view = session.send(GetView).await.unwrap().unwrap();
    assert!(view.state.queue.is_empty(), "what waited has run");
}

/// A session with a warm agent that keeps a record of what it is told.
struct Warm {
    session: SessionHandle,
    store: Store,
    record: std::path::PathBuf,
}

impl Warm {
    async fn new(folder: &tempfile::TempDir) -> Self {
        let record = folder.path().join("record");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
        let fake = serde_json::json!({
            "kind": "acp",
            "command": ["node", script],
            "env": {"FAKE_LOG": record, "PATH": std::env::var("PATH").unwrap()},
        });
        let mut config = Config::default();
        config.agents.insert("fake".into(), serde_json::from_value(fake).unwrap());
        config.session.default_agent = Some("fake".into());
        let (session, store) = launch_with(config, folder).await;
        session.send(message("first")).await.unwrap().unwrap();
        until(&session, None).await;
        Self { session, store, record }
    }

    /// Waits until the agent has got the text.
    async fn heard(&self, text: &str) {
        let look = async {
            while !std::fs::read_to_string(&self.record).unwrap().contains(text) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), look).await.expect("the agent has not got it");
    }
}

#[actix::test]
async fn a_warm_agent_begins_with_a_new_turn_while_the_disk_writes_and_nobody_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let warm = Warm::new(&folder).await;
    let disk = warm.store.disk().lock().await;
    let mut answer = std::pin::pin!(warm.session.send(message("second")));
    tokio::select! {
        answer = &mut answer => panic!("told before the disk had it: {answer:?}"),
        () = warm.heard("second") => {}
    }
    let view = warm.session.send(GetView).await.unwrap().unwrap();
    assert!(view.state.running.is_none(), "what is not on the disk is not shown");
    drop(disk);
    answer.await.unwrap().unwrap();
    until(&warm.session, None).await;
    let turns = warm.session.send(GetView).await.unwrap().unwrap().state.record.snapshot.message_count;
    assert_eq!(turns, 4, "two questions and two answers");
}

#[actix::test]
async fn a_turn_that_the_disk_did_not_take_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let warm = Warm::new(&folder).await;
    let mut disk = warm.store.disk().lock().await;
    let mut answer = std::pin::pin!(warm.session.send(message(r#"[{"say":"second"},{"hang":0}]"#)));
    tokio::select! {
        answer = &mut answer => panic!("told before the disk had it: {answer:?}"),
        () = warm.heard("second") => *disk = true,
    }
    drop(disk);
    let refused = answer.await.unwrap().unwrap_err();
    assert_eq!(refused.code, crate::error::Code::StoreUnavailable);
    let gone = async {
        while warm.session.send(GetView).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("the session is opened anew");
    *warm.store.disk().lock().await = false;
    let claimed = warm.store.claim(&"k".parse().unwrap()).await.unwrap().unwrap();
    let running = claimed.session.unwrap().unfinished;
    assert_eq!(running.len(), 1, "the turn that its agent has begun with is known, to be settled as interrupted");
}
