//! What decisions get from outside: the time, new ids, what agents can do, settings. So the decisions stay pure.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::budget::Amount;
use crate::{
    agents::Capabilities,
    config::{BudgetConfig, TimeoutOutcome},
    ids::{ChoiceId, MessageId, SessionId, SessionKey, TurnId},
    protocol::{AgentStatus, Snapshot, Usage, Visibility},
    store::{BudgetRecord, SessionRecord},
    timestamp::Timestamp,
};

/// What a decision may know beside the state.
pub struct Env<'a> {
    /// The time of the decision.
    pub now: Timestamp,
    /// Where new ids come from.
    pub ids: &'a mut dyn Ids,
    /// What an agent can do; none when no agent of that name is configured.
    pub agents: &'a dyn Fn(&str) -> Option<Capabilities>,
    /// Whether one more turn may run now, over all sessions; a yes takes the place.
    pub admit: &'a dyn Fn() -> bool,
    /// Whether a warm agent may be kept for one more turn: nobody else has waited for its place for longer.
    pub keep: &'a dyn Fn() -> bool,
    /// What a user has used on a day, as far as it is committed.
    pub spent: &'a dyn Fn(&str, i64) -> Amount,
    /// Settings.
    pub settings: &'a Settings,
}

/// Where new ids come from: random in service, counted in tests.
pub trait Ids {
    /// A fresh UUID, later than all before.
    fn uuid(&mut self) -> uuid::Uuid;
}

/// UUIDv7 of the clock.
pub struct RandomIds;

impl Ids for RandomIds {
    fn uuid(&mut self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
}

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Turns that may wait.
    pub max_queue: usize,
    /// The key of the primary session.
    pub primary: String,
    /// The agent of sessions that ask for none.
    pub default_agent: String,
    /// How long a question waits.
    pub choice_timeout: Duration,
    /// What it gets then.
    pub on_timeout: TimeoutOutcome,
    /// The agents that take the turns of others which cannot be started.
    pub fallbacks: BTreeMap<String, String>,
    /// How often a turn that a crash cut off is run again.
    pub retry_interrupted: u32,
    /// How much may be used up.
    pub budget: BudgetConfig,
}

impl Env<'_> {
    /// A fresh turn id.
    pub fn turn_id(&mut self) -> TurnId {
        self.ids.uuid().into()
    }

    /// A fresh message id.
    pub fn message_id(&mut self) -> MessageId {
        self.ids.uuid().into()
    }

    /// A fresh choice id.
    pub fn choice_id(&mut self) -> ChoiceId {
        self.ids.uuid().into()
    }

    /// A fresh session id.
    pub fn session_id(&mut self) -> SessionId {
        self.ids.uuid().into()
    }

    /// A new session with the defaults.
    pub fn new_session(&mut self, key: &SessionKey, owner: &str) -> SessionRecord {
        SessionRecord {
            snapshot: Snapshot {
                key: key.clone(),
                id: self.session_id(),
                title: "untitled".into(),
                owner: owner.into(),
                visibility: Visibility::Private,
                org_id: None,
                agent: self.settings.default_agent.clone(),
                model: None,
                mode: None,
                permission_mode: "default".into(),
                profile: None,
                project_id: None,
                metadata: Map::new(),
                archived: false,
                archived_at: None,
                primary: key.as_str() == self.settings.primary,
                created_at: self.now,
                updated_at: self.now,
                last_active_at: self.now,
                message_count: 0,
                last_message_preview: None,
                busy: false,
                queue_depth: 0,
                live: false,
                subscribers: 0,
                last_seq: 0,
                current_turn: None,
                agent_status: AgentStatus::Idle,
                usage: Usage::default(),
                budget: None,
            },
            brief: Map::new(),
            feedback: Value::Null,
            budget: BudgetRecord::default(),
        }
    }
}
