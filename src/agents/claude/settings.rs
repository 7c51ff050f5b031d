//! Models and modes: what is offered, what is in force, and what Greenroom's permission modes mean here. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::text;
use crate::agents::{AgentEvent, Mode};

/// The mode in which nothing is asked.
pub(super) const BYPASS: &str = "bypassPermissions";
/// The agent's ordinary mode.
pub(super) const DEFAULT: &str = "default";
/// The modes by id, with names for people.
const MODES: [(&str, &str); 6] = [
    (DEFAULT, "Ask first"),
    ("acceptEdits", "Accept edits"),
    ("plan", "Plan, change nothing"),
    ("dontAsk", "Do not ask, refuse what is not allowed"),
    ("auto", "A model decides what needs asking"),
    (BYPASS, "Allow everything"),
];

/// The longest description of a command, in characters.
const DESCRIPTION: usize = 200;

/// A model on offer.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    /// What is asked for: often an alias, as `sonnet`.
    id: String,
    /// What that stands for now.
    resolved: Option<String>,
    name: String,
}

/// What is offered, and what is in force.
#[derive(Debug, Default)]
pub(super) struct Settings {
    models: Vec<Model>,
    /// The model that runs, as the agent itself calls it; none while that is not known.
    pub(super) model: Option<String>,
    /// The agent's own mode.
    pub(super) mode: String,
    /// True while permissions are granted here, because the agent does not go into [`BYPASS`]: it does so only when it
    /// was started for it, and never as root.
    pub(super) grants: bool,
}

impl Settings {
    /// Reads the answer to `initialize`.
    pub(super) fn read(initialized: &Value) -> Self {
        let known = |entry: &Value, field: &str| Some(text(entry, field).to_owned()).filter(|text| !text.is_empty());
        let model = |entry: &Value| {
            let id = known(entry, "value")?;
            let name = known(entry, "displayName").unwrap_or_else(|| id.clone());
            Some(Model { id, resolved: known(entry, "resolvedModel"), name })
        };
        let models = initialized.get("models").and_then(Value::as_array);
        Self {
            models: models.into_iter().flatten().filter_map(model).collect(),
            model: None,
            mode: known(initialized, "current_permission_mode").unwrap_or_else(|| DEFAULT.to_owned()),
            grants: false,
        }
    }

    /// The models for [`crate::agents::Opened`].
    pub(super) fn models(&self) -> Vec<BTreeMap<String, Value>> {
        let entry = |model: &Model| {
            BTreeMap::from([
                ("id".to_owned(), model.id.as_str().into()),
                ("name".to_owned(), model.name.as_str().into()),
            ])
        };
        self.models.iter().map(entry).collect()
    }

    /// What a model that is asked for stands for, as far as the list says; none is the default.
    pub(super) fn resolve(&self, asked: Option<&str>) -> Option<String> {
        let wanted = asked.unwrap_or("default");
        let listed = self.models.iter().find(|model| model.id == wanted).and_then(|model| model.resolved.clone());
        listed.or_else(|| asked.map(str::to_owned))
    }

    /// Whether a model can be asked for. The agent itself takes any name, and fails only in the turn. Beside the list
    /// it takes full names; the configured one may be anything that its endpoint serves.
    ///
    /// The error is for a person and lists what there is.
    pub(super) fn check_model(&self, id: &str, configured: Option<&str>) -> Result<(), String> {
        let listed = self.models.iter().any(|model| model.id == id || model.resolved.as_deref() == Some(id));
        if listed || self.models.is_empty() || configured == Some(id) || id.contains("claude") {
            return Ok(());
        }
        let offered = self.models.iter().map(|model| format!("`{}`", model.id)).collect::<Vec<_>>().join(", ");
        Err(format!("there is no model `{id}`; the agent offers {offered}"))
    }

    /// Notes the model that runs; news of it when it is another one than was known.
    pub(super) fn model_is(&mut self, model: &str, asked: Option<&str>) -> Option<String> {
        if model.is_empty() || self.model.as_deref() == Some(model) {
            return None;
        }
        let known = self.model.replace(model.to_owned()).is_some();
        known.then(|| match asked.filter(|asked| self.resolve(Some(asked)).as_deref() != Some(model)) {
            Some(asked) => format!("`{asked}` was asked for, and the agent runs `{model}`"),
            None => format!("the model is `{model}`"),
        })
    }

    /// The mode that clients see.
    pub(super) fn shown_mode(&self) -> &str {
        if self.grants && self.mode == DEFAULT { BYPASS } else { &self.mode }
    }

    /// True when a permission is granted without asking anybody.
    pub(super) fn grants_now(&self) -> bool {
        self.grants && self.mode == DEFAULT
    }

    /// The mode as an event.
    pub(super) fn mode_event(&self, allow_bypass: bool) -> AgentEvent {
        AgentEvent::Mode { mode: Some(self.shown_mode().to_owned()), modes: json!(modes(allow_bypass)) }
    }
}

/// The modes that may be asked for.
pub(super) fn modes(allow_bypass: bool) -> Vec<Mode> {
    let offered = MODES.iter().filter(|(id, _)| allow_bypass || *id != BYPASS);
    offered.map(|(id, name)| Mode { id: (*id).to_owned(), name: (*name).to_owned() }).collect()
}

