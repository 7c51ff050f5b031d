//! What single agents do differently, as data: looked up by the name that an agent gives itself. An agent that is not
//! here follows the protocol. Pure.
//!
//! Measured with the versions in `docs/agents.md`.

use serde_json::Value;

/// What is special about an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    /// What `agentInfo.name` is, in lower case.
    name: &'static str,
    /// It can load its stored conversations, where it says so.
    pub(super) loads: bool,
    /// It may end a cancelled turn with `end_turn`, as if it had come to its own end.
    pub(super) cancelled_as_end: bool,
}

/// An agent that keeps to the protocol.
const PLAIN: Profile = Profile { name: "", loads: true, cancelled_as_end: false };

const PROFILES: &[Profile] = &[
    // The attempt fails and may destroy what it has stored.
    Profile { name: "gemini-cli", loads: false, ..PLAIN },
    // Seen when it is cancelled while it waits for another try at the model server.
    Profile { name: "opencode", cancelled_as_end: true, ..PLAIN },
];

impl Default for Profile {
    fn default() -> Self {
        PLAIN
    }
}

impl Profile {
    /// Of the agent that gave this answer to `initialize`.
    pub(super) fn of(initialized: &Value) -> Self {
        let name = initialized.get("agentInfo").and_then(|info| info.get("name")).and_then(Value::as_str);
        let name = name.unwrap_or_default().to_lowercase();
        PROFILES.iter().find(|profile| profile.name == name).copied().unwrap_or_default()
    }

    /// The method that goes on with a stored conversation; none where there is no way. To resume is better than to load,
    /// which sends the whole conversation once more.
    pub(super) fn way_back(self, initialized: &Value) -> Option<&'static str> {
        let capabilities = initialized.get("agentCapabilities")?;
        let resume = capabilities.get("sessionCapabilities").and_then(|session| session.get("resume"));
        if !self.loads {
            None
        } else if resume.is_some_and(|resume| !resume.is_null() && *resume != Value::Bool(false)) {
            Some("session/resume")
        } else if capabilities.get("loadSession").and_then(Value::as_bool) == Some(true) {
            Some("session/load")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn way(name: &str, capabilities: &Value) -> Option<&'static str> {
        let initialized = json!({"agentInfo": {"name": name}, "agentCapabilities": capabilities});
        Profile::of(&initialized).way_back(&initialized)
    }

    #[test]
    fn the_best_way_back_is_taken_that_the_agent_really_has() {
        let both = json!({"loadSession": true, "sessionCapabilities": {"resume": {}}});
        assert_eq!(way("any", &both), Some("session/resume"));
        assert_eq!(way("any", &json!({"loadSession": true, "sessionCapabilities": {}})), Some("session/load"));
        assert_eq!(way("any", &json!({"loadSession": false})), None);
        assert_eq!(way("gemini-cli", &both), None);
        assert_eq!(Profile::of(&json!({})), PLAIN);
        assert!(Profile::of(&json!({"agentInfo": {"name": "OpenCode"}})).cancelled_as_end);
    }
}
