//! What all adapters of programs share: how a program is started, found and missed, the lines and JSON-RPC messages
//! that it exchanges, what the adapter tells its session, and the end.
//!
//! - [`Program`]: the configuration of one agent, as a process to be started;
//! - [`JsonLines`], [`Connection`]: objects or JSON-RPC over stdin and stdout, both ways at once, bounded;
//! - [`Host`]: the session's side: events, the kill, `Opened` before anything else, exactly one `Ended` a prompt;
//! - [`replay()`]: the conversation so far as text, for an agent that cannot load it;
//! - [`keep_all`]: attached files in the agent's folder; [`without_permissions`]: modes of agents that never ask.
//!
//! Knows no agent's protocol.

mod connection;
mod files;
mod host;
mod inbox;
mod lines;
mod permission;
mod probe;
mod replay;
mod rpc;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    connection::{Connection, Input},
    files::text_of,
    host::{Host, STDERR_IN_MESSAGE, Stop, raw},
    inbox::keep_all,
    lines::{Incoming, JsonLines},
    permission::without_permissions,
    replay::{REPLAY_LIMIT, replay},
    rpc::{Dialect, Message, RpcError},
};
use super::{
    Probe, ProcessLedger,
    process::{self, Process, Spawn, SpawnError},
};
use crate::config::{AgentConfig, AgentKind, AgentLimits, known};

/// An agent that is a program, as configured; shared by all its sessions.
#[derive(Debug)]
pub struct Program {
    /// The agent's name.
    pub name: String,
    /// Its entry in the configuration.
    pub config: AgentConfig,
    /// Limits of all agents.
    pub limits: AgentLimits,
}

impl Program {
    /// The program with its configured arguments, and `args` after them.
    #[must_use]
    pub fn spawn(&self, args: Vec<String>, session: &str, cwd: PathBuf, ledger: Arc<dyn ProcessLedger>) -> Spawn {
        let mut command = self.config.command.iter().cloned();
        Spawn {
            agent: self.name.clone(),
            session: session.to_owned(),
            program: command.next().unwrap_or_default(),
            args: command.chain(args).collect(),
            env: process::environment(&self.config.pass_env, &self.config.env),
            cwd,
            max_line: self.limits.max_line.bytes(),
            stderr_tail: self.limits.stderr_tail.bytes(),
            kill_grace: self.limits.kill_grace.0,
            ledger,
        }
    }

    /// Starts it for a session.
    ///
    /// # Errors
    /// The end of the session's agent, with what to do about it.
    pub fn start(&self, args: Vec<String>, spec: &super::OpenSpec) -> Result<Process, Stop> {
        let spawn = self.spawn(args, spec.session.as_str(), spec.cwd.clone(), Arc::clone(&spec.processes));
        let unavailable = |error| Stop::failed("agent_unavailable", self.unavailable(&error));
        Process::spawn(spawn).map_err(unavailable)
    }

    /// Whether it could run: finds the program and asks it for its version. Opens no conversation.
    pub async fn probe(&self, processes: Arc<dyn ProcessLedger>) -> Probe {
        probe::probe(self, processes).await
    }

    /// Whether its program is there. Runs nothing: what an unknown program does when it is asked for its version, nobody
    /// knows.
    #[must_use]
    pub fn find(&self) -> Probe {
        probe::find(self).map_or_else(|missing| missing, |_path| Probe { available: true, ..Probe::default() })
    }

    /// Why it did not start, and what to do about it.
    #[must_use]
    pub fn unavailable(&self, error: &SpawnError) -> String {
        let name = &self.name;
        match error {
            SpawnError::NotFound(program) if program.is_empty() => {
                format!("agents.{name}.command is empty: set it to the agent's program and arguments")
            }
            SpawnError::NotFound(program) => {
                let install = match known::install_hint(program) {
                    Some(elsewhere) if elsewhere.starts_with("see ") => format!("to install it {elsewhere}"),
                    Some(install) => format!("install it with `{install}`"),
                    None => "install it".to_owned(),
                };
                format!("`{program}` not found; {install} or set agents.{name}.command")
            }
            SpawnError::NoFolder(_) | SpawnError::Refused { .. } => format!("agent `{name}`: {error}"),
        }
    }

    /// What to do about credentials that are missing or refused.
    #[must_use]
    pub fn login_hint(&self) -> &'static str {
        let program = self.config.command.first().and_then(|program| program.rsplit('/').next());
        let kind = self.config.kind;
        let native = !matches!(kind, None | Some(AgentKind::Acp | AgentKind::Command));
        let known = known::find(&self.name)
            .filter(|known| Some(known.kind) == kind)
            .or_else(|| known::KNOWN.iter().find(|known| known.command.first().copied() == program))
            .or_else(|| known::KNOWN.iter().find(|known| native && Some(known.kind) == kind));
        known.map_or("check its key or its login", |known| known.login)
    }

    /// How long a call between turns, such as a change of the model, may take.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.limits.open_timeout.0
    }
}
