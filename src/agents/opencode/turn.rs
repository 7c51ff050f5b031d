//! A turn: from the settings that its prompt asks for, over added texts, answers and cancelling, to its outcome.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use super::{
    api::{Api, ApiError, CALL_LIMIT},
    asks::Reply,
    content,
    driver::{Driver, Posted},
    failure::Failure,
};
use crate::{
    agents::{AgentEvent, Answer, Outcome, Prompt, program::Stop},
    protocol::session::AgentStatus,
};

/// How often a turn is looked at, should an event that matters not have come.
pub(super) const CHECK: Duration = Duration::from_secs(15);
/// The same while it is likely that something is amiss.
const CHECK_SOON: Duration = Duration::from_millis(300);
/// The newest messages that are fetched after a loss.
const FETCHED: &str = "100";
/// Looks in a row that find nothing to do end a turn that no event has ended.
const QUIET_LOOKS: u32 = 2;

/// How long it may take to remove a text that the turn did not take.
const REMOVAL: Duration = Duration::from_secs(3);
/// The pause between two attempts.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);

/// The running turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) permission_mode: String,
    model: Value,
    mode: Option<String>,
    /// True once it was asked to stop.
    pub(super) cancelling: bool,
    /// True once a permission was refused.
    pub(super) rejected: bool,
    /// The prompt is on its way: the server may not know of the turn yet.
    posting: bool,
    /// Calls on their way that add a text.
    steering: u32,
    /// True while the model's provider is tried again.
    retrying: bool,
    /// When the state is looked at next.
    pub(super) check_at: Instant,
    /// Looks in a row that found the session idle.
    quiet: u32,
    /// The conversation so far that went with it.
    replay: Option<String>,
}

impl Turn {
    fn new(permission_mode: String) -> Self {
        Self {
            permission_mode,
            model: Value::Null,
            mode: None,
            cancelling: false,
            rejected: false,
            posting: false,
            steering: 0,
            retrying: false,
            check_at: Instant::now() + CHECK,
            quiet: 0,
            replay: None,
        }
    }

    pub(super) fn check_soon(&mut self) {
        self.check_at = self.check_at.min(Instant::now() + CHECK_SOON);
    }

    /// Tells of retries; the error is why there are to be no more of them.
    pub(super) fn status(&mut self, status: &Value, max_retries: u32) -> Result<Vec<AgentEvent>, String> {
        let working = |reason| vec![AgentEvent::Status { status: AgentStatus::Working, reason }];
        let retry = status.get("type").and_then(Value::as_str) == Some("retry");
        if !retry {
            // It is busy between two attempts, too; that is no news.
            return Ok(Vec::new());
        }
        let attempt = status.get("attempt").and_then(Value::as_u64).unwrap_or(1);
        let message = status.get("message").and_then(Value::as_str).unwrap_or("the model's provider failed");
        if attempt > u64::from(max_retries) {
            return Err(format!("{message} (after {max_retries} retries)"));
        }
        self.retrying = true;
        Ok(working(Some(format!("retry {attempt}: {message}"))))
    }
}

