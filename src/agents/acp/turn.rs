//! A turn: from the settings that its prompt asks for, over permissions and cancelling, to its outcome.

use serde_json::{Value, json};

use super::{
    content,
    driver::{CallError, Driver},
    permission::Answered,
    profile::Profile,
    settings::Setting,
};
use crate::agents::{
    AgentEvent, Answer, Outcome, Prompt,
    program::{Program, RpcError, Stop},
};

/// The running turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The id of its `session/prompt`, whose answer is its end.
    pub(super) request: u64,
    /// True once it was asked to stop.
    pub(super) cancelling: bool,
    /// True once a permission was refused.
    rejected: bool,
    /// The conversation so far that went with it.
    replay: Option<String>,
}

/// The mode that is asked for.
struct Wanted {
    /// Its id; none leaves the agent as it is.
    id: Option<String>,
    /// What is not on offer, for a person.
    missing: Option<String>,
}

/// The settings that were asked for last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    model: Option<String>,
    /// The mode and the permission mode; none before the first were applied.
    mode: Option<(Option<String>, String)>,
}

impl Driver {
    /// Brings the settings into force that are asked for, else configured. What was asked for before and is asked for
    /// again is left alone: the agent may have gone on to another mode since, as after a plan was accepted.
    ///
    /// A mode that is asked for by its id goes before a permission mode.
    pub(super) async fn apply(
        &mut self,
        model: Option<String>,
        mode: Option<String>,
        permission_mode: &str,
    ) -> Result<(), CallError> {
        let config = &self.program.config;
        let (model, mode) = (model.or_else(|| config.model.clone()), mode.or_else(|| config.mode.clone()));
        if model != self.applied.model {
            self.apply_model(model.as_deref()).await?;
            self.applied.model = model;
        }
        let mode = (mode, permission_mode.to_owned());
        if self.applied.mode.as_ref() != Some(&mode) {
            self.apply_mode(mode.0.as_deref(), permission_mode).await?;
            self.applied.mode = Some(mode);
        }
        Ok(())
    }

    async fn apply_model(&mut self, model: Option<&str>) -> Result<(), CallError> {
        let unfit = |message| CallError::Unfit("model_not_found", message);
        let Some(setting) = &self.conversation.settings.model else {
            let message = |id| format!("model `{id}` was asked for, and the agent offers no choice of models");
            return model.map_or(Ok(()), |id| Err(unfit(message(id))));
        };
        let Some(id) = model.or(setting.initial()).map(str::to_owned) else { return Ok(()) };
        let Some((method, params)) = setting.change("model", &id, &self.session_id).map_err(unfit)? else {
            return Ok(());
        };
        let result = self.call(method, &params, self.program.call_timeout()).await?;
        let settings = &mut self.conversation.settings;
        if let Some(setting) = &mut settings.model {
            setting.current = Some(id);
        }
        if let Some(options) = result.get("configOptions") {
            settings.take_options(options);
        }
        Ok(())
    }

    async fn apply_mode(&mut self, mode: Option<&str>, permission_mode: &str) -> Result<(), CallError> {
        let wanted = self.wanted_mode(mode, permission_mode)?;
        if let Some(message) = wanted.missing {
            let fault = AgentEvent::Fault { code: "invalid_permission_mode".into(), message };
            self.emit(fault).await.map_err(CallError::Stop)?;
        }
        let Some((setting, id)) = self.conversation.settings.mode.as_ref().zip(wanted.id) else { return Ok(()) };
        let unfit = |message| CallError::Unfit("model_not_found", message);
        if let Some((method, params)) = setting.change("mode", &id, &self.session_id).map_err(unfit)? {
            let result = self.call(method, &params, self.program.call_timeout()).await?;
            self.mode_is(id, &result);
            self.emit_mode().await.map_err(CallError::Stop)?;
        }
        Ok(())
    }

