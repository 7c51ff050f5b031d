//! The core driven as the actor drives it: decide on a copy, keep it when the commit succeeds, throw it away when it
//! does not, rebuild it from rows and log after a crash. Nothing is stored; rows and log are kept in maps.

#[path = "checks.rs"]
mod checks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use greenroom::{
    agents::{AgentEvent, Ask, Capabilities, Opened, Outcome, ToolCall},
    config::{BudgetConfig, TimeoutOutcome},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::{
        Choice, ChoiceAnswer, ChoiceKind, ChoiceOption, Event, EventBody, OptionKind, PatchSession, Policy, Question,
        ResolvedBy, TurnState, event::DeltaKind, frame::decode_event,
    },
    session::{
        budget::Amount,
        command::{Command, Enqueue},
        draft::{Draft, Effect},
        env::{Env, Ids, Settings},
        recovery,
        state::State,
    },
    store::{ChoiceWrite, ClaimedSession, SessionRecord, SessionWrite, TurnRecord, TurnWrite},
    timestamp::Timestamp,
};
use serde_json::Value;

use super::fold::Client;

#[derive(Debug, Clone)]
pub enum Op {
    Send { policy: u8, other_agent: bool },
    Cancel(u8),
    Abort,
    ClearQueue,
    Move(u8, u8),
    Edit(u8),
    Reset,
    Archive,
    Full(bool),
    Admit,
    Open,
    Rename,
    Delta(bool),
    ToolStarted(u8),
    ToolFinished(u8),
    Ask(bool),
    Answer(u8, u8),
    Withdraw(u8),
    Expire,
    TakeSteer(u8),
    End(u8),
    Leave,
    Gone,
    Stalled,
    Crash,
    LoseCommit,
}

const MAX_QUEUE: usize = 5;

struct CountedIds(u128);

impl Ids for CountedIds {
    fn uuid(&mut self) -> uuid::Uuid {
        self.0 += 1;
        uuid::Uuid::from_u128(self.0)
    }
}

pub struct Machine {
    key: SessionKey,
    settings: Settings,
    ids: CountedIds,
    now: Timestamp,
    state: Option<State>,
    last_seq: u64,
    client: Client,
    log: Vec<Event>,
    session: Option<SessionRecord>,
    turns: BTreeMap<TurnId, TurnRecord>,
    choices: BTreeMap<ChoiceId, (Choice, String, bool)>,
    /// Texts that were accepted to be steered, each said once.
    offered: BTreeSet<String>,
    prompts: usize,
    /// The agent's view: questions it waits on.
    asked: BTreeSet<String>,
    said: u32,
    lose_next: bool,
    retries: u32,
    /// As many turns run elsewhere as may.
    full: bool,
    /// The turn that is starting waits for a place among those that run.
    waits: bool,
    /// Prompts that continue a turn with a steered text.
    gone_on: usize,
}

impl Machine {
    pub fn new(retries: u32) -> Self {
        Self {
            key: "model".parse().unwrap(),
            settings: Settings {
                max_queue: MAX_QUEUE,
                primary: "main".into(),
                default_agent: "quick".into(),
                choice_timeout: Duration::from_secs(60),
                on_timeout: TimeoutOutcome::Reject,
                fallbacks: BTreeMap::new(),
                retry_interrupted: retries,
                budget: BudgetConfig::default(),
            },
            ids: CountedIds(0),
            now: Timestamp(1_000_000),
            state: None,
            last_seq: 0,
            client: Client::default(),
            log: Vec::new(),
            session: None,
            turns: BTreeMap::new(),
            choices: BTreeMap::new(),
            offered: BTreeSet::new(),
            prompts: 0,
            asked: BTreeSet::new(),
            said: 0,
            lose_next: false,
            retries,
            full: false,
            waits: false,
            gone_on: 0,
        }
    }

