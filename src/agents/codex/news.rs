//! What the agent tells, sorted by method: news of the running turn become events, the rest is noted or passed on raw.

use std::time::Instant;

use serde_json::{Value, json};

use super::{driver::Driver, failure, settings::InForce, text::Source};
use crate::{
    agents::{AgentEvent, program::Stop},
    protocol::session::AgentStatus,
};

/// Different warnings that are told in the life of a process.
const MAX_WARNINGS: usize = 32;

impl Driver {
    pub(super) async fn notification(&mut self, method: &str, params: Value) -> Result<(), Stop> {
        let text = |field: &str| params.get(field).and_then(Value::as_str);
        // Agents that codex starts itself have threads of their own; so has the one that was given up.
        let ours = text("threadId").is_none_or(|thread| thread == self.thread);
        if !ours {
            return self.raw(method, params).await;
        }
        match method {
            "turn/started" => {
                self.turn_began(turn_id(&params));
                Ok(())
            }
            "turn/completed" => {
                let id = turn_id(&params);
                if self.active == id {
                    self.active = None;
                }
                if self.turn.as_ref().is_some_and(|turn| turn.id.is_some() && turn.id == id) {
                    self.turn_completed(params.get("turn").unwrap_or(&Value::Null));
                }
                Ok(())
            }
            "thread/settings/updated" => {
                let settings = InForce::read(params.get("threadSettings").unwrap_or(&Value::Null));
                let before = std::mem::replace(&mut self.in_force, settings);
                if before.mode == self.in_force.mode { Ok(()) } else { self.emit_mode().await }
            }
            "thread/tokenUsage/updated" => {
                let in_turn = self.is_of_turn(&params);
                let usage = params.get("tokenUsage").and_then(|usage| self.meter.update(usage, in_turn));
                self.emit_all(usage.map(AgentEvent::Usage)).await
            }
            "serverRequest/resolved" => {
                let withdrawn = params.get("requestId").and_then(|id| self.pending.resolved(id));
                self.emit_all(withdrawn.map(|ask_id| AgentEvent::ChoiceWithdrawn { ask_id })).await
            }
            "skills/changed" => {
                self.ask_skills();
                Ok(())
            }
            "warning" | "guardianWarning" => self.warning(text("message").unwrap_or_default().to_owned()).await,
            "model/rerouted" => {
                let name = |field| text(field).unwrap_or("?");
                let message = format!("model `{}` was replaced by `{}`", name("fromModel"), name("toModel"));
                self.emit(AgentEvent::Fault { code: "model_rerouted".into(), message }).await
            }
            _ if self.is_of_turn(&params) => self.turn_news(method, params).await,
            // Late news of a turn that was settled.
            _ if method.starts_with("item/") => Ok(()),
            _ => self.raw(method, params).await,
        }
    }

    fn is_of_turn(&self, params: &Value) -> bool {
        let id = self.turn.as_ref().and_then(|turn| turn.id.as_deref());
        id.is_some() && id == params.get("turnId").and_then(Value::as_str)
    }

    async fn turn_news(&mut self, method: &str, params: Value) -> Result<(), Stop> {
        let text = |field: &str| params.get(field).and_then(Value::as_str).unwrap_or_default();
        let (item, delta) = (text("itemId"), text("delta"));
        let number = |field: &str| params.get(field).and_then(Value::as_u64).unwrap_or(0);
        let event = match method {
            "item/started" | "item/completed" => {
                let ended = method == "item/completed";
                return self.item(params.get("item").unwrap_or(&Value::Null), ended).await;
            }
            "item/agentMessage/delta" | "item/plan/delta" => self.texts.delta(item, delta),
            "item/reasoning/summaryTextDelta" => {
                self.texts.thought(item, Source::Summary, number("summaryIndex"), delta)
            }
            "item/reasoning/textDelta" => self.texts.thought(item, Source::Raw, number("contentIndex"), delta),
            "item/reasoning/summaryPartAdded" => None,
            "item/commandExecution/outputDelta" | "item/fileChange/outputDelta" => {
                self.tools.output(item, delta, Instant::now())
            }
            "item/fileChange/patchUpdated" => self.tools.changes(item, params.get("changes").unwrap_or(&Value::Null)),
            "item/mcpToolCall/progress" => self.tools.progress(item, text("message")),
            "turn/plan/updated" => Some(AgentEvent::Plan(params.get("plan").cloned().unwrap_or_else(|| json!([])))),
            "error" => {
                let retries = params.get("willRetry").and_then(Value::as_bool) == Some(true);
                // One that ends the turn is told again with its end.
                if !retries {
                    return Ok(());
                }
                if let Some(turn) = &mut self.turn {
                    turn.retrying = true;
                }
                let reason = failure::text(params.get("error").unwrap_or(&Value::Null));
                return self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason) }).await;
            }
            _ => return self.raw(method, params).await,
        };
        let Some(event) = event else { return Ok(()) };
        self.back_to_work().await?;
        self.emit(event).await
    }

    /// An item begins, or is told as a whole.
    async fn item(&mut self, item: &Value, ended: bool) -> Result<(), Stop> {
        let text = |field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default();
        let id = text("id");
        let event = match text("type") {
            "userMessage" => return self.user_message(item).await,
            "agentMessage" | "plan" if ended => self.texts.whole(id, text("text")),
            "reasoning" if ended => self.texts.whole_thought(id, item),
            "agentMessage" | "plan" | "reasoning" => None,
            "contextCompaction" => {
                let reason = if ended { "the conversation was summarised" } else { "summarises the conversation" };
                Some(AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason.to_owned()) })
            }
            _ => {
                let events = if ended { self.tools.completed(item) } else { self.tools.started(item) };
                let Some(events) = events else {
                    let method = if ended { "item/completed" } else { "item/started" };
                    return self.raw(method, json!({ "item": item })).await;
                };
                self.texts.interrupted();
                self.back_to_work().await?;
                return self.emit_all(events).await;
            }
        };
        self.emit_all(event).await
    }

    /// After a retry that went well.
    async fn back_to_work(&mut self) -> Result<(), Stop> {
        match &mut self.turn {
            Some(turn) if turn.retrying => {
                turn.retrying = false;
                self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: None }).await
            }
            _ => Ok(()),
        }
    }

    async fn warning(&mut self, message: String) -> Result<(), Stop> {
        if self.warned.len() >= MAX_WARNINGS || !self.warned.insert(message.clone()) {
            return Ok(());
        }
        self.emit(AgentEvent::Fault { code: "agent_warning".into(), message }).await
    }
}

fn turn_id(params: &Value) -> Option<String> {
    params.get("turn")?.get("id")?.as_str().map(str::to_owned)
}
