//! Sessions: make, list, look at, change, end.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    Gateway, Idempotency, MessageRange, Principal, StateView, authority::visible, key_reused, session_not_found,
    too_slow, validate,
};
use crate::{
    error::{ApiError, Code},
    ids::{MessageId, SessionId, SessionKey},
    protocol::{Brief, CreateSession, Message, OpenTool, PatchSession, Snapshot, Visibility},
    session::{
        budget_of_stored,
        command::{Command, Done, Once},
        messages::GetView,
        state::{OpenMessage, State},
    },
    store::{IdempotencyRecord, Page, Paged, SessionFilter, SessionRecord, Viewer},
    supervisor::{FindLive, unreadable},
    timestamp::Timestamp,
};

/// Characters of an `Idempotency-Key` at most.
const MAX_ONCE_KEY: usize = 256;

impl Gateway {
    /// Makes a session.
    ///
    /// # Errors
    /// `session_exists`, `unknown_agent`, and those of the body.
    pub async fn create_session(
        &self,
        who: &Principal,
        body: CreateSession,
        once: Option<Idempotency>,
    ) -> Result<Snapshot, ApiError> {
        validate::create(&body)?;
        self.check_agent(body.agent.as_deref())?;
        self.check_permission_mode(body.permission_mode.as_deref(), body.agent.as_deref(), None).await?;
        let key: SessionKey = match &body.key {
            Some(key) => key.parse().map_err(|error| ApiError::new(Code::InvalidId, format!("key: {error}")))?,
            None => SessionKey::generate(),
        };
        self.check_visibility(who, body.visibility.unwrap_or_default(), body.org_id.as_deref())?;
        // The path names no session, so what the body names is a part of the call: another key is another body.
        let once = self.once(who, "create", "", once)?;
        let one_at_a_time = once.as_ref().map(|once| self.making(once));
        let _held = match &one_at_a_time {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.created_before(who, &known.outcome).await;
        }
        let _room = self.room_for(who, Some(&key), false).await?;
        let command = Command::Create { owner: who.user.clone(), body: Arc::new(body), once };
        match self.execute(who, &key, true, command).await? {
            Done::Snapshot(snapshot) => Ok(*snapshot),
            Done::Duplicate(outcome) => self.created_before(who, &outcome).await,
            _ => Err(unexpected()),
        }
    }

