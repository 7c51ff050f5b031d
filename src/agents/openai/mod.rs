//! The `openai` adapter: any endpoint that speaks OpenAI's chat completions (llama.cpp, vLLM, Ollama, LM Studio,
//! OpenAI, OpenRouter, …).
//!
//! It is stateless: every turn sends the conversation from the transcript. It has no tools. Dropping the request is
//! how a turn is stopped, so a cancel and a kill are done at once. How long a silent server may take is decided by
//! the session, not here: there is a limit for connecting and none for answering.
//!
//! What it learns of its server it keeps while it lives, and it never asks only to learn: `return_progress`, which
//! strict servers refuse, goes only to a server whose list of models or earlier answer showed llama.cpp, and
//! `stream_options` goes to all until one refuses it.

mod chunk;
pub(super) mod endpoint;
mod failure;
mod request;
pub(crate) mod retry;
pub(super) mod sse;
mod turn;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    Agent, AgentCommand, AgentEvent, Capabilities, Live, Mode, OpenSpec, Opened, Outcome, Probe, ProcessLedger, Prompt,
    channel,
};
use crate::config::{AgentConfig, AgentLimits};
use endpoint::Endpoint;
pub use endpoint::InvalidEndpoint;

/// How long a probe waits for the list of models.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// An OpenAI-compatible endpoint as an agent.
pub struct OpenAiAgent {
    inner: Arc<Inner>,
}

/// What all sessions of the agent share.
struct Inner {
    name: String,
    config: AgentConfig,
    limits: AgentLimits,
    endpoint: Endpoint,
    first_retry: Duration,
    /// The server is llama.cpp.
    is_llama: Learned,
    /// The server refused `stream_options`.
    refuses_options: Learned,
}

/// Something that shows itself with time, and then stays true.
#[derive(Default)]
struct Learned(AtomicBool);

impl Learned {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl OpenAiAgent {
    /// Makes the agent of `[agents.name]`. Asks nothing of the network.
    ///
    /// # Errors
    /// Where `base_url` is missing or no HTTP address, where the key cannot be sent, or where TLS or the proxy cannot
    /// be set up.
    pub fn new(name: &str, config: AgentConfig, limits: AgentLimits) -> Result<Self, InvalidEndpoint> {
        Self::with_first_retry(name, config, limits, retry::FIRST)
    }

    /// The same, with another longest wait before the first retry than one second; each further wait is twice as
    /// long, up to 30 seconds.
    ///
    /// # Errors
    /// As [`OpenAiAgent::new`].
    pub fn with_first_retry(
        name: &str,
        config: AgentConfig,
        limits: AgentLimits,
        first_retry: Duration,
    ) -> Result<Self, InvalidEndpoint> {
        let endpoint = Endpoint::new(name, &config)?;
        let inner = Inner {
            name: name.to_owned(),
            config,
            limits,
            endpoint,
            first_retry,
            is_llama: Learned::default(),
            refuses_options: Learned::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Agent for OpenAiAgent {
    fn id(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> &'static str {
        "openai"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { stateless: true, images: true, replay: true, ..Capabilities::default() }
    }

    fn modes(&self) -> Option<Vec<Mode>> {
        Some(Vec::new())
    }

    fn start(&self, spec: OpenSpec) -> Live {
        let (live, side) = channel();
        tokio::spawn(serve(Arc::clone(&self.inner), spec, side));
        live
    }

    fn probe(&self, _processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe> {
        let inner = &self.inner;
        async move {
            if let Some(failure) = inner.endpoint.missing_key() {
                return Probe { reason: Some(failure.message), ..Probe::default() };
            }
            match inner.endpoint.models(PROBE_LIMIT).await {
                Ok(models) => {
                    if models.is_llama {
                        inner.is_llama.set();
                    }
                    Probe { available: true, models: models.to_values(), ..Probe::default() }
                }
                Err(failure) if failure.status == Some(404) && inner.config.model.is_some() => {
                    let reason = format!("{} does not list its models", inner.endpoint.shown());
                    Probe { available: true, reason: Some(reason), ..Probe::default() }
                }
                Err(failure) => Probe { reason: Some(failure.message), ..Probe::default() },
            }
        }
        .boxed()
    }
}

/// Runs prompts until the session lets go or kills.
async fn serve(agent: Arc<Inner>, spec: OpenSpec, mut side: super::AdapterSide) {
    let mut model = spec.model.clone().or_else(|| agent.config.model.clone());
    let opened = Opened { model: model.clone(), ..Opened::default() };
    if side.events.send(AgentEvent::Opened(opened)).await.is_err() {
        return;
    }
    loop {
        let command = tokio::select! {
            biased;
            () = side.killed.cancelled() => return,
            command = side.commands.recv() => command,
        };
        match command {
            None | Some(AgentCommand::Close) => return,
            Some(AgentCommand::SetModel(id)) => model = Some(id),
            Some(AgentCommand::Prompt(prompt)) => {
                let Some(outcome) = prompted(&agent, &spec, &mut model, prompt, &mut side).await else { return };
                let ended = side.events.send(AgentEvent::Ended(outcome));
                tokio::select! {
                    biased;
                    () = side.killed.cancelled() => return,
                    sent = ended => if sent.is_err() { return },
                }
            }
            // Nothing runs, or it is nothing that this agent can do; its capabilities say so.
            Some(
                AgentCommand::Cancel
                | AgentCommand::Steer { .. }
                | AgentCommand::Answer { .. }
                | AgentCommand::SetMode(_),
            ) => {}
        }
    }
}

/// Runs one prompt; none when the agent must be gone. Commands go before the turn, so that a flood of deltas cannot
/// keep a cancel waiting.
async fn prompted(
    agent: &Inner,
    spec: &OpenSpec,
    model: &mut Option<String>,
    prompt: Prompt,
    side: &mut super::AdapterSide,
) -> Option<Outcome> {
    let turn = turn::run(agent, spec, model.clone(), prompt, side.events.clone());
    tokio::pin!(turn);
    loop {
        let command = tokio::select! {
            biased;
            () = side.killed.cancelled() => None,
            command = side.commands.recv() => command,
            outcome = &mut turn => return Some(outcome),
        };
        match command {
            Some(AgentCommand::Cancel) => return Some(Outcome::Cancelled),
            None | Some(AgentCommand::Close) => {
                // There may be nobody left to read it, and no room: the closed channel says the same.
                let _unread = side.events.try_send(AgentEvent::Ended(Outcome::Cancelled));
                return None;
            }
            Some(AgentCommand::SetModel(id)) => *model = Some(id),
            Some(AgentCommand::Prompt(_)) => {
                log::error!(agent = agent.name.as_str(), session:% = spec.session; "a prompt came while a turn runs");
            }
            Some(AgentCommand::Steer { .. } | AgentCommand::Answer { .. } | AgentCommand::SetMode(_)) => {}
        }
    }
}
