//! Texts for the running turn. Decisions on a [`Draft`]; pure.
//!
//! An agent that can be steered gets the text at once and says when it has taken it. One that cannot, and that keeps its
//! conversation, is stopped at the next tool boundary (no call runs, nothing is asked) and goes on with the text in the
//! same turn. What nobody took when the turn ends becomes a turn of its own.

use std::sync::Arc;

use super::{
    command::Enqueue,
    draft::{Draft, Effect, user_message},
    env::Env,
    state::{OpenMessage, Running, State},
    turns::no_session,
};
use crate::{
    agents::Prompt,
    error::ApiError,
    gateway::Accepted,
    ids::TurnId,
    protocol::{EventBody, ResolvedBy, TurnState},
    store::TurnRecord,
};

/// How a text gets to the agent that runs a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The agent takes it while it works.
    Native,
    /// The agent is stopped at a tool boundary and goes on with it.
    Boundary,
}

impl Draft {
    /// Whether a message can be offered to the running turn.
    pub(super) fn can_steer(&self, env: &Env<'_>, message: &Enqueue) -> bool {
        let running = self.state.as_ref().and_then(|state| state.running.as_ref());
        let way =
            running.filter(|running| running.stop.is_none() && !running.held).and_then(|running| way(env, running));
        match way {
            // Files cannot be given to an agent that is at work.
            Some(Way::Native) => message.attachments.is_empty(),
            Some(Way::Boundary) => true,
            None => false,
        }
    }

    /// Offers a text to the running turn. It is stored before the agent hears of it, so a crash cannot lose it.
    pub(super) fn offer(
        &mut self,
        env: &mut Env<'_>,
        message: &Enqueue,
        mut record: TurnRecord,
    ) -> Result<Accepted, ApiError> {
        let seq = self.last_seq() + 1;
        let Some(running) = self.running() else { return Err(no_session()) };
        let turn = running.view();
        record.steers = Some(turn.id);
        let record = Arc::new(record);
        let number = running.next_steer;
        running.next_steer += 1;
        running.steers.push((number, Arc::clone(&record)));
        let started = running.turn.turn.state == TurnState::Running;
        let native = way(env, running) == Some(Way::Native);
        self.put_turn(&record, true);
        if let Some(once) = &message.once {
            self.remember(env.now, once, format!(r#"{{"steered":"{}"}}"#, turn.id));
        }
        if started && native {
            self.effects.push(Effect::Steer(number, message.text.clone()));
        }
        Ok(Accepted { turn, position: 0, steered: true, seq })
    }

    /// Gives the agent what was offered while it was starting.
    pub(super) fn offer_again(&mut self, env: &Env<'_>) {
        let Some(running) = self.running().filter(|running| way(env, running) == Some(Way::Native)) else { return };
        let texts = running.steers.iter().map(|(number, text)| Effect::Steer(*number, text.turn.text.clone()));
        let texts: Vec<Effect> = texts.collect();
        self.effects.extend(texts);
    }

    /// A tool call is over. Where a text waits that the agent does not take while it works, it is stopped here.
    pub(super) fn at_tool_boundary(&mut self, env: &Env<'_>) {
        let Some(running) = self.running() else { return };
        let busy = running.stop.is_some()
            || running.redirecting
            || !running.choices.is_empty()
            || running.message.as_ref().is_some_and(|message| message.open_tools().next().is_some());
        if busy || running.steers.is_empty() || way(env, running) != Some(Way::Boundary) {
            return;
        }
        running.redirecting = true;
        self.effects.push(Effect::CancelAgent);
    }

    /// The agent has stopped for the texts that wait: it goes on with them, in the same turn.
    pub(super) fn go_on(&mut self, env: &mut Env<'_>) {
        self.settle_tools(env, "stopped for a new message");
        self.settle_choices(env, ResolvedBy::TurnEnded);
        self.close_message(env);
        let Some(running) = self.running() else { return };
        let turn = running.turn.turn.id;
        let texts = std::mem::take(&mut running.steers);
        running.redirecting = false;
        running.spent = running.usage;
        for (_, text) in &texts {
            self.took(env, turn, text);
        }
        let Some(mut prompt) = self.state.as_ref().and_then(prompt) else { return };
        let words: Vec<&str> = texts.iter().map(|(_, text)| text.turn.text.as_str()).collect();
        prompt.text = words.join("\n\n");
        prompt.attachments = Arc::new(texts.iter().flat_map(|(_, text)| text.attachments.iter().cloned()).collect());
        self.effects.push(Effect::GoOn(Box::new(prompt)));
    }

    /// The agent took a text while it works: what it says from here on is a new message.
    pub(super) fn steered(&mut self, env: &mut Env<'_>, turn: TurnId, number: u64) {
        let Some(running) = self.running() else { return };
        let Some(at) = running.steers.iter().position(|(known, _)| *known == number) else { return };
        let (_, text) = running.steers.remove(at);
        // A call that still runs belongs to what comes after: there it will get its result.
        let open = running.message.as_mut().map(OpenMessage::take_open_tools).unwrap_or_default();
        self.close_message(env);
        self.took(env, turn, &text);
        for tool in open {
            self.tool_started(env, turn, tool.call.clone());
            if let Some(again) = self.open_tool(&tool.call.call_id) {
                again.clone_from(&tool);
            }
        }
    }

    /// A text is a user message in the middle of the turn from now on, and no turn of its own any more.
    fn took(&mut self, env: &mut Env<'_>, turn: TurnId, text: &TurnRecord) {
        self.remove_turn(text.turn.id);
        let body = EventBody::TurnSteered { text: text.turn.text.clone(), source: text.turn.source.clone() };
        self.emit(env.now, Some(turn), body);
        let message = user_message(env.message_id(), text, turn, env.now);
        self.add_message(env.now, message);
    }
}

fn way(env: &Env<'_>, running: &Running) -> Option<Way> {
    let agent = (env.agents)(&running.turn.turn.agent)?;
    match (agent.steer, agent.stateless || agent.per_turn) {
        (true, _) => Some(Way::Native),
        (false, false) => Some(Way::Boundary),
        (false, true) => None,
    }
}

/// What the agent is asked to do for the running turn.
pub(super) fn prompt(state: &State) -> Option<Prompt> {
    let session = &state.record.snapshot;
    let turn = &state.running.as_ref()?.turn;
    Some(Prompt {
        text: turn.turn.text.clone(),
        attachments: Arc::clone(&turn.attachments),
        model: turn.turn.model.clone(),
        // The session's mode belongs to the session's agent.
        mode: turn.mode.clone().or_else(|| session.mode.clone().filter(|_| turn.turn.agent == session.agent)),
        permission_mode: turn.permission_mode.clone().unwrap_or_else(|| session.permission_mode.clone()),
    })
}