    /// The lock of a call that must not happen twice; it lives as long as somebody holds or awaits it.
    pub(super) fn making(&self, once: &Once) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        making.retain(|_, lock| lock.strong_count() > 0);
        let name = (once.scope.clone(), once.key.clone());
        let lock = making.get(&name).and_then(std::sync::Weak::upgrade).unwrap_or_default();
        making.insert(name, Arc::downgrade(&lock));
        lock
    }

    /// Makes the session if there is none.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn ensure(&self, who: &Principal, key: &SessionKey) -> Result<(), ApiError> {
        self.execute(who, key, true, Command::Ensure { owner: who.user.clone() }).await.map(drop)
    }

    /// The session that an earlier call with the same `Idempotency-Key` made, as it is now.
    async fn created_before(&self, who: &Principal, outcome: &str) -> Result<Snapshot, ApiError> {
        let value: Value = serde_json::from_str(outcome).map_err(|_bad| unexpected())?;
        let id = value.get("session").and_then(Value::as_str).and_then(|id| id.parse::<SessionId>().ok());
        let record = self.deps.store.session_by_id(id.ok_or_else(unexpected)?).await?;
        let gone = || ApiError::new(Code::SessionNotFound, "the session that this call made has been deleted since");
        self.snapshot(who, &record.ok_or_else(gone)?.snapshot.key).await
    }

    pub(super) fn check_agent(&self, agent: Option<&str>) -> Result<(), ApiError> {
        let Some(agent) = agent else { return Ok(()) };
        if self.deps.registry.capabilities(agent).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.deps.registry.names().collect();
        let message = format!("no agent {agent:?} is configured; there are: {}", known.join(", "));
        Err(ApiError::new(Code::UnknownAgent, message).with("agents", known))
    }

    /// Checks a permission mode against the agent that it is for: the one named, or the session's, or the default.
    pub(super) async fn check_permission_mode(
        &self,
        mode: Option<&str>,
        agent: Option<&str>,
        key: Option<&SessionKey>,
    ) -> Result<(), ApiError> {
        let Some(mode) = mode else { return Ok(()) };
        let agent = match (agent, key) {
            (Some(agent), _) => agent.to_owned(),
            (None, Some(key)) => match self.view(key).await? {
                Some(view) => view.state.record.snapshot.agent.clone(),
                None => {
                    let stored = self.deps.store.session(key).await?;
                    stored.map_or_else(|| self.config().default_agent().to_owned(), |record| record.snapshot.agent)
                }
            },
            (None, None) => self.config().default_agent().to_owned(),
        };
        validate::permission_mode(mode, &agent, &self.config())
    }

    /// A call that must not happen twice, scoped to caller, route and session.
    pub(super) fn once(
        &self,
        who: &Principal,
        route: &str,
        key: &str,
        once: Option<Idempotency>,
    ) -> Result<Option<Once>, ApiError> {
        let Some(Idempotency { key: once, request_hash }) = once else { return Ok(None) };
        check_once_key(&once)?;
        Ok(Some(Once { scope: format!("{} {route} {key}", who.user), key: once, request_hash }))
    }

    /// What an earlier call with the same key made, if there was one.
    pub(super) async fn known_call(&self, once: Option<&Once>) -> Result<Option<IdempotencyRecord>, ApiError> {
        let Some(once) = once else { return Ok(None) };
        let known = self.deps.store.idempotency(&once.scope, &once.key).await?;
        match known {
            Some(known) if known.request_hash != once.request_hash => Err(key_reused()),
            known => Ok(known),
        }
    }

    /// A page of snapshots; those that are live come from their actors.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn sessions(
        &self,
        who: &Principal,
        mut filter: SessionFilter,
        page: Page,
    ) -> Result<Paged<Snapshot>, ApiError> {
        filter.seen_by = (!who.is_admin()).then(|| Viewer { user: who.user.clone(), orgs: who.orgs.clone() });
        let paged = self.deps.store.sessions(&filter, &page).await?;
        let keys = paged.data.iter().map(|record| record.snapshot.key.clone()).collect();
        let live = self.supervisor.send(FindLive(keys)).await.map_err(|_gone| too_slow())?;
        let views = live.into_iter().map(|(key, session)| async move {
            let view = session.send(GetView).await.ok().flatten();
            view.map(|view| (key, view.state.snapshot(view.subscribers)))
        });
        let mut live: HashMap<SessionKey, Snapshot> =
            futures_util::future::join_all(views).await.into_iter().flatten().collect();
        let fresh = |stored: Snapshot| match live.remove(&stored.key) {
            // A reset between the two reads has given the key another conversation: the list keeps its order.
            Some(now) if now.id == stored.id => now,
            _ => stored,
        };
        // What was made private between the two reads is not shown any more.
        let data = paged.data.into_iter().map(|record| self.shown(record)).map(fresh).filter(|one| who.may_see(one));
        let data = data.collect();
        Ok(Paged { data, has_more: paged.has_more })
    }

    /// A session as it is now. Wakes nothing.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn snapshot(&self, who: &Principal, key: &SessionKey) -> Result<Snapshot, ApiError> {
        if let Some(view) = self.view(key).await? {
            return visible(who, key, view.state.snapshot(view.subscribers));
        }
        let record = self.deps.store.session(key).await.map_err(|error| unreadable(key, error))?;
        visible(who, key, self.shown(record.ok_or_else(|| session_not_found(key))?))
    }

    /// The snapshot of a session that is not in memory.
    fn shown(&self, record: SessionRecord) -> Snapshot {
        let config = self.config();
        let budget = budget_of_stored(&record, &config.budget, &self.deps.day_sums, Timestamp::now());
        Snapshot { budget, ..record.snapshot }
    }

    /// The conversation of a session: the present one, or an earlier one by its id.
    async fn conversation(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: Option<SessionId>,
    ) -> Result<SessionId, ApiError> {
        let present = self.snapshot(who, key).await?.id;
        let Some(id) = id.filter(|id| *id != present) else { return Ok(present) };
        match self.deps.store.session_by_id(id).await? {
            Some(record) if record.snapshot.key == *key => Ok(id),
            _ => Err(ApiError::new(Code::SessionNotFound, "the session has no conversation of that id")),
        }
    }

    /// Changes a session.
    ///
    /// # Errors
    /// `session_not_found`, `session_busy`, `too_many_sessions` when it comes back from the archive, and those of the body.
    pub async fn patch_session(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: PatchSession,
    ) -> Result<Snapshot, ApiError> {
        validate::patch(&body)?;
        self.check_agent(body.agent.as_deref())?;
        self.may_write(who, key).await?;
        self.check_permission_mode(body.permission_mode.as_deref(), body.agent.as_deref(), Some(key)).await?;
        let shown = body.visibility.is_some() || body.org_id.is_some();
        if shown {
            let now = self.snapshot(who, key).await?;
            let visibility = body.visibility.unwrap_or(now.visibility);
            let stored = now.org_id.filter(|_| visibility == Visibility::Org);
            let org = body.org_id.clone().unwrap_or(stored);
            self.check_visibility(who, visibility, org.as_deref())?;
        }
        let _room = match body.archived {
            Some(false) => self.room_to_unarchive(who, key).await?,
            _ => None,
        };
        self.snapshot_of(who, key, Command::Patch(Arc::new(body))).await
    }

    async fn snapshot_of(&self, who: &Principal, key: &SessionKey, command: Command) -> Result<Snapshot, ApiError> {
        match self.execute(who, key, false, command).await? {
            Done::Snapshot(snapshot) => Ok(*snapshot),
            // A delete came between.
            Done::Unit => Err(session_not_found(key)),
            _ => Err(unexpected()),
        }
    }

    /// Starts a new conversation under the same key.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn reset(
        &self,
        who: &Principal,
        key: &SessionKey,
        once: Option<Idempotency>,
    ) -> Result<Snapshot, ApiError> {
        self.may_write(who, key).await?;
        let once = self.once(who, "reset", key.as_str(), once)?;
        if self.known_call(once.as_ref()).await?.is_some() {
            return self.snapshot(who, key).await;
        }
        match self.execute(who, key, false, Command::Reset(once)).await? {
            Done::Snapshot(snapshot) => Ok(*snapshot),
            Done::Duplicate(_) => self.snapshot(who, key).await,
            // A delete came between.
            Done::Unit => Err(session_not_found(key)),
            _ => Err(unexpected()),
        }
    }

    /// Restarts the agent at the next turn.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn reload(&self, who: &Principal, key: &SessionKey) -> Result<Snapshot, ApiError> {
        self.may_write(who, key).await?;
        self.snapshot_of(who, key, Command::Reload).await
    }

    /// The brief: `goal`, `done`, `open`, `clarifications`.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn brief(&self, who: &Principal, key: &SessionKey) -> Result<Brief, ApiError> {
        self.snapshot(who, key).await?;
        let brief = match self.view(key).await? {
            Some(view) => view.state.record.brief.clone(),
            None => self.deps.store.session(key).await?.ok_or_else(|| session_not_found(key))?.brief,
        };
        Ok(Brief::of(&brief))
    }

    /// Replaces those parts of the brief that are texts.
    ///
    /// # Errors
    /// `session_not_found`, `invalid_json`.
    pub async fn put_brief(
        &self,
        who: &Principal,
        key: &SessionKey,
        brief: Map<String, Value>,
    ) -> Result<Brief, ApiError> {
        validate::brief(&brief)?;
        self.may_write(who, key).await?;
        match self.execute(who, key, false, Command::Brief(brief)).await? {
            Done::Brief(brief) => Ok(Brief::of(&brief)),
            _ => Err(unexpected()),
        }
    }

    /// The slash commands that the agent offers now: the list as the agent gives it.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn commands(&self, who: &Principal, key: &SessionKey) -> Result<Value, ApiError> {
        self.snapshot(who, key).await?;
        Ok(self.view(key).await?.map_or_else(|| json!([]), |view| view.state.commands))
    }

    /// All that a client needs to draw a session: valid for the `seq` in it.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn state(&self, who: &Principal, key: &SessionKey, messages: u32) -> Result<StateView, ApiError> {
        let view = self.view(key).await?;
        let (snapshot, state) = match view {
            Some(view) => (view.state.snapshot(view.subscribers), Some(view.state)),
            None => {
                let record = self.deps.store.session(key).await?.ok_or_else(|| session_not_found(key))?;
                (self.shown(record), None)
            }
        };
        let snapshot = visible(who, key, snapshot)?;
        // The transcript may have gone on since: only what the snapshot counts belongs to it, the rest comes by the
        // stream.
        let tail = self.deps.store.tail(snapshot.id, snapshot.message_count, messages).await?;
        let mut answer = StateView {
            seq: snapshot.last_seq,
            snapshot,
            messages: tail,
            partial: Vec::new(),
            tools: Vec::new(),
            choices: Vec::new(),
            turn: None,
            queue: Vec::new(),
        };
        if let Some(state) = state {
            add_running(&mut answer, &state);
        }
        Ok(answer)
    }

    /// A part of a transcript.
    ///
    /// # Errors
    /// `session_not_found`, `message_not_found`, `store_unavailable`.
    pub async fn messages(
        &self,
        who: &Principal,
        key: &SessionKey,
        conversation: Option<SessionId>,
        range: MessageRange,
    ) -> Result<Paged<Message>, ApiError> {
        let id = self.conversation(who, key, conversation).await?;
        match range {
            MessageRange::Page(page) => Ok(self.deps.store.messages(id, &page).await?),
            MessageRange::Around(message, limit) => {
                let found = self.deps.store.messages_around(id, message, limit).await?;
                found.ok_or_else(message_not_found)
            }
        }
    }

    /// One message.
    ///
    /// # Errors
    /// `session_not_found`, `message_not_found`, `store_unavailable`.
    pub async fn message(&self, who: &Principal, key: &SessionKey, id: MessageId) -> Result<Message, ApiError> {
        self.snapshot(who, key).await?;
        self.deps.store.message(key, id).await?.ok_or_else(message_not_found)
    }
}

