//! Taking a session up again: from the rows, and from the log for the turn that was cut off. Pure.

use std::sync::Arc;

use super::{
    draft::{Draft, Ending},
    env::Env,
    queue::Queue,
    rope::Rope,
    state::{OpenMessage, OpenPart, OpenTool, PendingChoice, Running, State},
    turns::Place,
};
use crate::{
    agents::ToolCall,
    protocol::{AgentStatus, Event, EventBody, Role, ToolStatus, TurnState, Usage},
    store::{ClaimedSession, TurnRecord},
};

/// A session as it was at the last commit. `events` are those of the turn that ran, oldest first.
#[must_use]
pub fn restore(claimed: ClaimedSession, last_seq: u64, oldest_seq: u64, events: &[Event]) -> State {
    let mut state = State::new(claimed.record, last_seq, oldest_seq);
    state.rules = Arc::new(claimed.rules);
    state.native_ids = Arc::new(claimed.native_ids);
    let (offered, turns): (Vec<_>, Vec<_>) = claimed.unfinished.into_iter().partition(|turn| turn.steers.is_some());
    let (waiting, started): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| turn.turn.state == TurnState::Queued);
    state.queue = Queue::restore(waiting);
    if let Some(turn) = started.into_iter().next() {
        let mut running = Running::new(Arc::new(turn));
        running.steers = (0u64..).zip(offered.into_iter().map(Arc::new)).collect();
        running.next_steer = u64::try_from(running.steers.len()).unwrap_or(0);
        running.choices = claimed
            .choices
            .into_iter()
            .map(|(choice, ask_id)| PendingChoice { choice: Arc::new(choice), ask_id })
            .collect();
        events.iter().for_each(|event| replay(&mut running, event));
        state.running = Some(running);
    }
    state
}

/// The turn that was at work, for which [`restore`] needs the events.
#[must_use]
pub fn cut_off(claimed: &ClaimedSession) -> Option<&TurnRecord> {
    claimed.unfinished.iter().find(|turn| turn.steers.is_none() && turn.turn.state != TurnState::Queued)
}

/// Rebuilds the message that was being written.
fn replay(running: &mut Running, event: &Event) {
    if event.turn_id != Some(running.turn.turn.id) {
        return;
    }
    match &event.body {
        EventBody::MessageStarted { message_id, role: Role::Assistant } => {
            running.message = Some(OpenMessage { id: *message_id, created_at: event.at, parts: Vec::new() });
        }
        EventBody::MessageCompleted { message } if message.role == Role::Assistant => {
            running.message = None;
            let text = message.text();
            if !text.is_empty() {
                running.last_text = text.into();
            }
        }
        EventBody::MessageDelta { kind, delta, .. } => {
            let Some(message) = &mut running.message else { return };
            if !matches!(message.parts.last(), Some(OpenPart::Text(last, _)) if last == kind) {
                message.parts.push(OpenPart::Text(*kind, Rope::default()));
            }
            if let Some(OpenPart::Text(_, rope)) = message.parts.last_mut() {
                rope.push(delta);
            }
        }
        EventBody::ToolStarted { call_id, name, title, kind, input, .. } => {
            let Some(message) = &mut running.message else { return };
            let call = ToolCall {
                call_id: call_id.clone(),
                name: name.clone(),
                title: title.clone(),
                kind: kind.clone(),
                input: input.clone(),
            };
            match message.tool_mut(call_id) {
                Some(tool) => tool.call = call,
                None => {
                    let tool = OpenTool { call, output: serde_json::Value::Null, status: ToolStatus::Running };
                    message.parts.push(OpenPart::Tool(Arc::new(tool)));
                }
            }
        }
        EventBody::ToolUpdated { call_id, status, output } => {
            if let Some(tool) = running.message.as_mut().and_then(|message| message.tool_mut(call_id)) {
                tool.status = *status;
                tool.output.clone_from(output);
            }
        }
        EventBody::ToolFinished { call_id, output, is_error } => {
            if let Some(tool) = running.message.as_mut().and_then(|message| message.tool_mut(call_id)) {
                tool.status = if *is_error { ToolStatus::Failed } else { ToolStatus::Completed };
                tool.output.clone_from(output);
            }
        }
        _ => {}
    }
}

impl Draft {
    /// Settles what a crash cut off, then lets the queue go on. A turn whose agent had not got the prompt yet
    /// waits again; one that ran is `interrupted`, since nobody can know how far it came.
    pub fn recover(&mut self, env: &mut Env<'_>, reason: &str) {
        let Some(state) = &mut self.state else { return };
        match state.running.take() {
            Some(mut running) if running.turn.turn.state == TurnState::Starting => {
                let mut turn = Arc::unwrap_or_clone(running.turn);
                turn.turn.state = TurnState::Queued;
                // First in line again, before the texts that were offered to it: their places count from it.
                let offered = std::mem::take(&mut running.steers);
                let turn = state.queue.push_front(turn);
                self.put_turn(&turn, false);
                self.touch_row(env.now, |_| {});
                for (_, text) in offered {
                    if self.admit(env, (*text).clone(), Place::InOrder, false).is_err() {
                        return;
                    }
                }
            }
            Some(running) => {
                let again = running.turn.turn.attempt <= env.settings.retry_interrupted;
                let retry = again.then(|| retry_of(env, &running.turn));
                state.running = Some(running);
                if let Some(retry) = retry
                    && self.admit(env, retry, Place::First, true).is_err()
                {
                    return;
                }
                self.finish(env, &Ending::because(TurnState::Interrupted, reason));
            }
            None => {
                if state.record.snapshot.agent_status == AgentStatus::Working {
                    self.touch_row(env.now, |record| record.snapshot.agent_status = AgentStatus::Idle);
                }
            }
        }
        self.pump(env);
    }
}

/// The same message as a new turn.
pub(super) fn retry_of(env: &mut Env<'_>, turn: &TurnRecord) -> TurnRecord {
    let mut retry = turn.clone();
    retry.turn.id = env.turn_id();
    retry.turn.state = TurnState::Queued;
    retry.turn.attempt += 1;
    retry.turn.continued_from = Some(turn.turn.id);
    retry.turn.created_at = env.now;
    retry.turn.started_at = None;
    retry.turn.usage = Usage::default();
    retry
}
