//! OpenCode, over its server: one process for all sessions, HTTP and SSE.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, AgentEvent, Capabilities, Live, OpenSpec, Outcome, Probe, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// The agent, as configured.
#[derive(Debug, Clone)]
pub struct OpencodeAgent(Arc<Program>);

impl OpencodeAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for OpencodeAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "opencode"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn start(&self, _spec: OpenSpec) -> Live {
        let (live, side) = channel();
        tokio::spawn(async move {
            let outcome = Outcome::failed("agent_unavailable", "this adapter is not built yet");
            drop(side.events.send(AgentEvent::Ended(outcome)).await);
        });
        live
    }

    fn probe(&self) -> BoxFuture<'_, Probe> {
        Box::pin(self.0.probe())
    }
}
