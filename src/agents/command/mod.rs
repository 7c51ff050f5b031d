//! Any program as an agent: one process a turn.
//!
//! It gets the prompt on its stdin or as an argument, with the conversation so far before it, since it keeps nothing. What
//! it prints is the answer: text as it comes, or events where its lines are JSON of a known dialect. Its exit status says
//! whether the turn went well.
//!
//! Layout: `driver` runs the processes; pure: `invocation` (arguments, environment, stdin), `output` (bytes → events) over
//! `text` (UTF-8, escape sequences) and `stream_json` (Claude, Gemini) with `codex`.

mod codex;
mod driver;
mod invocation;
mod output;
mod stream_json;
mod text;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Agent, Capabilities, Live, Mode, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// The agent, as configured.
#[derive(Debug, Clone)]
pub struct CommandAgent(Arc<Program>);

impl CommandAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Program { name, config, limits }))
    }
}

impl Agent for CommandAgent {
    fn id(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { per_turn: true, replay: true, ..Capabilities::default() }
    }

    fn modes(&self) -> Option<Vec<Mode>> {
        Some(Vec::new())
    }

    fn start(&self, spec: OpenSpec) -> Live {
        let (live, side) = channel();
        tokio::spawn(driver::run(Arc::clone(&self.0), spec, side));
        live
    }

    fn probe(&self, _processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe> {
        Box::pin(std::future::ready(self.0.find()))
    }
}