impl Driver {
    /// Begins a turn.
    pub(super) async fn prompt(&mut self, prompt: Prompt) -> Result<(), Stop> {
        let mut turn = Turn::new(prompt.permission_mode.clone());
        let (model, mode) = match self.wanted(&prompt) {
            Ok(wanted) => wanted,
            Err((code, message)) => {
                let message = format!("agent `{}`: {message}", self.program.name);
                self.turn = Some(turn);
                self.emit(AgentEvent::Ended(Outcome::failed(code, message))).await?;
                self.turn = None;
                return Ok(());
            }
        };
        let context = self.settings.context_of(&model);
        (turn.model, turn.mode, turn.posting) = (model.to_value(), mode.clone(), true);
        let message = self.idents.message();
        self.talk.begin(&message, context);
        // What waits is of the turn before, whose end it must not make this one's.
        self.lease.inbox.clear();
        let mut body = body(&message, mode.as_deref());
        let command = content::slash_command(&prompt.text, &self.settings.commands);
        let (path, limit, faults) = match command {
            Some((name, arguments)) => {
                let (files, arguments, faults) = content::command(arguments, &prompt.attachments);
                body.extend([
                    ("command".to_owned(), Value::from(name)),
                    ("arguments".to_owned(), arguments.into()),
                    ("model".to_owned(), model.id().into()),
                    ("parts".to_owned(), files.into()),
                ]);
                // Its answer comes when the turn is over.
                ("command", None, faults)
            }
            None => {
                turn.replay = self.replay.take();
                let (parts, faults) = content::parts(&prompt.text, &prompt.attachments, turn.replay.as_deref());
                body.extend([("model".to_owned(), turn.model.clone()), ("parts".to_owned(), parts.into())]);
                ("prompt_async", Some(CALL_LIMIT), faults)
            }
        };
        let body = Value::Object(body);
        self.turn = Some(turn);
        let (api, folder, path) =
            (self.api.clone(), self.folder.clone(), format!("/session/{}/{path}", self.session_id));
        self.posts.push(Box::pin(async move { Posted::Prompt(api.post(&path, &folder, &body, limit).await) }));
        if self.mode != mode {
            self.mode.clone_from(&mode);
            self.emit(self.settings.mode_event(mode.as_deref())).await?;
        }
        self.emit_all(faults).await
    }

    /// The model and the mode that a prompt asks for.
    fn wanted(&self, prompt: &Prompt) -> Result<(super::settings::Model, Option<String>), (&'static str, String)> {
        let config = &self.program.config;
        if prompt.permission_mode == "bypass" && !config.allow_bypass {
            let message = format!("permission mode `bypass` needs agents.{}.allow_bypass", self.program.name);
            return Err(("invalid_permission_mode", message));
        }
        let mode = prompt.mode.as_deref().or(self.spec.mode.as_deref());
        let mode = self.settings.mode_for(mode, config.mode.as_deref(), &prompt.permission_mode)?;
        let model = prompt.model.as_deref().or(self.spec.model.as_deref());
        Ok((self.settings.model_for(model, mode.as_deref())?, mode))
    }

