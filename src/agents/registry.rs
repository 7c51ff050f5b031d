//! The registry: every agent by name, built in or configured, and what the last probe found of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Agent, Capabilities, Mode, Opened, Probe, ProcessLedger, acp::AcpAgent, claude::ClaudeAgent, codex::CodexAgent,
    command::CommandAgent, echo::Echo, openai::OpenAiAgent, opencode::OpencodeAgent, pi::PiAgent,
};
use crate::config::{AgentKind, Config, known};

/// Modes of one agent that are remembered. What has more is not known: nothing is refused then.
const MAX_MODES: usize = 1000;
/// How long a probe of all agents may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// All agents of this server; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    agents: Arc<BTreeMap<String, Arc<dyn Agent>>>,
    /// Agents without an entry in the configuration.
    unconfigured: Arc<BTreeSet<String>>,
    found: Arc<RwLock<BTreeMap<String, Probe>>>,
    /// The models that agents have told when they were opened.
    models: Arc<RwLock<BTreeMap<String, Vec<Value>>>>,
    /// The modes that agents have told while they ran, of all their sessions: some have modes of a project's own.
    modes: Arc<RwLock<BTreeMap<String, Vec<Mode>>>>,
}

impl Registry {
    /// The built-in agents and the configured ones.
    ///
    /// # Errors
    /// One line: which agent cannot be set up, and why.
    pub fn new(config: &Config) -> Result<Self, String> {
        let mut agents: BTreeMap<String, Arc<dyn Agent>> = BTreeMap::new();
        agents.insert("echo".into(), Arc::new(Echo::new("echo")));
        for (name, agent) in &config.agents {
            let (own, limits) = (agent.clone(), config.agent.clone());
            let id = name.clone();
            let built: Arc<dyn Agent> = match agent.kind {
                None => return Err(format!("agents.{name}.kind is missing")),
                Some(AgentKind::Echo) => Arc::new(Echo::new(id)),
                Some(AgentKind::Openai) => {
                    Arc::new(OpenAiAgent::new(name, own, limits).map_err(|error| error.to_string())?)
                }
                Some(AgentKind::Acp) => Arc::new(AcpAgent::new(id, own, limits)),
                Some(AgentKind::Claude) => Arc::new(ClaudeAgent::new(id, own, limits)),
                Some(AgentKind::Codex) => Arc::new(CodexAgent::new(id, own, limits)),
                Some(AgentKind::Opencode) => Arc::new(OpencodeAgent::new(id, own, limits)),
                Some(AgentKind::Pi) => Arc::new(PiAgent::new(id, own, limits)),
                Some(AgentKind::Command) => Arc::new(CommandAgent::new(id, own, limits)),
            };
            agents.insert(name.clone(), built);
        }
        let unconfigured = config.agents.iter().filter(|(_, agent)| !agent.configured).map(|(name, _)| name.clone());
        Ok(Self {
            agents: Arc::new(agents),
            unconfigured: Arc::new(unconfigured.collect()),
            found: Arc::default(),
            models: Arc::default(),
            modes: Arc::default(),
        })
    }