/// The names of the fields that a change has.
fn add_running(answer: &mut StateView, state: &State) {
    answer.queue = state.queued();
    let Some(running) = &state.running else { return };
    answer.turn = Some(running.view());
    answer.choices = running.choices.iter().map(|pending| (*pending.choice).clone()).collect();
    let Some(message) = &running.message else { return };
    answer.partial.push(message.id);
    answer.tools = open_tools(message);
    answer.messages.push(message.message(&running.turn));
}

fn open_tools(message: &OpenMessage) -> Vec<OpenTool> {
    let tools = message.open_tools().map(|tool| OpenTool {
        call_id: tool.call.call_id.clone(),
        name: tool.call.name.clone(),
        title: tool.call.title.clone(),
        kind: tool.call.kind.clone(),
        input: tool.call.input.clone(),
        input_summary: crate::agents::input_summary(&tool.call.input),
        status: tool.status,
        output: tool.output.clone(),
    });
    tools.collect()
}

fn message_not_found() -> ApiError {
    ApiError::new(Code::MessageNotFound, "the session has no message of that id")
}

/// The name of a call that must not happen twice.
pub(super) fn check_once_key(key: &str) -> Result<(), ApiError> {
    if key.is_empty() || key.chars().count() > MAX_ONCE_KEY {
        let message = "an Idempotency-Key has 1 to 256 characters";
        return Err(ApiError::new(Code::IdempotencyKeyTooLong, message).with("limit", MAX_ONCE_KEY));
    }
    Ok(())
}

pub(super) fn unexpected() -> ApiError {
    log::error!("a session answered a command with something that is no answer to it");
    ApiError::new(Code::Internal, "a fault inside; the log has it under the request id")
}
