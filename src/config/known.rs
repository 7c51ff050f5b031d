//! Agents that are known by name: how each is started and what it needs, so that one that is installed works without a
//! configuration file. An entry of the same name in the configuration overrides, field by field.
//!
//! The commands, variables and settings were measured with the versions that `docs/agents.md` names.

use std::collections::BTreeMap;

use super::{AgentConfig, AgentKind, Config, Secret};

/// A known agent.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its adapter.
    pub kind: AgentKind,
    /// Program and first arguments.
    pub command: &'static [&'static str],
    /// How it is installed, and how one logs in.
    pub install: &'static str,
    /// What to do when it has no credentials.
    pub login: &'static str,
    /// Set in its environment: no updates and no telemetry on a server.
    pub env: &'static [(&'static str, &'static str)],
    /// Passed on from the server's environment, where they are set: its keys and addresses.
    pub pass_env: &'static [&'static str],
    /// Variables that hold its credentials.
    pub keys: &'static [&'static str],
    /// Files below `HOME` that hold them, or its own settings of a provider.
    pub credentials: &'static [&'static str],
    /// Another way to drive an agent that has a native adapter: listed only where it is found or configured.
    pub alternative: bool,
}

const CLAUDE_ENV: &[(&str, &str)] = &[
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
];
const CLAUDE_PASS: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
];
const CODEX_PASS: &[&str] = &["OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_HOME", "CODEX_API_KEY"];
const OPENCODE_ENV: &[(&str, &str)] = &[("OPENCODE_DISABLE_AUTOUPDATE", "1"), ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1")];
const OPENCODE_PASS: &[&str] = &[
    "OPENCODE_CONFIG",
    "OPENCODE_CONFIG_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
];

const CLAUDE_KEYS: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];
const CLAUDE_FILES: &[&str] = &[".claude/.credentials.json"];
const CODEX_KEYS: &[&str] = &["OPENAI_API_KEY", "CODEX_API_KEY"];
const CODEX_FILES: &[&str] = &[".codex/auth.json", ".codex/config.toml"];
const OPENCODE_KEYS: &[&str] = &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"];
const OPENCODE_FILES: &[&str] = &[".local/share/opencode/auth.json", ".config/opencode/opencode.json"];

/// All known agents.
pub const KNOWN: &[Known] = &[
    Known {
        name: "claude",
        kind: AgentKind::Claude,
        command: &["claude"],
        install: "npm install -g @anthropic-ai/claude-code",
        login: "run `claude` and `/login`, or set ANTHROPIC_API_KEY",
        env: CLAUDE_ENV,
        pass_env: CLAUDE_PASS,
        keys: CLAUDE_KEYS,
        credentials: CLAUDE_FILES,
        alternative: false,
    },
    Known {
        name: "codex",
        kind: AgentKind::Codex,
        command: &["codex"],
        install: "npm install -g @openai/codex",
        login: "run `codex login`, or `codex login --with-api-key` with a key on its stdin",
        env: &[],
        pass_env: CODEX_PASS,
        keys: CODEX_KEYS,
        credentials: CODEX_FILES,
        alternative: false,
    },
    Known {
        name: "opencode",
        kind: AgentKind::Opencode,
        command: &["opencode"],
        install: "npm install -g opencode-ai",
        login: "run `opencode auth login`",
        env: OPENCODE_ENV,
        pass_env: OPENCODE_PASS,
        keys: OPENCODE_KEYS,
        credentials: OPENCODE_FILES,
        alternative: false,
    },
    Known {
        name: "gemini",
        kind: AgentKind::Acp,
        command: &["gemini", "--acp"],
        install: "npm install -g @google/gemini-cli",
        login: "run `gemini` and log in, or set GEMINI_API_KEY",
        env: &[],
        pass_env: &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT"],
        keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        credentials: &[".gemini/oauth_creds.json"],
        alternative: false,
    },
    Known {
        name: "qwen",
        kind: AgentKind::Acp,
        command: &["qwen", "--acp"],
        install: "npm install -g @qwen-code/qwen-code",
        login: "run `qwen` and log in, or set OPENAI_API_KEY",
        env: &[],
        pass_env: &["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "DASHSCOPE_API_KEY"],
        keys: &["OPENAI_API_KEY", "DASHSCOPE_API_KEY"],
        credentials: &[".qwen/oauth_creds.json"],
        alternative: false,
    },
    Known {
        name: "goose",
        kind: AgentKind::Acp,
        command: &["goose", "acp"],
        install: "see the goose documentation",
        login: "run `goose configure`",
        env: &[],
        pass_env: &["GOOSE_PROVIDER", "GOOSE_MODEL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"],
        keys: &["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"],
        credentials: &[".config/goose/config.yaml"],
        alternative: false,
    },
    Known {
        name: "pi",
        kind: AgentKind::Pi,
        command: &["pi"],
        install: "npm install -g @mariozechner/pi-coding-agent",
        login: "run `pi` and `/login`, or set the key of your provider",
        env: &[("PI_SKIP_VERSION_CHECK", "1")],
        pass_env: &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"],
        keys: &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"],
        credentials: &[".pi/agent/auth.json", ".pi/agent/models.json"],
        alternative: false,
    },
    Known {
        name: "claude-acp",
        kind: AgentKind::Acp,
        command: &["claude-agent-acp"],
        install: "npm install -g @agentclientprotocol/claude-agent-acp",
        login: "run `claude` and `/login`, or set ANTHROPIC_API_KEY",
        env: CLAUDE_ENV,
        pass_env: CLAUDE_PASS,
        keys: CLAUDE_KEYS,
        credentials: CLAUDE_FILES,
        alternative: true,
    },
    Known {
        name: "codex-acp",
        kind: AgentKind::Acp,
        command: &["codex-acp"],
        install: "npm install -g @zed-industries/codex-acp",
        login: "run `codex login`, or `codex login --with-api-key` with a key on its stdin",
        env: &[],
        pass_env: CODEX_PASS,
        keys: CODEX_KEYS,
        credentials: CODEX_FILES,
        alternative: true,
    },
    Known {
        name: "opencode-acp",
        kind: AgentKind::Acp,
        command: &["opencode", "acp"],
        install: "npm install -g opencode-ai",
        login: "run `opencode auth login`",
        env: OPENCODE_ENV,
        pass_env: OPENCODE_PASS,
        keys: OPENCODE_KEYS,
        credentials: OPENCODE_FILES,
        alternative: true,
    },
];

/// The known agent of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The known agent that runs this program; a path counts by its last piece.
#[must_use]
pub fn by_program(program: &str) -> Option<&'static Known> {
    let program = program.rsplit('/').next()?;
    KNOWN.iter().find(|known| known.command.first() == Some(&program))
}