/// The commands as the agent gives them, with the descriptions cut to what a menu shows: they are written for a model,
/// and as long as a page.
pub(super) fn commands(list: Option<&Value>) -> AgentEvent {
    let short = |command: &Value| {
        let mut command = command.clone();
        if let Some(Value::String(description)) = command.get_mut("description") {
            *description = description.chars().take(DESCRIPTION).collect();
        }
        command
    };
    let list = list.and_then(Value::as_array).into_iter().flatten();
    AgentEvent::Commands(list.map(short).collect())
}

/// Whether a mode of this id may be asked for.
///
/// The error is for a person.
pub(super) fn check_mode(id: &str, agent: &str, allow_bypass: bool) -> Result<(), String> {
    if id == BYPASS && !allow_bypass {
        return Err(format!("mode `{BYPASS}` needs agents.{agent}.allow_bypass"));
    }
    if MODES.iter().any(|(known, _)| *known == id) {
        return Ok(());
    }
    let offered = MODES.iter().filter(|(id, _)| allow_bypass || *id != BYPASS).map(|(id, _)| format!("`{id}`"));
    Err(format!("there is no mode `{id}`; the agent offers {}", offered.collect::<Vec<_>>().join(", ")))
}

/// The agent's mode for a permission mode.
pub(super) fn for_permission_mode(permission_mode: &str) -> Option<&'static str> {
    Some(match permission_mode {
        "default" => DEFAULT,
        "accept_edits" => "acceptEdits",
        "plan" => "plan",
        "dont_ask" => "dontAsk",
        "bypass" => BYPASS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::read(&json!({"current_permission_mode": "plan", "models": [
            {"value": "default", "resolvedModel": "claude-opus-5-5", "displayName": "Default"},
            {"value": "sonnet", "resolvedModel": "claude-sonnet-5-5", "displayName": "Sonnet"}, {"broken": 1}]}))
    }

    #[test]
    fn aliases_are_resolved_and_nonsense_is_refused_with_what_there_is() {
        let settings = settings();
        let resolve = |asked: Option<&str>| settings.resolve(asked);
        assert_eq!(resolve(None).as_deref(), Some("claude-opus-5-5"));
        assert_eq!(resolve(Some("sonnet")).as_deref(), Some("claude-sonnet-5-5"));
        assert_eq!(resolve(Some("claude-x")).as_deref(), Some("claude-x"));
        for good in ["sonnet", "claude-sonnet-5-5", "claude-opus-4-1", "us.anthropic.claude-x", "glm"] {
            assert_eq!(settings.check_model(good, Some("glm")), Ok(()), "{good}");
        }
        let error = settings.check_model("nonsense", None).unwrap_err();
        assert_eq!(error, "there is no model `nonsense`; the agent offers `default`, `sonnet`");
        assert_eq!(settings.models().len(), 2);
    }

    #[test]
    fn the_model_that_runs_is_told_when_it_is_not_the_known_one() {
        let mut settings = settings();
        assert_eq!(settings.model_is("claude-opus-5-5", None), None);
        assert_eq!(settings.model_is("claude-opus-5-5", Some("sonnet")), None);
        let alias = settings.model_is("claude-sonnet-5-5", Some("sonnet"));
        assert_eq!(alias.as_deref(), Some("the model is `claude-sonnet-5-5`"));
        let other = settings.model_is("claude-opus-5-5", Some("claude-opus-4-1")).unwrap();
        assert_eq!(other, "`claude-opus-4-1` was asked for, and the agent runs `claude-opus-5-5`");
    }

    #[test]
    fn commands_keep_their_fields_and_get_short() {
        let list = json!([{"name": "x", "description": "ü".repeat(300), "argumentHint": "[y]"}, {"name": "z"}]);
        let AgentEvent::Commands(commands) = commands(Some(&list)) else { panic!("no commands") };
        assert_eq!(commands[0]["description"].as_str().map(|text| text.chars().count()), Some(200));
        assert_eq!((&commands[0]["argumentHint"], &commands[1]), (&json!("[y]"), &json!({"name": "z"})));
    }

    #[test]
    fn bypass_is_offered_only_where_it_is_allowed() {
        let ids = |event: AgentEvent| match event {
            AgentEvent::Mode { modes, .. } => modes.to_string(),
            other => panic!("{other:?}"),
        };
        let settings = settings();
        assert!(ids(settings.mode_event(true)).contains(BYPASS) && !ids(settings.mode_event(false)).contains(BYPASS));
        assert!(check_mode(BYPASS, "a", false).unwrap_err().contains("agents.a.allow_bypass"));
        assert!(check_mode("yolo", "a", true).unwrap_err().contains("`dontAsk`"));
        assert_eq!((check_mode(BYPASS, "a", true), check_mode("plan", "a", false)), (Ok(()), Ok(())));
    }

    #[test]
    fn what_is_granted_here_is_shown_as_bypass_and_ends_while_planning() {
        let mut settings = Settings { grants: true, mode: DEFAULT.into(), ..Settings::default() };
        assert!(settings.shown_mode() == BYPASS && settings.grants_now());
        settings.mode = "plan".into();
        assert!(settings.shown_mode() == "plan" && !settings.grants_now());
    }
}