    /// One decision and its commit.
    fn decide(&mut self, decide: impl FnOnce(&mut Draft, &mut Env<'_>)) {
        self.now = self.now.plus(Duration::from_secs(1));
        let agents = |name: &str| match name {
            "quick" => Some(Capabilities { stateless: true, steer: true, ..Capabilities::default() }),
            "slow" => Some(Capabilities::default()),
            _ => None,
        };
        let full = self.full;
        let admit = || !full;
        let mut env = Env {
            now: self.now,
            ids: &mut self.ids,
            agents: &agents,
            admit: &admit,
            keep: &|| true,
            spent: &|_, _| Amount::default(),
            settings: &self.settings,
        };
        let mut draft = Draft::new(self.key.clone(), self.state.clone(), self.last_seq);
        decide(&mut draft, &mut env);
        if std::mem::take(&mut self.lose_next) && !draft.is_empty() {
            // The disk was full: nothing of it has happened.
            return;
        }
        if !draft.is_empty() {
            let append = draft.take_append(1, self.now, true);
            assert_eq!(append.expected_seq, self.last_seq);
            for frame in append.events.frames() {
                let event = decode_event(&frame.json).unwrap();
                self.client.read(&event);
                self.log.push(event);
            }
            self.store(append.session, append.turns, append.choices);
        }
        self.last_seq = draft.last_seq();
        self.state = draft.state.take();
        if self.running_state() != Some(TurnState::Starting) {
            self.waits = false;
        }
        for effect in draft.effects {
            self.perform(effect);
        }
    }

    fn store(&mut self, session: SessionWrite, turns: Vec<TurnWrite>, choices: Vec<ChoiceWrite>) {
        match session {
            SessionWrite::Create(record) | SessionWrite::Update(record) | SessionWrite::Touch(record) => {
                self.session = Some(*record)
            }
            SessionWrite::Replace { next, .. } => self.session = Some(*next),
            SessionWrite::Delete => self.session = None,
            SessionWrite::Keep => {}
        }
        for write in turns {
            match write {
                TurnWrite::Insert(record) => {
                    assert!(self.turns.insert(record.turn.id, *record).is_none(), "a turn was inserted twice");
                }
                TurnWrite::Update(record) => {
                    let old =
                        self.turns.insert(record.turn.id, *record).expect("an update of a turn that is not there");
                    assert!(!old.turn.state.is_terminal(), "a turn changed after its end");
                }
                TurnWrite::Text(id, text) => self.turns.get_mut(&id).unwrap().turn.text = text,
                TurnWrite::Remove(id) => drop(self.turns.remove(&id).expect("a turn was removed that is not there")),
            }
        }
        for write in choices {
            match write {
                ChoiceWrite::Insert { choice, ask_id } => {
                    drop(self.choices.insert(choice.id, (*choice, ask_id, false)))
                }
                ChoiceWrite::Resolve { id, .. } => {
                    let entry = self.choices.get_mut(&id).expect("an unknown choice was settled");
                    assert!(!std::mem::replace(&mut entry.2, true), "a choice was settled twice");
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Prompt(_) => self.prompts += 1,
            Effect::AwaitAdmission => self.waits = true,
            Effect::GoOn(prompt) => {
                assert!(!prompt.text.is_empty(), "an agent was stopped for nothing");
                self.gone_on += 1;
            }
            Effect::Answer(ask_id, _) => {
                // After a crash the agent that asked is gone; telling nobody is right then.
                self.asked.remove(&ask_id);
            }
            Effect::Finished(finished) => assert!(finished.turn.state.is_terminal()),
            _ => {}
        }
    }

    fn command(&mut self, command: Command) {
        self.decide(|draft, env| {
            let events = draft.last_seq();
            if draft.decide(env, &command).is_err() {
                assert_eq!(draft.last_seq(), events, "a refused command left an event behind");
                assert!(draft.is_empty(), "a refused command left something to write");
            }
        });
    }

    fn agent(&mut self, event: AgentEvent) {
        self.decide(|draft, env| draft.agent_event(env, event));
    }

    /// The agent's own id of the conversation, as it would be resumed.
    pub fn native_id(&self) -> Option<&str> {
        self.state.as_ref()?.native_ids.values().next().map(String::as_str)
    }

    fn started(&self) -> bool {
        self.running_state() == Some(TurnState::Running)
    }

    fn running_state(&self) -> Option<TurnState> {
        let running = self.state.as_ref()?.running.as_ref()?;
        Some(running.turn.turn.state)
    }

    fn nth_queued(&self, n: u8) -> Option<TurnId> {
        let queue: Vec<TurnId> = self.state.as_ref()?.queue.iter().map(|turn| turn.turn.id).collect();
        queue.get(usize::from(n) % queue.len().max(1)).copied()
    }

    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Send { policy, other_agent } => self.send(*policy, *other_agent),
            Op::Cancel(n) => {
                let running = self.state.as_ref().and_then(|state| state.running.as_ref()).map(|r| r.turn.turn.id);
                if let Some(id) = self.nth_queued(*n).or(running) {
                    self.command(Command::Cancel(id));
                }
            }
            Op::Abort if self.state.is_some() => self.command(Command::Abort),
            Op::ClearQueue if self.state.is_some() => self.command(Command::ClearQueue),
            Op::Move(a, b) => {
                if let Some(id) = self.nth_queued(*a) {
                    let before = self.nth_queued(*b).filter(|_| b % 2 == 0);
                    self.command(Command::Move(id, before));
                }
            }
            Op::Edit(n) => {
                if let Some(id) = self.nth_queued(*n) {
                    self.said += 1;
                    self.command(Command::Edit(id, format!("edited {}", self.said)));
                }
            }
            Op::Reset if self.state.is_some() => self.command(Command::Reset(None)),
            Op::Archive if self.state.is_some() => {
                let archived = self.state.as_ref().map(|state| !state.record.snapshot.archived);
                self.command(Command::Patch(Arc::new(PatchSession { archived, ..PatchSession::default() })));
            }
            Op::Full(full) => self.full = *full,
            Op::Admit if self.waits && self.running_state() == Some(TurnState::Starting) => {
                // What is lost with its commit is told again.
                self.waits = self.lose_next;
                self.decide(|draft, env| draft.admitted(env));
            }
            Op::Open if self.running_state() == Some(TurnState::Starting) && !self.waits => {
                self.agent(AgentEvent::Opened(Opened { native_id: Some("n1".into()), ..Opened::default() }));
            }
            Op::Rename if self.started() => {
                self.agent(AgentEvent::Opened(Opened { native_id: Some("n2".into()), ..Opened::default() }));
            }
            Op::Delta(text) if self.started() => {
                self.said += 1;
                let kind = if *text { DeltaKind::Text } else { DeltaKind::Reasoning };
                self.agent(AgentEvent::Delta { kind, text: format!("d{} ", self.said) });
            }
            Op::ToolStarted(n) if self.started() => {
                let call = ToolCall { call_id: format!("c{n}"), name: "tool".into(), ..ToolCall::default() };
                self.agent(AgentEvent::ToolStarted(call));
            }
            Op::ToolFinished(n) if self.started() => {
                self.agent(AgentEvent::ToolFinished { call_id: format!("c{n}"), output: Value::Null, is_error: false });
            }
            Op::Ask(permission) if self.started() => self.ask(*permission),
            Op::Answer(n, option) => self.answer(*n, *option),
            Op::Withdraw(n) if self.started() => {
                let open: Vec<String> = self.asked.iter().cloned().collect();
                if let Some(ask_id) = open.get(usize::from(*n) % open.len().max(1)) {
                    self.agent(AgentEvent::ChoiceWithdrawn { ask_id: ask_id.clone() });
                }
            }
            Op::Expire => {
                self.now = self.now.plus(Duration::from_secs(60));
                self.decide(|draft, env| draft.expire_choices(env));
            }
            Op::TakeSteer(n) if self.started() => {
                let running = self.state.as_ref().and_then(|state| state.running.as_ref());
                let offered: Vec<u64> =
                    running.map(|r| r.steers.iter().map(|(id, _)| *id).collect()).unwrap_or_default();
                if let Some(id) = offered.get(usize::from(*n) % offered.len().max(1)) {
                    self.agent(AgentEvent::Steered { id: *id });
                }
            }
            Op::End(how) if self.started() => self.end(*how),
            Op::Leave if self.started() => self.agent(AgentEvent::Leaving),
            Op::Gone => self.decide(|draft, env| draft.agent_gone(env, "it died")),
            Op::Stalled => self.decide(|draft, env| draft.stalled(env, "10m")),
            Op::Crash => self.crash(),
            Op::LoseCommit => self.lose_next = true,
            _ => {}
        }
    }

    fn send(&mut self, policy: u8, other_agent: bool) {
        self.said += 1;
        let text = format!("text {}", self.said);
        let policies = [Policy::Enqueue, Policy::Steer, Policy::Interrupt, Policy::Reject, Policy::Replace];
        let message = Enqueue {
            user: "local".into(),
            text: text.clone(),
            attachments: Arc::default(),
            policy: policies[usize::from(policy)],
            agent: other_agent.then(|| "slow".to_owned()),
            model: None,
            mode: None,
            permission_mode: None,
            source: "api".into(),
            client_id: None,
            metadata: serde_json::Map::new(),
            continued_from: None,
            attempt: 1,
            once: None,
            request_id: None,
            before: Arc::default(),
            after: None,
        };
        self.command(Command::Enqueue(Arc::new(message)));
        let running = self.state.as_ref().and_then(|state| state.running.as_ref());
        if running.is_some_and(|running| running.steers.iter().any(|(_, turn)| turn.turn.text == text)) {
            self.offered.insert(text);
        }
    }

    fn ask(&mut self, permission: bool) {
        self.said += 1;
        let ask_id = format!("ask{}", self.said);
        let option = |id: &str, kind| ChoiceOption { id: id.into(), label: id.into(), kind };
        let question =
            Question { id: "q".into(), question: "?".into(), header: None, multi: false, options: Vec::new() };
        self.asked.insert(ask_id.clone());
        self.agent(AgentEvent::ChoiceAsked(Ask {
            ask_id: ask_id.clone(),
            kind: if permission { ChoiceKind::Permission } else { ChoiceKind::Question },
            title: "?".into(),
            tool: permission.then(|| "tool".into()),
            input_summary: None,
            options: vec![
                option("always", OptionKind::AllowAlways),
                option("yes", OptionKind::AllowOnce),
                option("no", OptionKind::RejectOnce),
            ],
            questions: vec![question],
        }));
        let told = self.choices.values().any(|(_, known, _)| *known == ask_id);
        if !told {
            // The commit was lost, or the turn was being stopped: the agent hears nothing, or a cancel.
            self.asked.remove(&ask_id);
        }
    }

    fn answer(&mut self, n: u8, option: u8) {
        let pending = self.client.choices.clone();
        let Some(id) = pending.get(usize::from(n) % pending.len().max(1)).copied() else { return };
        let answer = match (self.choices[&id].0.kind, option) {
            (ChoiceKind::Permission, 0) => ChoiceAnswer { allow: Some(true), ..ChoiceAnswer::default() },
            (ChoiceKind::Permission, 1) => ChoiceAnswer { option_id: Some("always".into()), ..ChoiceAnswer::default() },
            (ChoiceKind::Permission, _) => {
                ChoiceAnswer { option_id: Some("nonsense".into()), ..ChoiceAnswer::default() }
            }
            (ChoiceKind::Question, _) => {
                let answers = [("q".to_owned(), Value::String("this".into()))].into_iter().collect();
                ChoiceAnswer { answers: Some(answers), ..ChoiceAnswer::default() }
            }
        };
        self.command(Command::Answer(id, answer, ResolvedBy::Api));
    }

    fn end(&mut self, how: u8) {
        let outcome = match how {
            0 => Outcome::Completed { reason: None },
            1 => Outcome::Cancelled,
            _ => Outcome::failed("agent_error", "it went wrong"),
        };
        self.agent(AgentEvent::Ended(outcome));
    }

    /// `kill -9`: memory is gone, rows and log are not.
    fn crash(&mut self) {
        let Some(record) = self.session.clone() else { return };
        let unfinished: Vec<TurnRecord> =
            self.turns.values().filter(|turn| !turn.turn.state.is_terminal()).cloned().collect();
        let choices = self.choices.values().filter(|(_, _, settled)| !settled);
        let claimed = ClaimedSession {
            record,
            unfinished,
            choices: choices.map(|(choice, ask_id, _)| (choice.clone(), ask_id.clone())).collect(),
            rules: Vec::new(),
            native_ids: BTreeMap::new(),
        };
        let before = self.state.clone();
        let restored = recovery::restore(claimed, self.last_seq, 1, &self.log);
        if let Some(before) = before {
            let ids = |state: &State| state.queue.iter().map(|turn| turn.turn.id).collect::<Vec<_>>();
            assert_eq!(ids(&before), ids(&restored), "the queue changed over a crash");
            let text = |state: &State| {
                let running = state.running.as_ref()?;
                Some(running.message.as_ref()?.message(&running.turn))
            };
            assert_eq!(text(&before), text(&restored), "the partial message changed over a crash");
        }
        self.asked.clear();
        self.waits = false;
        self.state = Some(restored);
        self.lose_next = false;
        self.decide(|draft, env| draft.recover(env, "server_restart"));
    }
}
