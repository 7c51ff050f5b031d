//! Agents that speak the Agent Client Protocol (version 1) over stdio: JSON-RPC 2.0, one object per line.
//!
//! One process per session. Greenroom offers the agent neither files nor terminals: all five agents that were
//! measured then do their own. What comes in is read leniently (agents differ, and the protocol grows): an update
//! that is not understood becomes [`AgentEvent::Raw`](super::AgentEvent::Raw), never an error.
//!
//! Layout:
//! - `driver`: the task behind a session: the loop, the calls, the end;
//! - `open`: from process to conversation: load, or new and replay;
//! - `turn`: a prompt from its settings to its outcome, permissions, cancelling;
//! - pure: `updates` (→ events), `tools`, `usage`, `settings`, `permission`, `question`, `content`;
//! - `profile`: what single agents do differently, as data.

mod chunk;
mod content;
mod driver;
mod open;
mod permission;
mod profile;
mod question;
mod settings;
mod tools;
mod turn;
mod updates;
mod usage;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, Capabilities, Live, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// An agent that speaks ACP, as configured.
#[derive(Debug, Clone)]
pub struct AcpAgent(Arc<Program>);

impl AcpAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for AcpAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "acp"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            stateless: false,
            per_turn: false,
            steer: false,
            shared: false,
            images: true,
            choices: true,
            resume: self.0.config.native_resume,
            replay: true,
        }
    }

    fn start(&self, spec: OpenSpec) -> Live {
        let (live, side) = channel();
        tokio::spawn(driver::run(Arc::clone(&self.0), spec, side));
        live
    }

    fn probe(&self, processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe> {
        Box::pin(self.0.probe(processes))
    }
}
