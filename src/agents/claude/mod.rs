//! Claude Code, over its stream-json protocol with control requests: one process a session.
//!
//! The protocol is the one that the CLI speaks with `-p --input-format stream-json --output-format stream-json
//! --permission-prompt-tool stdio`; its facts here were measured with 2.1.330. What is not understood becomes
//! [`AgentEvent::Raw`](super::AgentEvent::Raw), never an error.
//!
//! Layout:
//! - `driver`: the task behind a session: the loop, the calls, the end;
//! - `open`: from process to conversation: resume, or new and replay;
//! - `apply`: models and modes into force;
//! - `turn`: a prompt from its settings to its outcome, steering, cancelling;
//! - `asking`: permissions and questions on their way to the session and back;
//! - pure: `wire` (lines), `course` (how far a turn is), `narrator` (→ events), `tools`, `permission`, `question`,
//!   `settings`, `usage`, `outcome`, `content`.

mod apply;
mod asking;
mod content;
mod course;
mod driver;
mod narrator;
mod open;
mod outcome;
mod permission;
mod question;
mod settings;
mod tools;
mod turn;
mod usage;
mod wire;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, Capabilities, Live, Mode, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// The agent, as configured.
#[derive(Debug, Clone)]
pub struct ClaudeAgent(Arc<Program>);

impl ClaudeAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for ClaudeAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "claude"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // A line with priority `next` goes to the model with the next result of a tool.
            steer: true,
            images: true,
            choices: true,
            resume: self.0.config.native_resume,
            replay: true,
            ..Capabilities::default()
        }
    }

    fn modes(&self) -> Option<Vec<Mode>> {
        Some(settings::modes(self.0.config.allow_bypass))
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
