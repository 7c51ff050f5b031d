//! One turn: attempts until one of them shows something, then its stream until the end.
//!
//! Dropping the future stops the turn: nothing runs outside of it.

use std::{pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, Response, header::CONTENT_TYPE};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Inner,
    chunk::{self, Fact},
    endpoint::read_body,
    failure::Failure,
    request, retry,
    sse::{self, Broken},
};
use crate::{
    agents::{AgentEvent, OpenSpec, Outcome, Prompt, json},
    error::Code,
    protocol::session::AgentStatus,
};

/// How long a server may take to list its models when a turn needs them.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// How long the rest of a stream may take once the answer is over: the usage comes last, if it comes.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// Models that an error names.
const NAMED_MODELS: usize = 20;

/// Runs a turn to its end.
pub async fn run(
    agent: &Inner,
    spec: &OpenSpec,
    model: Option<String>,
    prompt: Prompt,
    events: mpsc::Sender<AgentEvent>,
) -> Outcome {
    let history = match spec.transcript.load().await {
        Ok(history) => history,
        Err(error) => {
            log::error!(agent = agent.name.as_str(), session:% = spec.session, error = error.as_str();
                "the conversation could not be read");
            return Outcome::failed(Code::AgentError.as_str(), "the conversation so far could not be read");
        }
    };
    let conversation = request::conversation(agent.config.system.as_deref(), &history, &prompt);
    drop(history);
    let mut turn = Turn { agent, events, shown: false, model: prompt.model.clone().or(model) };
    for message in conversation.left_out {
        turn.fault("attachment_left_out", message).await;
    }
    if conversation.is_empty {
        let message = "nothing of the message is left that this agent could take";
        return Outcome::failed(Code::InvalidAttachment.as_str(), message);
    }
    turn.run(conversation.messages).await
}

/// The request. It borrows the messages: with images they are large.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Value],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_progress: Option<bool>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

struct Turn<'a> {
    agent: &'a Inner,
    events: mpsc::Sender<AgentEvent>,
    /// A delta has gone out: from here on nothing can be tried again.
    shown: bool,
    model: Option<String>,
}