    /// An agent by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Agent>> {
        self.agents.get(name).cloned()
    }

    /// What an agent can do; none when there is no agent of that name.
    #[must_use]
    pub fn capabilities(&self, name: &str) -> Option<Capabilities> {
        self.agents.get(name).map(|agent| agent.capabilities())
    }

    /// The names of all agents.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }

    /// Looks for every agent, all at once, in limited time.
    pub async fn refresh(&self, processes: Arc<dyn ProcessLedger>) {
        let probes = self.agents.iter().map(|(name, agent)| {
            let processes = Arc::clone(&processes);
            async move {
                let late = || Probe {
                    reason: Some(format!("did not answer within {PROBE_LIMIT:?}: look again, or try it by hand")),
                    late: true,
                    ..Probe::default()
                };
                let probe =
                    tokio::time::timeout(PROBE_LIMIT, agent.probe(processes)).await.unwrap_or_else(|_elapsed| late());
                if let Some(reason) = &probe.reason {
                    if !self.concerns(name, Some(&probe)) {
                        log::debug!(agent:% = name, reason:% = reason; "a known agent is not installed");
                    } else {
                        log::info!(agent:% = name, reason:% = reason; "an agent is not available");
                    }
                }
                (name.clone(), probe)
            }
        });
        let found = join_all(probes).await.into_iter().collect();
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What the last look found, by name; empty before the first.
    #[must_use]
    pub fn found(&self) -> BTreeMap<String, Probe> {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An agent was opened: remembers the models that it told.
    pub fn learn(&self, name: &str, opened: &Opened) {
        if !opened.models.is_empty() {
            let told = opened.models.iter().map(|model| json!(model)).collect();
            self.models.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), told);
        }
    }

    /// The models of an agent, `{"id", "name"}` each: those of the last look, else those that it told when it was opened;
    /// empty where they are not known.
    #[must_use]
    pub fn models(&self, name: &str) -> Vec<Value> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        match found.get(name).filter(|probe| !probe.models.is_empty()) {
            Some(probe) => probe.models.clone(),
            None => self.models.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default(),
        }
    }

    /// An agent that runs has told the modes that it offers.
    pub fn learn_modes(&self, name: &str, told: &Value) {
        let told = Mode::read(told);
        if told.is_empty() {
            return;
        }
        let mut all = self.modes.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(name.to_owned()).or_default();
        for mode in told {
            if known.len() < MAX_MODES && !known.iter().any(|known| known.id == mode.id) {
                known.push(mode);
            }
        }
    }

    /// The modes of an agent: those that it always has, else those that it has told while it ran; none where they are
    /// not known yet.
    #[must_use]
    pub fn modes(&self, name: &str) -> Option<Vec<Mode>> {
        let own = self.agents.get(name).and_then(|agent| agent.modes());
        let told = || self.modes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        own.or_else(told).filter(|modes| modes.len() < MAX_MODES)
    }

    /// Whether somebody could want to hear that an agent is missing: it is configured, or it is there.
    #[must_use]
    pub fn concerns(&self, name: &str, probe: Option<&Probe>) -> bool {
        !self.unconfigured.contains(name) || probe.is_some_and(|probe| probe.available || probe.late)
    }

    /// The entries of `GET /v1/agents`. Another way to drive an agent is listed only where it is found or configured.
    #[must_use]
    pub fn list(&self) -> Vec<Value> {
        let found = self.found();
        let alternative = |name: &str| known::find(name).is_some_and(|known| known.alternative);
        let listed = self.agents.iter().filter(|(name, _)| !alternative(name) || self.concerns(name, found.get(*name)));
        let entries = listed.map(|(name, agent)| {
            let probe = found.get(name).cloned();
            let reason = probe.as_ref().map_or(Some("not looked for yet".to_owned()), |probe| probe.reason.clone());
            let probe = probe.unwrap_or_default();
            json!({
                "id": name, "name": name, "kind": agent.kind(), "available": probe.available,
                "version": probe.version, "models": self.models(name), "modes": self.modes(name), "capabilities": agent.capabilities(),
                "reason": reason, "login": probe.login,
            })
        });
        entries.collect()
    }

    /// For `GET /ready`: each agent that is found or configured, with `ok` or what is missing. Pure memory.
    #[must_use]
    pub fn readiness(&self) -> BTreeMap<String, String> {
        let found = self.found();
        let concerned = self.agents.keys().filter(|name| self.concerns(name, found.get(*name)));
        let state = |name: &String| match found.get(name) {
            None => "probing".to_owned(),
            Some(probe) => probe.reason.clone().unwrap_or_else(|| "ok".to_owned()),
        };
        concerned.map(|name| (name.clone(), state(name))).collect()
    }
}
