//! `session/update` → events. Pure, but for the memory of the turn's tools, the settings and the meter.

use serde_json::{Value, json};

use super::{settings::Settings, tools::Tools, usage::Meter};
use crate::{
    agents::{AgentEvent, program::raw},
    protocol::event::DeltaKind,
};

/// What is known of a conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) settings: Settings,
    pub(super) tools: Tools,
    pub(super) meter: Meter,
}

impl Conversation {
    /// Translates an update. Outside a turn, what belongs to a turn is dropped: the agent replays old ones while it
    /// loads, and some speak late.
    pub(super) fn update(&mut self, update: &Value, in_turn: bool) -> Vec<AgentEvent> {
        let kind = update.get("sessionUpdate").and_then(Value::as_str).unwrap_or_default();
        let list = |name: &str| update.get(name).cloned().unwrap_or_else(|| json!([]));
        match kind {
            "available_commands_update" => vec![AgentEvent::Commands(list("availableCommands"))],
            "current_mode_update" => {
                let id = update.get("currentModeId").or_else(|| update.get("modeId")).and_then(Value::as_str);
                if let (Some(mode), Some(id)) = (&mut self.settings.mode, id) {
                    mode.current = Some(id.to_owned());
                }
                self.settings.mode_event().into_iter().collect()
            }
            "config_option_update" => {
                self.settings.take_options(&list("configOptions"));
                self.settings.mode_event().into_iter().collect()
            }
            "usage_update" => self.meter.update(update, in_turn).map(AgentEvent::Usage).into_iter().collect(),
            "agent_message_chunk"
            | "agent_thought_chunk"
            | "user_message_chunk"
            | "tool_call"
            | "tool_call_update"
            | "plan"
                if !in_turn =>
            {
                Vec::new()
            }
            "agent_message_chunk" => {
                let counted = self.meter.chunk(update);
                let events = chunk(DeltaKind::Text, update);
                if counted || !events.is_empty() { events } else { vec![raw(update)] }
            }
            "agent_thought_chunk" => chunk(DeltaKind::Reasoning, update),
            "user_message_chunk" => Vec::new(),
            "tool_call" | "tool_call_update" => self.tools.update(update),
            "plan" => vec![AgentEvent::Plan(list("entries"))],
            _ => vec![raw(update)],
        }
    }
}

fn chunk(kind: DeltaKind, update: &Value) -> Vec<AgentEvent> {
    let content = update.get("content");
    let text = content.and_then(|content| content.get("text")?.as_str().or(content.as_str()));
    match text {
        Some(text) if !text.is_empty() => vec![AgentEvent::Delta { kind, text: text.to_owned() }],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(update: Value, in_turn: bool) -> Vec<AgentEvent> {
        Conversation::default().update(&update, in_turn)
    }

    #[test]
    fn what_is_not_understood_is_raw_and_what_is_too_large_is_cut() {
        let news = json!({"sessionUpdate": "hologram", "x": 1});
        assert_eq!(one(news.clone(), true), [AgentEvent::Raw(news)]);
        let image = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "image", "data": "A"}});
        assert_eq!(one(image.clone(), true), [AgentEvent::Raw(image)]);
        let large = json!({"sessionUpdate": "hologram", "x": "y".repeat(64 * 1024)});
        assert!(matches!(&one(large, true)[..], [AgentEvent::Raw(cut)] if cut["truncated"] == true));
        assert_eq!(one(json!(7), false), [AgentEvent::Raw(json!(7))]);
    }

    #[test]
    fn outside_a_turn_only_what_belongs_to_the_agent_passes() {
        let text = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "old"}});
        assert_eq!(one(text.clone(), false), []);
        assert_eq!(one(text, true), [AgentEvent::Delta { kind: DeltaKind::Text, text: "old".into() }]);
        let commands = json!({"sessionUpdate": "available_commands_update", "availableCommands": [{"name": "x"}]});
        assert_eq!(one(commands, false), [AgentEvent::Commands(json!([{"name": "x"}]))]);
        let empty = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": ""},
            "_meta": {"usage": {"inputTokens": 1, "outputTokens": 1}}});
        assert_eq!(one(empty, true), []);
    }
}