impl Turn<'_> {
    async fn run(&mut self, messages: Vec<Value>) -> Outcome {
        let most = self.agent.config.max_retries;
        let mut retries = 0;
        loop {
            let failure = match self.attempt(&messages, retries > 0).await {
                Ok(outcome) => return outcome,
                Err(failure) => failure,
            };
            let patience = retry::PATIENCE.min(self.agent.limits.stall_timeout.0 / 2);
            let too_long = failure.after.filter(|&asked| asked > patience);
            if !failure.retry || self.shown || retries >= most || too_long.is_some() {
                let failure = failure.after_retries(retries);
                let message = match too_long {
                    Some(asked) => format!("{}; it asks to wait {}", failure.message, retry::shown(asked)),
                    None => failure.message,
                };
                return Outcome::failed(failure.code.as_str(), message);
            }
            retries += 1;
            let wait = retry::wait(retries, self.agent.first_retry, failure.after);
            let reason = format!("retry {retries} of {most} in {}: {}", retry::shown(wait), failure.short);
            self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason) }).await;
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends the request once, and reads the answer to its end.
    async fn attempt(&mut self, messages: &[Value], again: bool) -> Result<Outcome, Failure> {
        let endpoint = &self.agent.endpoint;
        if let Some(failure) = endpoint.missing_key() {
            return Err(failure);
        }
        let model = self.model().await?;
        let response = self.send(&model, messages).await?;
        if again {
            self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: None }).await;
        }
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match media_type {
            Some(kind) if kind.contains("html") => {
                Err(Failure::not_the_api(endpoint, "it sent a web page in place of a completion"))
            }
            Some(kind) if kind.contains("json") => self.read_whole(response).await,
            _ => {
                let events = sse::events(response.bytes_stream(), self.agent.limits.max_line.bytes());
                self.read_stream(events).await
            }
        }
    }

    /// The model that was asked for, else the first that the server lists.
    async fn model(&mut self) -> Result<String, Failure> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let endpoint = &self.agent.endpoint;
        let models = endpoint.models(LIST_LIMIT).await?;
        if models.is_llama {
            self.agent.is_llama.set();
        }
        let first = models.ids.into_iter().next().ok_or_else(|| {
            let (shown, name) = (endpoint.shown(), endpoint.agent());
            Failure::unavailable(format!("{shown} lists no models: load one there, or set model of [agents.{name}]"))
        })?;
        Ok(self.model.insert(first).clone())
    }

    /// Posts the request, without what the server turns out not to take.
    async fn send(&self, model: &str, messages: &[Value]) -> Result<Response, Failure> {
        let (agent, endpoint) = (self.agent, &self.agent.endpoint);
        loop {
            let with_options = !agent.refuses_options.get();
            let body = Body {
                model,
                messages,
                stream: true,
                stream_options: with_options.then_some(StreamOptions { include_usage: true }),
                return_progress: agent.is_llama.get().then_some(true),
            };
            let response = endpoint.call(Method::POST, "chat/completions").json(&body).send().await;
            let response = response.map_err(|error| Failure::from_transport(endpoint, &error))?;
            if response.status() == 200 {
                return Ok(response);
            }
            let failure = Failure::from_response(endpoint, response).await;
            match failure.status {
                Some(400 | 422) if with_options && failure.message.contains("stream_options") => {
                    agent.refuses_options.set();
                }
                Some(404) => return Err(self.explain_404(model, failure).await),
                _ => return Err(failure),
            }
        }
    }

    /// Nothing of that name: either the model, or the whole path.
    async fn explain_404(&self, model: &str, failure: Failure) -> Failure {
        let endpoint = &self.agent.endpoint;
        let Ok(models) = endpoint.models(LIST_LIMIT).await else {
            return Failure::not_the_api(endpoint, &format!("POST /chat/completions got {}", failure.short));
        };
        if models.ids.iter().any(|id| id == model) {
            return failure;
        }
        let mut list = models.ids.iter().take(NAMED_MODELS).map(String::as_str).collect::<Vec<_>>().join(", ");
        if models.ids.len() > NAMED_MODELS {
            list.push_str(", …");
        }
        let message = format!("{} has no model {model:?} ({}); it has: {list}", endpoint.shown(), failure.short);
        Failure { code: Code::ModelNotFound, message, ..failure }
    }

    /// A server that does not stream answers with the whole completion.
    async fn read_whole(&mut self, response: Response) -> Result<Outcome, Failure> {
        let endpoint = &self.agent.endpoint;
        let max = self.agent.limits.max_line.bytes();
        let body = read_body(response, max).await.map_err(|error| Failure::from_transport(endpoint, &error))?;
        let body: Option<Value> = json::parse(&String::from_utf8_lossy(&body)).ok();
        let facts = body.as_ref().and_then(chunk::read);
        let facts = facts.ok_or_else(|| Failure::not_the_api(endpoint, "it sent JSON that is no completion"))?;
        let mut end = End::default();
        self.take(facts, &mut end).await?;
        Ok(end.outcome().unwrap_or(Outcome::Completed { reason: None }))
    }

    async fn read_stream(
        &mut self,
        events: impl Stream<Item = Result<String, Broken<reqwest::Error>>>,
    ) -> Result<Outcome, Failure> {
        let endpoint = &self.agent.endpoint;
        let mut events = pin!(events);
        let mut end = End::default();
        loop {
            let next = if end.finish.is_some() {
                // The answer is whole: a server that forgets to close the stream does not hold the turn up.
                tokio::time::timeout(REST_LIMIT, events.next()).await.unwrap_or(None)
            } else {
                events.next().await
            };
            let data = match next {
                Some(Ok(data)) if data.trim() == "[DONE]" => {
                    return Ok(end.outcome().unwrap_or(Outcome::Completed { reason: None }));
                }
                Some(Ok(data)) => data,
                Some(Err(_)) | None if end.finish.is_some() => {
                    return Ok(end.outcome().unwrap_or(Outcome::Completed { reason: None }));
                }
                None => {
                    return Err(Failure::agent(format!("the answer of {} broke off before its end", endpoint.shown())));
                }
                Some(Err(Broken::Source(error))) => {
                    let failure = Failure::from_transport(endpoint, &error);
                    let message = format!("the answer of {} broke off: {}", endpoint.shown(), failure.short);
                    return Err(Failure { message, ..failure });
                }
                Some(Err(Broken::TooLong(max))) => {
                    let message =
                        format!("{} sent an event of more than {max} bytes (agent.max_line)", endpoint.shown());
                    return Err(Failure::agent(message));
                }
                Some(Err(Broken::Malformed)) => {
                    return Err(Failure::agent(format!("{} sent no proper event stream", endpoint.shown())));
                }
            };
            let chunk = json::parse::<Value>(&data).unwrap_or(Value::String(data));
            match chunk::read(&chunk) {
                Some(facts) => self.take(facts, &mut end).await?,
                None => self.emit(AgentEvent::Raw(chunk)).await,
            }
        }
    }

    /// Passes on what a chunk says.
    async fn take(&mut self, facts: Vec<Fact>, end: &mut End) -> Result<(), Failure> {
        for fact in facts {
            match fact {
                Fact::Event(event) => self.emit(event).await,
                Fact::Llama => self.agent.is_llama.set(),
                Fact::Refusal => end.refused = true,
                Fact::Finish(reason) => {
                    if matches!(reason.as_str(), "tool_calls" | "function_call") {
                        self.tool_called(end).await;
                    }
                    end.finish = Some(reason);
                }
                Fact::Error(error) => return Err(Failure::from_chunk(&self.agent.endpoint, &error)),
                Fact::ToolCall => self.tool_called(end).await,
            }
        }
        Ok(())
    }

    /// Says once that a call of a tool leads nowhere.
    async fn tool_called(&mut self, end: &mut End) {
        if !std::mem::replace(&mut end.called, true) {
            self.fault("tools_unsupported", "the model called a tool, and this agent has none".into()).await;
        }
    }

    async fn fault(&mut self, code: &str, message: String) {
        self.emit(AgentEvent::Fault { code: code.into(), message }).await;
    }

    /// Waits for room. A session that is gone is noticed by whoever drives this future.
    async fn emit(&mut self, event: AgentEvent) {
        self.shown |= matches!(event, AgentEvent::Delta { .. });
        if self.events.send(event).await.is_err() {
            log::debug!(agent = self.agent.name.as_str(); "nobody listens to the turn any more");
        }
    }
}

/// How the answer ended, as far as it is known.
#[derive(Default)]
struct End {
    finish: Option<String>,
    called: bool,
    refused: bool,
}

impl End {
    /// The outcome, where the server said that the answer is over.
    fn outcome(&self) -> Option<Outcome> {
        let reason = match self.finish.as_deref()? {
            "stop" | "eos" | "end_turn" | "stop_sequence" if self.refused => Some("refusal"),
            "stop" | "eos" | "end_turn" | "stop_sequence" => None,
            "length" => Some("max_tokens"),
            "error" => {
                return Some(Outcome::failed(Code::AgentError.as_str(), "the model server gave up on the answer"));
            }
            "function_call" => Some("tool_calls"),
            other => Some(other),
        };
        Some(Outcome::Completed { reason: reason.map(str::to_owned) })
    }
}
