//! Agents that speak the Agent Client Protocol (version 1) over stdio: JSON-RPC 2.0, one object per line.
//!
//! One process per session. Greenroom offers the agent neither files nor terminals: all five agents that were
//! measured then do their own. What comes in is read leniently (agents differ, and the protocol grows): an update
//! that is not understood becomes [`AgentEvent::Raw`](super::AgentEvent::Raw), never an error.
//!
//! Layout:
//! - `rpc`, `connection`: lines and messages, both ways at once, bounded;
//! - `driver`: the task behind a session: the loop, the calls, the end;
//! - `open`: from process to conversation: load, or new and replay;
//! - `turn`: a prompt from its settings to its outcome, permissions, cancelling;
//! - pure: `updates` (→ events), `tools`, `usage`, `settings`, `permission`, `content`.

mod connection;
mod content;
mod driver;
mod open;
mod permission;
mod probe;
mod rpc;
mod settings;
mod tools;
mod turn;
mod updates;
mod usage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    Agent, Capabilities, Live, OpenSpec, Probe, ProcessLedger, channel,
    process::{self, Spawn, SpawnError},
};
use crate::config::{AgentConfig, AgentLimits};

/// An agent that speaks ACP, as configured.
#[derive(Debug, Clone)]
pub struct AcpAgent(Arc<Setup>);

/// What all sessions of an agent share.
#[derive(Debug)]
struct Setup {
    name: String,
    config: AgentConfig,
    limits: AgentLimits,
}

impl AcpAgent {
    /// An agent of this name. Nothing is started, and whether it is there shows in [`Agent::probe`].
    #[must_use]
    pub fn new(name: String, config: AgentConfig, limits: AgentLimits) -> Self {
        Self(Arc::new(Setup { name, config, limits }))
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
            steer: false,
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

    fn probe(&self) -> BoxFuture<'_, Probe> {
        Box::pin(probe::probe(&self.0))
    }
}

impl Setup {
    /// How to start the agent's process.
    fn spawn(&self, session: &str, cwd: PathBuf, ledger: Arc<dyn ProcessLedger>) -> Spawn {
        let mut command = self.config.command.iter().cloned();
        Spawn {
            agent: self.name.clone(),
            session: session.to_owned(),
            program: command.next().unwrap_or_default(),
            args: command.collect(),
            env: process::environment(&self.config.pass_env, &self.config.env),
            cwd,
            max_line: self.limits.max_line.bytes(),
            stderr_tail: self.limits.stderr_tail.bytes(),
            kill_grace: self.limits.kill_grace.0,
            ledger,
        }
    }

    /// Why it did not start, and what to do about it.
    fn unavailable(&self, error: &SpawnError) -> String {
        let name = &self.name;
        match error {
            SpawnError::NotFound(program) if program.is_empty() => {
                format!("agents.{name}.command is empty: set it to the agent's program and arguments")
            }
            SpawnError::NotFound(program) => {
                let install = match package(program) {
                    Some(package) => format!("install it with `npm install -g {package}`"),
                    None => "install it".to_owned(),
                };
                format!("`{program}` not found; {install} or set agents.{name}.command")
            }
            SpawnError::NoFolder(_) | SpawnError::Refused { .. } => format!("agent `{name}`: {error}"),
        }
    }

    /// How long a call between turns, such as a change of the model, may take.
    fn call_timeout(&self) -> Duration {
        self.limits.open_timeout.0
    }
}

/// The npm package that holds a well-known program.
fn package(program: &str) -> Option<&'static str> {
    Some(match program.rsplit('/').next()? {
        "codex-acp" => "@zed-industries/codex-acp",
        "gemini" => "@google/gemini-cli",
        "claude-agent-acp" => "@agentclientprotocol/claude-agent-acp",
        "opencode" => "opencode-ai",
        "qwen" => "@qwen-code/qwen-code",
        _ => return None,
    })
}
