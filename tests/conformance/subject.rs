//! What is put to the test: the real agents, and the built-in kinds that need no program of others.

use std::path::Path;

use serde_json::{Value, json};

use crate::{mock_llm::MockLlm, real::Real};

/// An agent of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A program that is installed from npm.
    Real(Real),
    /// An OpenAI-compatible endpoint.
    Openai,
    /// The scripted agent, which is not in the table.
    Fake,
}

/// How it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// It asks before it runs a command.
    Usual,
    /// As above, and a turn may be silent for a short time only.
    Impatient,
    /// Its own settings name no policy, so that its modes decide.
    Modes,
    /// The scripted agent ignores signals and the end of its input; limits are short.
    Stubborn,
}

impl Subject {
    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        Real::ALL.into_iter().map(Self::Real).chain([Self::Openai])
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real(real) => real.name(),
            Self::Openai => "openai",
            Self::Fake => "fake",
        }
    }

    /// The kind of adapter that drives it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Real(real) => real.kind().name(),
            Self::Openai => "openai",
            Self::Fake => "acp",
        }
    }

    /// The text of the server's configuration.
    pub fn configuration(self, variant: Variant, mock: &MockLlm, home: &Path, work: &Path) -> String {
        let agent = match self {
            Self::Real(real) => {
                let config = real.set_up_as(mock, home, variant != Variant::Modes);
                let mut env: serde_json::Map<String, Value> =
                    config.env.iter().map(|(name, value)| (name.clone(), value.expose().into())).collect();
                // The server's own PATH is short.
                env.insert("PATH".into(), std::env::var("PATH").unwrap().into());
                json!({"kind": self.kind(), "command": config.command, "cwd": work, "env": env})
            }
            Self::Openai => {
                json!({"kind": "openai", "base_url": mock.v1(), "max_retries": 1, "model": "mock-model"})
            }
            Self::Fake => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
                let stubborn = variant == Variant::Stubborn;
                let setup = json!({"ignore_term": stubborn, "ignore_eof": stubborn});
                let env = json!({"FAKE": setup.to_string(), "HOME": home, "PATH": std::env::var("PATH").unwrap()});
                json!({"kind": "acp", "command": ["node", script], "cwd": work, "env": env})
            }
        };
        let (stall, cancel) = match variant {
            // OpenCode waits for up to 16 s before it tries again.
            Variant::Impatient => ("30s", "5s"),
            Variant::Stubborn => ("5s", "500ms"),
            Variant::Usual | Variant::Modes => ("2m", "5s"),
        };
        let config = json!({
            "session": {"default_agent": self.name()},
            // What the agent streams is what is told, piece by piece.
            "stream": {"flush_interval": "0"},
            "agent": {"stall_timeout": stall, "open_timeout": "2m", "cancel_timeout": cancel, "kill_grace": "1s"},
            "shutdown": {"grace": "500ms"},
            "agents": {self.name(): agent},
        });
        toml::to_string(&config).unwrap()
    }

    /// The variant that is set up in the same way, so that fewer are needed.
    pub fn plainest(self, variant: Variant) -> Variant {
        match (self, variant) {
            (Self::Real(Real::CodexAcp), Variant::Modes) => Variant::Modes,
            (_, Variant::Modes) => Variant::Usual,
            (_, variant) => variant,
        }
    }

    /// A model that is not its default, as it is asked for and as the model server hears of it.
    pub fn other_model(self) -> (&'static str, &'static str) {
        match self {
            Self::Real(real) => real.other_model(),
            Self::Openai | Self::Fake => ("mock-2", "mock-2"),
        }
    }

    /// A mode that is not its default.
    pub fn other_mode(self) -> &'static str {
        match self {
            Self::Real(real) => real.other_mode(),
            Self::Openai | Self::Fake => "plan",
        }
    }

    /// The tool with which its model puts a question to the user, and an input for it.
    pub fn question(self) -> (&'static str, Value) {
        let option = |label: &str| json!({"label": label, "description": label});
        let options = json!([option("Red"), option("Blue")]);
        let question = json!({"question": "Which colour?", "header": "Colour", "options": options});
        let mut multi = question.clone();
        multi["multiSelect"] = false.into();
        match self {
            Self::Real(Real::Gemini) => {
                multi["type"] = "choice".into();
                ("ask_user", json!({"questions": [multi]}))
            }
            Self::Real(Real::Qwen) => ("ask_user_question", json!({"questions": [multi]})),
            Self::Real(Real::Codex | Real::CodexAcp) => {
                let mut question = question;
                question["id"] = "colour".into();
                ("request_user_input", json!({"questions": [question]}))
            }
            Self::Real(Real::Opencode | Real::OpencodeAcp) => ("question", json!({"questions": [question]})),
            _ => ("AskUserQuestion", json!({"questions": [multi]})),
        }
    }

    /// Its npm package; none for what is built in.
    pub fn package(self) -> Option<&'static str> {
        match self {
            Self::Real(real) => Some(real.package()),
            Self::Openai | Self::Fake => None,
        }
    }

    /// It is a program, and no endpoint.
    pub fn is_program(self) -> bool {
        self != Self::Openai
    }

    /// It calls tools.
    pub fn has_tools(self) -> bool {
        self != Self::Openai
    }

    /// Its model may put questions in its plan mode only.
    pub fn plans_to_question(self) -> bool {
        self == Self::Real(Real::Codex)
    }

    /// It asks before it runs a command.
    pub fn asks(self) -> bool {
        !matches!(self, Self::Openai | Self::Real(Real::Pi))
    }

    /// It has slash commands, which may come late.
    pub fn has_commands(self) -> bool {
        !matches!(self, Self::Openai | Self::Real(Real::Pi))
    }
}