    /// Adds a text to the running turn: the server takes it with its next call of the model.
    pub(super) fn steer(&mut self, id: u64, text: &str) {
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.cancelling) else {
            // The session makes a turn of its own out of it.
            log::debug!(id; "a text came too late to be added to a turn");
            return;
        };
        turn.steering += 1;
        let message = self.idents.message();
        let mut body = body(&message, turn.mode.as_deref());
        let parts = json!([{"type": "text", "text": text}]);
        body.extend([("model".to_owned(), turn.model.clone()), ("parts".to_owned(), parts)]);
        let body = Value::Object(body);
        self.talk.ask_more(&message, id);
        let (api, folder, path) =
            (self.api.clone(), self.folder.clone(), format!("/session/{}/prompt_async", self.session_id));
        self.posts.push(Box::pin(async move {
            let result = api.post(&path, &folder, &body, Some(CALL_LIMIT)).await;
            Posted::Steer { message, result }
        }));
    }

    /// Passes an answer on. One that comes too late is dropped: the question is settled.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) {
        let Some(reply) = self.asks.answer(ask_id, answer) else {
            log::debug!(ask_id; "answer to a question that nobody asks any more");
            return;
        };
        if let (Some(turn), false) = (&mut self.turn, reply.allows) {
            turn.rejected = true;
        }
        self.reply(ask_id.to_owned(), reply.path, reply.body);
    }

    /// Asks the agent to stop. The turn ends when the session is idle.
    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if turn.cancelling {
            return Ok(());
        }
        turn.cancelling = true;
        self.abort();
        self.withdraw().await
    }

    /// Stops the session's work; the questions that it leaves behind are refused, else the server would keep them.
    pub(super) fn abort(&mut self) {
        let (api, folder, path) =
            (self.api.clone(), self.folder.clone(), format!("/session/{}/abort", self.session_id));
        let refused = self.asks.refusals();
        if let Some(turn) = &mut self.turn {
            turn.check_soon();
        }
        self.posts.push(Box::pin(async move {
            let aborted = api.post(&path, &folder, &json!({}), Some(CALL_LIMIT)).await;
            for reply in refused {
                refuse(&api, &folder, &reply).await;
            }
            Posted::Abort(aborted)
        }));
    }

    /// Tells that nobody waits for an answer any more.
    async fn withdraw(&mut self) -> Result<(), Stop> {
        for ask_id in self.asks.ids() {
            self.asks.settled(&ask_id);
            self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        Ok(())
    }

    /// A call of ours has its answer.
    pub(super) async fn posted(&mut self, posted: Posted) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        match posted {
            Posted::Prompt(result) => {
                turn.posting = false;
                if let Err(error) = result {
                    self.talk.failed(Failure::Said { text: error.message, credentials: false });
                }
                if turn.cancelling {
                    // The first attempt may have come before the turn.
                    self.abort();
                } else {
                    turn.check_soon();
                }
            }
            Posted::Steer { message, result } => {
                turn.steering -= 1;
                match result {
                    // It is stored; the model has it when an answer to it begins.
                    Ok(_) => turn.check_soon(),
                    Err(error) => {
                        log::warn!(session = self.spec.session.as_str(); "a text could not be added: {}", error.message);
                        self.talk.take_back(&message);
                    }
                }
            }
            Posted::Reply { ask_id, result } => {
                if let Err(error) = result {
                    log::warn!(ask_id = ask_id.as_str(); "an answer did not arrive: {}", error.message);
                    turn.check_soon();
                }
            }
            Posted::Abort(result) => {
                if let Err(error) = result {
                    log::warn!(session = self.spec.session.as_str(); "the turn could not be stopped: {}", error.message);
                }
                turn.check_soon();
            }
        }
        self.end_if_over().await
    }

    /// Events may be missing: fetches what they would have told.
    pub(super) async fn lost(&mut self) -> Result<(), Stop> {
        if self.turn.is_none() {
            return Ok(());
        }
        self.talk.lost();
        self.fetch().await?;
        self.end_if_over().await
    }

    /// Looks at the session, in case that the event that ends the turn does not come.
    pub(super) async fn check(&mut self) -> Result<(), Stop> {
        self.check_later();
        let status = self.status();
        let Ok(status) = self.wait(status).await? else { return Ok(()) };
        let idle = status.get("type").and_then(Value::as_str) == Some("idle");
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if !idle {
            turn.quiet = 0;
            if turn.cancelling {
                self.abort();
            }
            return Ok(());
        }
        if turn.posting || turn.steering > 0 {
            return Ok(());
        }
        turn.quiet += 1;
        let quiet = turn.quiet >= QUIET_LOOKS;
        turn.check_soon();
        self.fetch().await?;
        if quiet {
            return self.end_turn().await;
        }
        self.end_if_over().await
    }

    /// Fetches status, newest messages and open questions.
    async fn fetch(&mut self) -> Result<(), Stop> {
        let status = self.status();
        let (api, folder, session) = (self.api.clone(), self.folder.clone(), self.session_id.clone());
        let all = async move {
            // The status first: what it calls idle is in the messages then.
            let status = status.await?;
            let messages = api.get_with(&format!("/session/{session}/message"), &[("limit", FETCHED)], &folder).await?;
            let permissions = api.get("/permission", Some(&folder), CALL_LIMIT).await?;
            let questions = api.get("/question", Some(&folder), CALL_LIMIT).await?;
            let children = api.get(&format!("/session/{session}/children"), Some(&folder), CALL_LIMIT).await?;
            Ok::<_, ApiError>((status, messages, permissions, questions, children))
        };
        let (status, messages, permissions, questions, children) = match self.wait(all).await? {
            Ok(all) => all,
            Err(error) => {
                log::warn!(session = self.spec.session.as_str(); "the state of the turn cannot be fetched: {}", error.message);
                return Ok(());
            }
        };
        let list = |value: Value| if let Value::Array(list) = value { list } else { Vec::new() };
        let idle = status.get("type").and_then(Value::as_str) == Some("idle");
        for message in list(messages) {
            let events = self.talk.message(message.get("info").unwrap_or(&Value::Null), false);
            self.emit_all(events).await?;
            for part in message.get("parts").and_then(Value::as_array).into_iter().flatten() {
                let events = self.talk.part(part, false);
                self.emit_all(events).await?;
            }
        }
        self.talk.wants_state = false;
        self.talk.set_idle(idle);
        let of = |asked: &Value| asked.get("sessionID").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut ours = vec![self.session_id.clone()];
        for child in list(children) {
            if let Some(id) = child.get("id").and_then(Value::as_str) {
                self.lease.listen(id);
                ours.push(id.to_owned());
            }
        }
        let (permissions, questions) = (list(permissions), list(questions));
        let open: Vec<&str> =
            permissions.iter().chain(&questions).filter_map(|asked| asked.get("id")?.as_str()).collect();
        let settled: Vec<String> = self.asks.ids().into_iter().filter(|id| !open.contains(&id.as_str())).collect();
        for ask_id in settled {
            self.asks.settled(&ask_id);
            self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        for asked in permissions.iter().filter(|asked| ours.contains(&of(asked))) {
            self.permission(asked).await?;
        }
        for asked in questions.iter().filter(|asked| ours.contains(&of(asked))) {
            self.question(asked).await?;
        }
        Ok(())
    }

    /// Ends the turn when nothing more comes.
    pub(super) async fn end_if_over(&mut self) -> Result<(), Stop> {
        let settled = self.turn.as_ref().is_some_and(|turn| turn.steering == 0);
        if settled && self.talk.is_over() { self.end_turn().await } else { Ok(()) }
    }

    /// Takes texts that no answer took out of the conversation: the session makes turns of their own out of them, and the
    /// model would get them twice.
    pub(super) fn remove_untaken(&self) -> impl Future<Output = ()> + use<> {
        let (api, folder, session) = (self.api.clone(), self.folder.clone(), self.session_id.clone());
        let untaken = self.talk.untaken();
        async move {
            for message in untaken {
                if timeout(REMOVAL, remove(&api, &folder, &session, &message)).await.is_err() {
                    log::warn!(session = session.as_str(); "a text that came too late stays in the conversation");
                }
            }
        }
    }

    async fn end_turn(&mut self) -> Result<(), Stop> {
        // While `turn` is set the end is owed; it is taken only right before the end is sent.
        let rest = self.talk.rest();
        self.emit_all(rest).await?;
        self.withdraw().await?;
        let removed = self.remove_untaken();
        self.wait(removed).await?;
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let outcome = self.talk.outcome(&self.program.name, turn.rejected);
        let outcome = if turn.cancelling { Outcome::Cancelled } else { outcome };
        if matches!(outcome, Outcome::Failed(_)) {
            // Nobody knows whether it was taken in; twice is better than never.
            self.replay = turn.replay.take();
        }
        if turn.retrying {
            self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: None }).await?;
        }
        self.emit(AgentEvent::Ended(outcome)).await?;
        self.turn = None;
        self.posts.clear();
        Ok(())
    }
}

/// What all prompts carry.
fn body(message: &str, mode: Option<&str>) -> Map<String, Value> {
    let mode = mode.map(|mode| ("agent".to_owned(), mode.into()));
    std::iter::once(("messageID".to_owned(), message.into())).chain(mode).collect()
}

/// Removes a message once it is there and nothing runs: a text that came after the stop is stored later than it is accepted,
/// and begins work of its own.
async fn remove(api: &Api, folder: &str, session: &str, message: &str) {
    let path = format!("/session/{session}/message/{message}");
    loop {
        let stored = api.get(&path, Some(folder), CALL_LIMIT).await.is_ok();
        if stored && api.delete(&path, folder).await.is_ok() {
            return;
        }
        if stored && let Err(error) = api.post(&format!("/session/{session}/abort"), folder, &json!({}), None).await {
            log::debug!("the work that a text began cannot be stopped: {}", error.message);
        }
        sleep(REMOVAL_LOOK).await;
    }
}

/// Takes a question back.
pub(super) async fn refuse(api: &Api, folder: &str, reply: &Reply) {
    if let Err(error) = api.post(&reply.path, folder, &reply.body, Some(CALL_LIMIT)).await {
        log::debug!("a question could not be taken back: {}", error.message);
    }
}
