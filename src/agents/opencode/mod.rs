//! OpenCode, over its server: one process for all sessions of the agent, HTTP and one stream of events.
//!
//! Measured with version 1.18.33. Every call names the session's folder, so sessions in different folders share the server.
//!
//! Layout:
//! - `server`: the shared process, from its start to its end; `feed`: its events, and whom they reach; `api`: its calls;
//! - `driver`: the task behind a session; `open`: from the server to a conversation; `turn`: from a prompt to its outcome;
//! - pure: `talk` (a turn's events → ours), `tools`, `usage`, `settings`, `asks`, `content`, `failure`, `tags`, `ident`.

mod api;
mod asks;
mod content;
mod driver;
mod failure;
mod feed;
mod ident;
mod open;
mod server;
mod settings;
mod tags;
mod talk;
mod tools;
mod turn;
mod usage;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use self::server::Place;
use super::{Agent, Capabilities, Live, OpenSpec, Probe, ProcessLedger, channel, program::Program};
use crate::config::{AgentConfig, AgentLimits};

/// How long the server stays when its last session has let it go. Sessions themselves keep it as long as they are warm.
const LINGER: Duration = Duration::from_secs(60);

/// The agent, as configured. Dropping it ends its server.
#[derive(Debug, Clone)]
pub struct OpencodeAgent {
    program: Arc<Program>,
    place: Arc<Place>,
}

impl OpencodeAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self::with_linger(name, config, limits, LINGER)
    }

    /// The same with another time that the server stays when its last session has let it go.
    #[must_use]
    pub fn with_linger(name: String, config: AgentConfig, limits: AgentLimits, linger: Duration) -> Self {
        let program = Arc::new(Program { name, config, limits });
        let place = Arc::new(Place::new(Arc::clone(&program), linger));
        Self { program, place }
    }
}

impl Agent for OpencodeAgent {
    fn id(&self) -> &str {
        &self.program.name
    }

    fn kind(&self) -> &'static str {
        "opencode"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: true,
            shared: true,
            images: true,
            choices: true,
            resume: self.program.config.native_resume,
            replay: true,
            ..Capabilities::default()
        }
    }

    fn start(&self, spec: OpenSpec) -> Live {
        let (live, side) = channel();
        tokio::spawn(driver::run(Arc::clone(&self.program), Arc::clone(&self.place), spec, side));
        live
    }

    fn probe(&self, processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe> {
        Box::pin(self.program.probe(processes))
    }
}
