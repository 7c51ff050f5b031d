//! `[agents.NAME]`: how one agent is reached and what it may do.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Secret, known, shown};

/// The kinds of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// The built-in stand-in.
    Echo,
    /// An OpenAI-compatible chat completions endpoint.
    Openai,
    /// An agent that speaks the Agent Client Protocol over stdio.
    Acp,
    /// Claude Code, over its stream-json protocol.
    Claude,
    /// Codex, over its app-server.
    Codex,
    /// OpenCode, over its server.
    Opencode,
    /// pi, over its RPC mode.
    Pi,
    /// Any program: one process a turn.
    Command,
}

/// `[agents.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The adapter; agents that are known by name need none. Always there once the configuration is loaded.
    #[serde(default)]
    pub kind: Option<AgentKind>,
    /// Program and first arguments, for agents that are processes.
    #[serde(default)]
    pub command: Vec<String>,
    /// Added to the cleared environment.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// Names of variables of the server's own environment that are passed on, beside `PATH`, `HOME`, `LANG`, `TERM`,
    /// `TMPDIR`, `USER`, `SHELL` and `LC_*`.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Where it works; a folder per session under the data dir when left out.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// The model to use.
    #[serde(default)]
    pub model: Option<String>,
    /// The mode to begin in.
    #[serde(default)]
    pub mode: Option<String>,
    /// The endpoint, with `/v1`, for `openai`. It is never written out with what may be a secret in it.
    #[serde(default, serialize_with = "shown::serialize_endpoint")]
    pub base_url: Option<String>,
    /// The key for the endpoint.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// The environment variable that holds the key.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// A system message before the conversation, for `openai`.
    #[serde(default)]
    pub system: Option<String>,
    /// How many times a 429, 5xx or connection error is tried again, for `openai` and `opencode`.
    #[serde(default = "default_retries")]
    pub max_retries: u32,
    /// Whether a stored conversation of the agent's own may be loaded; false replays the transcript instead.
    #[serde(default = "default_true")]
    pub native_resume: bool,
    /// Whether the permission mode `bypass` may be asked for.
    #[serde(default)]
    pub allow_bypass: bool,
    /// How a program gets the prompt, for `command`.
    #[serde(default)]
    pub prompt_by: PromptBy,
    /// The agent that takes its turns when it cannot be started.
    #[serde(default)]
    pub fallback: Option<String>,
    /// False for an agent without an entry of its own, which is only known by its name.
    #[serde(skip, default = "default_true")]
    pub configured: bool,
}

/// How a program gets its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// On its stdin, which is closed then.
    #[default]
    Stdin,
    /// As its last argument; stdin is empty.
    Argument,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            kind: None,
            command: Vec::new(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            cwd: None,
            model: None,
            mode: None,
            base_url: None,
            api_key: None,
            api_key_env: None,
            system: None,
            max_retries: default_retries(),
            native_resume: true,
            allow_bypass: false,
            prompt_by: PromptBy::default(),
            fallback: None,
            configured: true,
        }
    }
}

impl AgentConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub(super) fn validate(&self, name: &str) -> Result<(), String> {
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err("the name of an agent has 1 to 64 characters out of A-Z a-z 0-9 . _ -".into());
        }
        if self.fallback.as_deref() == Some(name) {
            return Err("an agent cannot be its own fallback".into());
        }
        let Some(kind) = self.kind else {
            let known: Vec<&str> = known::KNOWN.iter().map(|known| known.name).collect();
            return Err(format!("kind is missing; only these names need none: {}", known.join(" ")));
        };
        let unfit = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        if let Some(name) = self.env.keys().find(unfit) {
            return Err(format!("env has {name:?}, which is no name of a variable"));
        }
        if let Some((name, _)) = self.env.iter().find(|(_, value)| value.expose().contains('\0')) {
            return Err(format!("the value of env.{name} contains a NUL, which no variable can"));
        }
        if self.command.first().is_some_and(|program| program.trim().is_empty()) {
            return Err("command begins with an empty word; it must be a program and its arguments".into());
        }
        if let Some(cwd) = self.cwd.as_deref().filter(|cwd| cwd.is_file()) {
            return Err(format!("cwd {} is a file; it must be a folder", cwd.display()));
        }
        match kind {
            AgentKind::Echo => Ok(()),
            AgentKind::Openai => match &self.base_url {
                Some(url) if url.starts_with("http://") || url.starts_with("https://") => Ok(()),
                Some(url) => Err(format!("base_url {url:?} must begin with http:// or https://")),
                None => Err("kind \"openai\" needs base_url, as in \"http://127.0.0.1:8080/v1\"".into()),
            },
            AgentKind::Acp
            | AgentKind::Claude
            | AgentKind::Codex
            | AgentKind::Opencode
            | AgentKind::Pi
            | AgentKind::Command
                if self.command.is_empty() =>
            {
                let kind = kind.name();
                Err(format!(
                    "kind \"{kind}\" needs command, a program and its arguments, as in [\"gemini\", \"--acp\"]"
                ))
            }
            _ => Ok(()),
        }
    }
}

impl AgentKind {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Openai => "openai",
            Self::Acp => "acp",
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Pi => "pi",
            Self::Command => "command",
        }
    }
}

const fn default_retries() -> u32 {
    4
}

const fn default_true() -> bool {
    true
}
