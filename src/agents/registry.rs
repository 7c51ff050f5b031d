//! The registry: every agent by name, built in or configured, and what the last probe found of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Agent, Capabilities, Probe, acp::AcpAgent, claude::ClaudeAgent, codex::CodexAgent, command::CommandAgent,
    echo::Echo, openai::OpenAiAgent, opencode::OpencodeAgent, pi::PiAgent,
};
use crate::config::{AgentKind, Config};

/// How long a probe of all agents may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// All agents of this server; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    agents: Arc<BTreeMap<String, Arc<dyn Agent>>>,
    found: Arc<RwLock<BTreeMap<String, Probe>>>,
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
        Ok(Self { agents: Arc::new(agents), found: Arc::default() })
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
    pub async fn refresh(&self) {
        let probes = self.agents.iter().map(|(name, agent)| async move {
            let late = || Probe { reason: Some(format!("did not answer within {PROBE_LIMIT:?}")), ..Probe::default() };
            let probe = tokio::time::timeout(PROBE_LIMIT, agent.probe()).await.unwrap_or_else(|_elapsed| late());
            if let Some(reason) = &probe.reason {
                log::info!(agent:% = name, reason:% = reason; "an agent is not available");
            }
            (name.clone(), probe)
        });
        let found = join_all(probes).await.into_iter().collect();
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What the last look found, by name; empty before the first.
    #[must_use]
    pub fn found(&self) -> BTreeMap<String, Probe> {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The entries of `GET /v1/agents`.
    #[must_use]
    pub fn list(&self) -> Vec<Value> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        let entries = self.agents.iter().map(|(name, agent)| {
            let probe = found.get(name).cloned();
            let reason = probe.as_ref().map_or(Some("not looked for yet".to_owned()), |probe| probe.reason.clone());
            let probe = probe.unwrap_or_default();
            json!({
                "id": name, "name": name, "kind": agent.kind(), "available": probe.available,
                "version": probe.version, "models": probe.models, "capabilities": agent.capabilities(),
                "reason": reason,
            })
        });
        entries.collect()
    }
}