    /// Which mode is asked for. Where the agent has none for a permission mode that allows more than its default, it
    /// stays in its default and says so; `plan` allows less, so there the turn must not run.
    fn wanted_mode(&self, mode: Option<&str>, permission_mode: &str) -> Result<Wanted, CallError> {
        let setting = self.conversation.settings.mode.as_ref();
        if let Some(id) = mode {
            return match setting {
                Some(_) => Ok(Wanted { id: Some(id.to_owned()), missing: None }),
                None => {
                    let message = format!("mode `{id}` was asked for, and the agent offers no modes");
                    Err(CallError::Unfit("model_not_found", message))
                }
            };
        }
        let invalid = |message| Err(CallError::Unfit("invalid_permission_mode", message));
        if permission_mode == "bypass" && !self.program.config.allow_bypass {
            return invalid(format!("permission mode `bypass` needs agents.{}.allow_bypass", self.program.name));
        }
        let id = setting.and_then(|setting| setting.for_permission_mode(permission_mode)).map(str::to_owned);
        if id.is_some() || permission_mode == "default" {
            return Ok(Wanted { id, missing: None });
        }
        let offers = setting.map_or_else(|| "no modes".to_owned(), Setting::list);
        let message = format!("the agent has no mode for permission mode `{permission_mode}`; it offers {offers}");
        if permission_mode == "plan" {
            return invalid(message);
        }
        let default = setting.and_then(Setting::initial).map(str::to_owned);
        Ok(Wanted { id: default, missing: Some(format!("{message}; it stays in its default")) })
    }

    /// Begins a turn.
    pub(super) async fn prompt(&mut self, prompt: Prompt) -> Result<(), Stop> {
        let model = prompt.model.clone().or_else(|| self.spec.model.clone());
        let mode = prompt.mode.clone().or_else(|| self.spec.mode.clone());
        let failed = match self.apply(model, mode, &prompt.permission_mode).await {
            Ok(()) => None,
            Err(CallError::Stop(stop)) => {
                // The prompt was taken, so its end is owed.
                self.turn = Some(Turn::default());
                return Err(stop);
            }
            Err(CallError::Unfit(code, message)) => Some((code, message)),
            Err(CallError::Refused(error)) => Some(("agent_error", error.text())),
            Err(CallError::Timeout) => Some(("agent_timeout", "it did not answer a change of its settings".to_owned())),
        };
        if let Some((code, message)) = failed {
            self.turn = Some(Turn::default());
            let message = format!("agent `{}`: {message}", self.program.name);
            self.emit(AgentEvent::Ended(Outcome::failed(code, message))).await?;
            self.turn = None;
            return Ok(());
        }
        let replay = self.replay.take();
        let (blocks, faults) = content::blocks(&prompt.text, &prompt.attachments, replay.as_deref(), self.accepts);
        self.conversation.meter.begin();
        self.conversation.tools.clear();
        let params = json!({"sessionId": self.session_id, "prompt": blocks});
        let request = self.connection.request("session/prompt", &params);
        self.turn = Some(Turn { request, cancelling: false, rejected: false, replay });
        self.emit_all(faults).await
    }

    /// Passes an answer on. One that comes too late is dropped: the question is settled.
    pub(super) async fn answer(&mut self, ask_id: &str, answer: &Answer) -> Result<(), Stop> {
        let Some(Answered { request, reply, allows, call_id }) = self.pending.answer(ask_id, answer) else {
            log::debug!(ask_id; "answer to a question that nobody asks any more");
            return Ok(());
        };
        if let (Some(turn), false) = (&mut self.turn, allows) {
            turn.rejected = true;
            call_id.iter().for_each(|call_id| self.conversation.tools.reject(call_id));
        }
        self.connection.reply(&request, &reply);
        Ok(())
    }

