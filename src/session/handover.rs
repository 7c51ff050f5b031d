//! Handing over to another agent or profile. Decisions on a [`Draft`]; pure.

use serde_json::Value;

use super::{
    command::{Done, HandOver},
    draft::{Draft, changed_of},
    env::Env,
    turns::no_session,
};
use crate::{
    error::{ApiError, Code},
    gateway::merge_feedback,
    protocol::{EventBody, Message, Part, Role},
};

/// Turns whose feedback is kept with a session.
const MAX_FEEDBACK: usize = 200;

impl Draft {
    /// Changes the agent or profile, says so in the transcript, and accepts the text as the next turn.
    pub(super) fn hand_over(&mut self, env: &mut Env<'_>, hand_over: &HandOver) -> Result<Done, ApiError> {
        let state = self.state.as_ref().ok_or_else(no_session)?;
        if state.busy() {
            return Err(ApiError::new(Code::SessionBusy, "a turn runs or waits; continue when it has ended"));
        }
        if state.record.snapshot.archived {
            return Err(ApiError::new(Code::SessionArchived, "the session is archived; PATCH archived to false first"));
        }
        self.check_budget(env, &hand_over.message.user)?;
        let before = state.record.snapshot.clone();
        let agent = hand_over.agent.clone().unwrap_or_else(|| before.agent.clone());
        let profile = hand_over.profile.clone().or_else(|| before.profile.clone());
        let other = agent != before.agent;
        let text = note(&before.agent, before.profile.as_deref(), &agent, profile.as_deref());
        let (named, set) = (agent, profile);
        self.edit_row(env.now, |record| {
            record.snapshot.agent = named;
            record.snapshot.profile = set;
            if other {
                // Model and mode are the old agent's own words.
                record.snapshot.model = None;
                record.snapshot.mode = None;
            }
        });
        let changed = self.state.as_ref().map(|state| {
            let names: &[&str] = if other { &["agent", "profile", "model", "mode"] } else { &["profile"] };
            changed_of(&state.record.snapshot, names)
        });
        self.emit(env.now, None, EventBody::SessionUpdated { changed: changed.unwrap_or_default() });
        let message = Message {
            id: env.message_id(),
            role: Role::System,
            parts: vec![Part::Text { text }],
            turn_id: None,
            agent: None,
            client_id: None,
            created_at: env.now,
        };
        self.add_message(env.now, message);
        self.enqueue(env, &hand_over.message).map(|accepted| Done::Accepted(Box::new(accepted)))
    }

    /// Keeps what somebody thinks of the session or of a turn.
    pub(super) fn feedback(&mut self, env: &Env<'_>, name: &str, value: &Value) -> Result<Done, ApiError> {
        let stored = &self.state.as_ref().ok_or_else(no_session)?.record.feedback;
        let merged = merge_feedback(stored, name, value.clone(), MAX_FEEDBACK);
        let changed = [("feedback".to_owned(), value.clone())].into_iter().collect();
        self.emit(env.now, None, EventBody::SessionUpdated { changed });
        self.edit_row(env.now, |record| record.feedback = merged);
        Ok(Done::Unit)
    }
}

/// What the transcript says about it.
fn note(agent: &str, profile: Option<&str>, next_agent: &str, next_profile: Option<&str>) -> String {
    let name = |agent: &str, profile: Option<&str>| match profile {
        Some(profile) => format!("{agent} ({profile})"),
        None => agent.to_owned(),
    };
    format!("Handed over from {} to {}.", name(agent, profile), name(next_agent, next_profile))
}