/// How a well-known program is installed.
#[must_use]
pub fn install_hint(program: &str) -> Option<&'static str> {
    by_program(program).map(|known| known.install)
}

impl Config {
    /// Adds the known agents, and completes the entries that have their names.
    pub(super) fn add_known(&mut self) {
        for known in KNOWN {
            let unconfigured = || AgentConfig { configured: false, ..AgentConfig::default() };
            self.agents.entry(known.name.to_owned()).or_insert_with(unconfigured).complete(known);
        }
    }
}

impl AgentConfig {
    /// Fills in what the entry leaves out; single variables of the entry win. An entry of another kind stays as it is.
    fn complete(&mut self, known: &Known) {
        if *self.kind.get_or_insert(known.kind) != known.kind {
            return;
        }
        if self.command.is_empty() {
            self.command = known.command.iter().map(|&word| word.to_owned()).collect();
        }
        let defaults: BTreeMap<String, Secret> =
            known.env.iter().map(|&(name, value)| (name.to_owned(), Secret::new(value))).collect();
        let own = std::mem::replace(&mut self.env, defaults);
        self.env.extend(own);
        for &name in known.pass_env {
            if !self.pass_env.iter().any(|passed| passed == name) {
                self.pass_env.push(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_overrides_field_by_field() {
        let mut entry = AgentConfig { model: Some("m".into()), ..AgentConfig::default() };
        entry.env.insert("DISABLE_TELEMETRY".into(), Secret::new("0"));
        entry.complete(find("claude").unwrap());
        assert_eq!((entry.kind, entry.command.as_slice()), (Some(AgentKind::Claude), &["claude".to_owned()][..]));
        assert_eq!(entry.env["DISABLE_TELEMETRY"].expose(), "0");
        assert_eq!(entry.env["DISABLE_AUTOUPDATER"].expose(), "1");
        assert_eq!(entry.model.as_deref(), Some("m"));
    }

    #[test]
    fn names_are_unique_and_programs_have_a_hint() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert!(KNOWN.iter().skip(at + 1).all(|other| other.name != known.name), "{}", known.name);
        }
        assert_eq!(install_hint("/usr/bin/codex-acp"), Some("npm install -g @zed-industries/codex-acp"));
        assert_eq!(install_hint("nothing"), None);
    }
}