    /// Asks the agent to stop: takes its questions back, as the protocol demands, then says so. The turn ends with the
    /// agent's answer to its prompt.
    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if turn.cancelling {
            return Ok(());
        }
        turn.cancelling = true;
        self.withdraw().await?;
        self.connection.notify("session/cancel", &json!({"sessionId": self.session_id}));
        Ok(())
    }

    /// Takes back all questions.
    async fn withdraw(&mut self) -> Result<(), Stop> {
        for (ask_id, id, reply) in self.pending.take_all() {
            self.connection.reply(&id, &reply);
            self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        Ok(())
    }

    /// The agent goes on: what was rejected is over.
    pub(super) async fn end_rejected(&mut self) -> Result<(), Stop> {
        if !self.turn.as_ref().is_some_and(|turn| turn.rejected) {
            return Ok(());
        }
        let ended = self.conversation.tools.end_rejected();
        self.emit_all(ended).await
    }

    /// The agent has answered the prompt.
    pub(super) async fn end_turn(&mut self, result: Result<Value, RpcError>) -> Result<(), Stop> {
        // While `turn` is set the end is owed; it is taken only right before the end is sent.
        self.withdraw().await?;
        self.end_rejected().await?;
        let usage = self.conversation.meter.finish(result.as_ref().unwrap_or(&Value::Null));
        if let Some(usage) = usage {
            self.emit(AgentEvent::Usage(usage)).await?;
        }
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if result.is_err() {
            // Nobody knows whether it was taken in; twice is better than never.
            self.replay = turn.replay.take();
        }
        let outcome = outcome(&self.program, self.profile, turn, result);
        self.emit(AgentEvent::Ended(outcome)).await?;
        self.turn = None;
        Ok(())
    }
}

/// The protocol's code for "log in first".
const AUTH_REQUIRED: i64 = -32000;

/// True when the agent, or its model's provider, refused the credentials.
pub(super) fn is_about_credentials(error: &RpcError) -> bool {
    error.code == AUTH_REQUIRED || error.is_about_credentials()
}

fn outcome(program: &Program, profile: Profile, turn: &Turn, result: Result<Value, RpcError>) -> Outcome {
    let agent = &program.name;
    let result = match result {
        Ok(result) => result,
        // Some agents answer a cancelled prompt with an error.
        Err(_) if turn.cancelling => return Outcome::Cancelled,
        Err(error) if is_about_credentials(&error) => {
            let login = program.login_hint();
            let message = format!("agent `{agent}`: the credentials were refused: {login} ({})", error.text());
            return Outcome::failed("agent_error", message);
        }
        Err(error) => return Outcome::failed("agent_error", format!("agent `{agent}`: {}", error.text())),
    };
    match result.get("stopReason").and_then(Value::as_str) {
        Some("cancelled") if turn.cancelling => Outcome::Cancelled,
        // codex-acp ends its turn like this over a refusal, though nobody asked it to stop.
        Some("cancelled") if turn.rejected => Outcome::Completed { reason: Some("rejected".into()) },
        Some("cancelled") => Outcome::Cancelled,
        Some("end_turn") if turn.cancelling && profile.cancelled_as_end => Outcome::Cancelled,
        Some("end_turn") | None => Outcome::Completed { reason: None },
        Some(reason) => Outcome::Completed { reason: Some(reason.to_owned()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AgentConfig, AgentLimits};

    fn program() -> Program {
        Program { name: "a".into(), config: AgentConfig::default(), limits: AgentLimits::default() }
    }

    fn ended(cancelling: bool, rejected: bool, reason: &str) -> Outcome {
        let turn = Turn { request: 1, cancelling, rejected, replay: None };
        outcome(&program(), Profile::default(), &turn, Ok(json!({"stopReason": reason})))
    }

    #[test]
    fn a_cancelled_turn_is_told_from_a_refused_one() {
        let completed = |reason: Option<&str>| Outcome::Completed { reason: reason.map(str::to_owned) };
        assert_eq!(ended(true, true, "cancelled"), Outcome::Cancelled);
        assert_eq!(ended(false, true, "cancelled"), completed(Some("rejected")));
        assert_eq!(ended(false, false, "cancelled"), Outcome::Cancelled);
        assert_eq!(ended(true, false, "end_turn"), completed(None));
        assert_eq!(ended(false, true, "max_tokens"), completed(Some("max_tokens")));
    }

    #[test]
    fn errors_keep_the_agents_words() {
        let fail = |cancelling, code, message: &str| {
            let turn = Turn { request: 1, cancelling, rejected: false, replay: None };
            outcome(
                &program(),
                Profile::default(),
                &turn,
                Err(RpcError { code, message: message.into(), data: Value::Null }),
            )
        };
        assert_eq!(fail(true, -32603, "aborted"), Outcome::Cancelled);
        assert_eq!(fail(false, -32603, "boom"), Outcome::failed("agent_error", "agent `a`: boom"));
        let Outcome::Failed(error) = fail(false, 401, "nope") else { panic!("must fail") };
        assert!(error.message.contains("credentials"), "{}", error.message);
    }
}
