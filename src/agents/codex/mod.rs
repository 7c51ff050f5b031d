//! Codex, over `codex app-server`: JSON-RPC without the version field, one object a line, one process a session.
//!
//! A session is a *thread*, whose id is the native id. What comes in is read leniently: a notification that is not
//! understood becomes [`AgentEvent::Raw`](super::AgentEvent::Raw), a request is refused. The facts in the comments were
//! measured with codex-cli 0.169.0.
//!
//! Layout:
//! - `driver`: the task behind a session: the loop, the calls, the end;
//! - `open`: from process to thread: resume, or start and replay; the lists of models, modes and skills;
//! - `turn`: a prompt from its settings to its outcome, cancelling, steering;
//! - `news`: what the agent tells while a turn runs;
//! - pure: `text`, `tools`, `cards` and `shell` (items → events), `approval` and `elicitation` (questions),
//!   `settings` (models, modes, policies), `usage`, `input`, `failure`.

mod approval;
mod cards;
mod driver;
mod elicitation;
mod failure;
mod input;
mod news;
mod open;
mod settings;
mod shell;
mod text;
mod tools;
mod turn;
mod usage;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, Capabilities, Live, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// The agent, as configured.
#[derive(Debug, Clone)]
pub struct CodexAgent(Arc<Program>);

impl CodexAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for CodexAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "codex"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: true,
            images: true,
            choices: true,
            resume: self.0.config.native_resume,
            replay: true,
            ..Capabilities::default()
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
