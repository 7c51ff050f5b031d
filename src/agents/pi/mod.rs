//! pi, over its RPC mode: JSON objects, one a line, both ways; one process a session.
//!
//! It asks for no permission; its extensions may put dialogs. Its thinking levels are its modes here, and `plan` starts it
//! with tools that only read.
//!
//! Layout:
//! - `driver`: the task behind a session: the loop, the calls, the end;
//! - `open`: from process to conversation: its own file, or new and replay; another process for other settings;
//! - `turn`: a prompt from its settings to its outcome, steering, cancelling;
//! - pure: `events` (lines → events, usage), `models` (models, levels, arguments), `dialogs`.

mod dialogs;
mod driver;
mod events;
mod models;
mod open;
mod turn;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, Capabilities, Live, Mode, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// The agent, as configured.
#[derive(Debug, Clone)]
pub struct PiAgent(Arc<Program>);

impl PiAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for PiAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "pi"
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

    fn modes(&self) -> Option<Vec<Mode>> {
        Some(models::modes())
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
