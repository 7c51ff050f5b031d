//! The real agents of the tests: where their program is, and how each uses the mock model server.
//!
//! `scripts/agents` installs them at pinned versions. An agent that is missing fails the test: one that is left out
//! unseen would prove nothing. Each runs with a cleared environment, a HOME of the test's own and a dummy key.

// Every test binary includes this module and uses another part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use greenroom::config::{AgentConfig, AgentKind, Secret};

use crate::mock_llm::MockLlm;

/// A model that Codex has in its built-in list: about others it complains in the answer's text.
pub const CODEX_MODEL: &str = "gpt-5.4";

/// A real agent, driven in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Real {
    Claude,
    Codex,
    Opencode,
    Pi,
    Gemini,
    Qwen,
    ClaudeAcp,
    CodexAcp,
    OpencodeAcp,
}

impl Real {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Claude,
        Self::Codex,
        Self::Opencode,
        Self::Pi,
        Self::Gemini,
        Self::Qwen,
        Self::ClaudeAcp,
        Self::CodexAcp,
        Self::OpencodeAcp,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Pi => "pi",
            Self::Gemini => "gemini",
            Self::Qwen => "qwen",
            Self::ClaudeAcp => "claude-acp",
            Self::CodexAcp => "codex-acp",
            Self::OpencodeAcp => "opencode-acp",
        }
    }

    /// The adapter.
    pub fn kind(self) -> AgentKind {
        match self {
            Self::Claude => AgentKind::Claude,
            Self::Codex => AgentKind::Codex,
            Self::Opencode => AgentKind::Opencode,
            Self::Pi => AgentKind::Pi,
            _ => AgentKind::Acp,
        }
    }

    /// The package that it is installed from.
    pub fn package(self) -> &'static str {
        match self {
            Self::Claude => "@anthropic-ai/claude-code",
            Self::Codex => "@openai/codex",
            Self::Opencode | Self::OpencodeAcp => "opencode-ai",
            Self::Pi => "@mariozechner/pi-coding-agent",
            Self::Gemini => "@google/gemini-cli",
            Self::Qwen => "@qwen-code/qwen-code",
            Self::ClaudeAcp => "@agentclientprotocol/claude-agent-acp",
            Self::CodexAcp => "@zed-industries/codex-acp",
        }
    }

    /// A model that is not its default: its id, and its name in the requests to the model server.
    pub fn other_model(self) -> (&'static str, &'static str) {
        match self {
            Self::Claude | Self::ClaudeAcp => ("sonnet", "claude-sonnet-5-5"),
            Self::Codex | Self::CodexAcp => ("gpt-5.4-mini", "gpt-5.4-mini"),
            Self::Gemini => ("gemini-2.5-pro", "gemini-2.5-pro"),
            Self::Qwen => ("mock-2(openai)", "mock-2"),
            Self::Opencode | Self::OpencodeAcp | Self::Pi => ("mock/mock-2", "mock-2"),
        }
    }

    /// A mode that is not its default.
    pub fn other_mode(self) -> &'static str {
        match self {
            Self::CodexAcp => "auto",
            _ => "plan",
        }
    }

    /// The program, which must be there. Native programs, not their wrappers in node, which leave them behind when they
    /// are killed.
    pub fn program(self) -> String {
        let folder = std::env::var_os("GREENROOM_TEST_AGENTS").map(PathBuf::from);
        let folder =
            folder.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/greenroom-agents"));
        let (node, rust) = match std::env::consts::ARCH {
            "aarch64" => ("arm64", "aarch64"),
            other => ("x64", other),
        };
        let path = folder.join(match self {
            Self::Claude => format!("claude-code/node_modules/@anthropic-ai/claude-code-linux-{node}/claude"),
            Self::Codex => {
                format!("codex/node_modules/@openai/codex-linux-{node}/vendor/{rust}-unknown-linux-musl/bin/codex")
            }
            Self::Opencode | Self::OpencodeAcp => "opencode-ai/node_modules/.bin/opencode".to_owned(),
            Self::Pi => "pi-coding-agent/node_modules/.bin/pi".to_owned(),
            Self::Gemini => "gemini-cli/node_modules/.bin/gemini".to_owned(),
            Self::Qwen => "qwen-code/node_modules/.bin/qwen".to_owned(),
            Self::ClaudeAcp => "claude-agent-acp/node_modules/.bin/claude-agent-acp".to_owned(),
            Self::CodexAcp => format!("codex-acp/node_modules/@zed-industries/codex-acp-linux-{node}/bin/codex-acp"),
        });
        assert!(path.exists(), "{} is not installed: run scripts/agents", path.display());
        path.to_str().unwrap().to_owned()
    }

    /// Program and arguments.
    pub fn command(self) -> Vec<String> {
        let args: &[&str] = match self {
            Self::Gemini | Self::Qwen => &["--acp"],
            Self::OpencodeAcp => &["acp"],
            Self::Pi => &["--provider", "mock", "--model", "mock-model"],
            _ => &[],
        };
        std::iter::once(self.program()).chain(args.iter().map(|&arg| arg.to_owned())).collect()
    }

    /// The variables beside HOME.
    fn env(self, mock: &MockLlm) -> Vec<(&'static str, String)> {
        let on = || "1".to_owned();
        match self {
            Self::Claude | Self::ClaudeAcp => vec![
                ("ANTHROPIC_BASE_URL", mock.url()),
                ("ANTHROPIC_API_KEY", "sk-dummy".into()),
                // Else a refusal is tried again for minutes.
                ("CLAUDE_CODE_MAX_RETRIES", on()),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", on()),
                ("DISABLE_AUTOUPDATER", on()),
                ("DISABLE_TELEMETRY", on()),
                ("DISABLE_ERROR_REPORTING", on()),
            ],
            Self::Codex | Self::CodexAcp => vec![("MOCK_KEY", "dummy".into())],
            Self::Opencode | Self::OpencodeAcp => vec![
                ("OPENCODE_DISABLE_AUTOUPDATE", on()),
                ("OPENCODE_DISABLE_MODELS_FETCH", on()),
                ("OPENCODE_DISABLE_LSP_DOWNLOAD", on()),
                ("OPENCODE_DISABLE_DEFAULT_PLUGINS", on()),
            ],
            Self::Pi => {
                vec![("PI_OFFLINE", on()), ("PI_SKIP_VERSION_CHECK", on()), ("MOCK_KEY", "dummy".into())]
            }
            Self::Gemini => vec![
                ("GEMINI_API_KEY", "dummy".into()),
                ("GOOGLE_GEMINI_BASE_URL", mock.url()),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true".into()),
            ],
            Self::Qwen => vec![
                ("OPENAI_API_KEY", "dummy".into()),
                ("OPENAI_BASE_URL", mock.v1()),
                ("OPENAI_MODEL", "mock-model".into()),
            ],
        }
    }

    /// What its own file in HOME must say to use the mock, and, with `ask`, to ask before it runs a command, where that is
    /// not its default.
    fn settings(self, mock: &MockLlm, ask: bool) -> Option<(&'static str, String)> {
        let v1 = mock.v1();
        let policy = match (self, ask) {
            // Newer versions refuse to start with that policy in their file.
            (Self::Codex, _) => r#"sandbox_mode = "workspace-write""#,
            // Without a sandbox, which not every machine of a test can have.
            (_, true) => "approval_policy = \"untrusted\"\nsandbox_mode = \"danger-full-access\"",
            (_, false) => "",
        };
        Some(match self {
            Self::Claude | Self::ClaudeAcp => return None,
            Self::Codex | Self::CodexAcp => (
                ".codex/config.toml",
                format!(
                    r#"
                    model = "{}"
                    model_provider = "mock"
                    {policy}
                    check_for_update_on_startup = false
                    [model_providers.mock]
                    name = "mock"
                    base_url = "{v1}"
                    env_key = "MOCK_KEY"
                    wire_api = "responses"
                    request_max_retries = 0
                    stream_max_retries = 0
                    [analytics]
                    enabled = false
                    "#,
                    // Newer versions know other models.
                    if self == Self::Codex { "gpt-5.5" } else { CODEX_MODEL },
                ),
            ),
            Self::Opencode | Self::OpencodeAcp => (
                ".config/opencode/opencode.json",
                format!(
                    r#"{{"autoupdate": false, "share": "disabled", "model": "mock/mock-model", "small_model": "mock/mock-model",
                    "provider": {{"mock": {{"npm": "@ai-sdk/openai-compatible", "name": "Mock",
                        "options": {{"baseURL": "{v1}", "apiKey": "sk-dummy"}},
                        "models": {{
                            "mock-model": {{"name": "Mock Model", "limit": {{"context": 128000, "output": 8192}}, "cost": {{"input": 1, "output": 2}}}},
                            "mock-2": {{"name": "Mock Two", "limit": {{"context": 128000, "output": 8192}}, "cost": {{"input": 1, "output": 2}}}}}}}}}},
                    "permission": {{"bash": "ask", "edit": "ask"}}}}"#
                ),
            ),
            Self::Pi => (
                ".pi/agent/models.json",
                format!(
                    r#"{{"providers": {{"mock": {{"baseUrl": "{v1}", "api": "openai-completions", "apiKey": "MOCK_KEY",
                    "models": [{{"id": "mock-model", "name": "Mock", "contextWindow": 128000, "maxTokens": 8192,
                        "cost": {{"input": 1, "output": 2, "cacheRead": 0, "cacheWrite": 0}}, "input": ["text"], "reasoning": false}},
                    {{"id": "mock-2", "name": "Mock Two", "contextWindow": 128000, "maxTokens": 8192,
                        "cost": {{"input": 1, "output": 2, "cacheRead": 0, "cacheWrite": 0}}, "input": ["text"], "reasoning": false}}]}}}}}}"#
                ),
            ),
            Self::Gemini => (
                ".gemini/settings.json",
                // It tries up to ten times else, for minutes.
                r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false},
                    "general":{"maxAttempts":1}}"#
                    .to_owned(),
            ),
            Self::Qwen => (
                ".qwen/settings.json",
                format!(
                    r#"{{"security": {{"auth": {{"selectedType": "openai"}}}}, "privacy": {{"usageStatisticsEnabled": false}},
                    "ui": {{"enableFollowupSuggestions": false}}, "memory": {{"enableManagedAutoMemory": false}},
                    "model": {{"name": "mock-model", "generationConfig": {{"maxRetries": 1}}}},
                    "modelProviders": {{"openai": [
                        {{"id": "mock-model", "name": "Mock", "baseUrl": "{v1}", "envKey": "OPENAI_API_KEY", "generationConfig": {{"maxRetries": 1}}}},
                        {{"id": "mock-2", "name": "Mock Two", "baseUrl": "{v1}", "envKey": "OPENAI_API_KEY", "generationConfig": {{"maxRetries": 1}}}}]}}}}"#
                ),
            ),
        })
    }

    /// Writes its settings into `home`, and returns its entry in the configuration. It asks before it runs a command.
    pub fn set_up(self, mock: &MockLlm, home: &Path) -> AgentConfig {
        self.set_up_as(mock, home, true)
    }

    /// As [`Real::set_up`]; without `ask` its own settings leave open when it asks.
    pub fn set_up_as(self, mock: &MockLlm, home: &Path, ask: bool) -> AgentConfig {
        if let Some((file, settings)) = self.settings(mock, ask) {
            let file = home.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, settings).unwrap();
        }
        let env = self.env(mock).into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let home = std::iter::once(("HOME".to_owned(), Secret::new(home.to_str().unwrap())));
        AgentConfig {
            kind: Some(self.kind()),
            command: self.command(),
            env: env.chain(home).collect(),
            ..AgentConfig::default()
        }
    }
}
