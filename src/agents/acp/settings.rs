//! Models and modes: what an agent offers, in whichever of the protocol's three ways, and how to ask for one. Pure.
//!
//! The ways: `models` (with `session/set_model`), `modes` (with `session/set_mode`), and `configOptions` of category
//! `model` or `mode` (with `session/set_config_option`). Where two are offered, the first kind is used.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agents::AgentEvent;

/// A choice that the agent offers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) current: Option<String>,
    /// The current one when the conversation was opened: what "the agent's default" means.
    initial: Option<String>,
    /// Ids and names.
    offered: Vec<(String, String)>,
    /// The list as the agent gives it.
    raw: Value,
    how: How,
}

#[derive(Debug, Clone, PartialEq)]
enum How {
    SetModel,
    SetMode,
    ConfigOption(String),
}

/// What an agent offers.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) model: Option<Setting>,
    pub(super) mode: Option<Setting>,
}

impl Settings {
    /// Reads the result of `session/new` or `session/load`.
    pub(super) fn read(result: &Value) -> Self {
        let list = |holder: &str, list: &str, id: &str, current: &str, how| {
            let holder = result.get(holder)?;
            Setting::new(holder.get(list)?, &[id], holder.get(current), how)
        };
        let model = list("models", "availableModels", "modelId", "currentModelId", How::SetModel);
        let mode = list("modes", "availableModes", "id", "currentModeId", How::SetMode);
        let options = result.get("configOptions");
        Self {
            model: model.or_else(|| config_option(options?, "model")),
            mode: mode.or_else(|| config_option(options?, "mode")),
        }
    }

    /// Takes the whole list of config options, as they are after a change.
    pub(super) fn take_options(&mut self, options: &Value) {
        for (setting, category) in [(&mut self.model, "model"), (&mut self.mode, "mode")] {
            let Some(news) = config_option(options, category) else { continue };
            match setting {
                Some(known) if matches!(known.how, How::ConfigOption(_)) => {
                    let initial = known.initial.take();
                    *known = Setting { initial, ..news };
                }
                // The same setting, offered twice: only what is in force is news.
                Some(known) => known.current = news.current.or(known.current.take()),
                None => *setting = Some(news),
            }
        }
    }

    /// The mode as an event; none where the agent has no modes.
    pub(super) fn mode_event(&self) -> Option<AgentEvent> {
        let mode = self.mode.as_ref()?;
        Some(AgentEvent::Mode { mode: mode.current.clone(), modes: mode.raw.clone() })
    }

    /// The models for [`crate::agents::Opened`].
    pub(super) fn models(&self) -> Vec<BTreeMap<String, Value>> {
        let offered = self.model.iter().flat_map(|model| &model.offered);
        let entry = |(id, name): &(String, String)| {
            BTreeMap::from([("id".to_owned(), Value::from(id.as_str())), ("name".to_owned(), name.as_str().into())])
        };
        offered.map(entry).collect()
    }
}

impl Setting {
    fn new(list: &Value, id_fields: &[&str], current: Option<&Value>, how: How) -> Option<Self> {
        let mut offered = Vec::new();
        for entry in list.as_array()? {
            // Options of a config option may stand in groups.
            let group = entry.get("options").and_then(Value::as_array);
            for entry in group.map_or(std::slice::from_ref(entry), Vec::as_slice) {
                if let Some(id) = id_fields.iter().find_map(|field| entry.get(field)?.as_str()) {
                    let name = entry.get("name").and_then(Value::as_str).unwrap_or(id);
                    offered.push((id.to_owned(), name.to_owned()));
                }
            }
        }
        let current = current.and_then(Value::as_str).map(str::to_owned);
        (!offered.is_empty()).then(|| Self { initial: current.clone(), current, offered, raw: list.clone(), how })
    }

    /// The request that brings this id into force; none when it is in force already.
    ///
    /// The error is for a person and lists what there is.
    pub(super) fn change(&self, what: &str, id: &str, session: &str) -> Result<Option<(&'static str, Value)>, String> {
        if self.current.as_deref() == Some(id) {
            return Ok(None);
        }
        if !self.offered.iter().any(|(offered, _)| offered == id) {
            return Err(format!("there is no {what} `{id}`; the agent offers {}", self.list()));
        }
        Ok(Some(match &self.how {
            How::SetModel => ("session/set_model", json!({"sessionId": session, "modelId": id})),
            How::SetMode => ("session/set_mode", json!({"sessionId": session, "modeId": id})),
            How::ConfigOption(option) => {
                ("session/set_config_option", json!({"sessionId": session, "configId": option, "value": id}))
            }
        }))
    }

    /// What it was when the conversation was opened.
    pub(super) fn initial(&self) -> Option<&str> {
        self.initial.as_deref()
    }

    /// The ids on offer, for a person.
    pub(super) fn list(&self) -> String {
        self.offered.iter().map(|(id, _)| format!("`{id}`")).collect::<Vec<_>>().join(", ")
    }

    /// The mode that a permission mode means, where one plainly does, by id or by name.
    ///
    /// `default` is the mode of that id, else what the agent began with. Otherwise none means: not on offer.
    pub(super) fn for_permission_mode(&self, permission_mode: &str) -> Option<&str> {
        let candidates: &[&str] = match permission_mode {
            "default" => {
                let by_id = self.offered.iter().find(|(id, _)| plain(id) == "default");
                return by_id.map(|(id, _)| id.as_str()).or(self.initial());
            }
            "accept_edits" => &["acceptedits", "autoedit", "autoedits"],
            "plan" => &["plan", "planmode"],
            "dont_ask" => &["dontask", "neverask"],
            "bypass" => &["bypasspermissions", "bypass", "yolo", "fullaccess"],
            _ => &[],
        };
        let matches = |text: &str| candidates.contains(&plain(text).as_str());
        let by_id = self.offered.iter().find(|(id, _)| matches(id));
        by_id.or_else(|| self.offered.iter().find(|(_, name)| matches(name))).map(|(id, _)| id.as_str())
    }
}

/// Letters and digits in lower case: `accept_edits`, `acceptEdits` and `Accept Edits` are the same.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn config_option(options: &Value, category: &str) -> Option<Setting> {
    let options = options.as_array()?;
    let is = |field: &'static str| move |option: &&Value| option.get(field).and_then(Value::as_str) == Some(category);
    let option = options.iter().find(is("category")).or_else(|| options.iter().find(is("id")))?;
    let how = How::ConfigOption(option.get("id")?.as_str()?.to_owned());
    Setting::new(option.get("options")?, &["value", "id"], option.get("currentValue"), how)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(ids: &[(&str, &str)], current: &str) -> Setting {
        let list: Vec<Value> = ids.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
        let result = json!({"modes": {"availableModes": list, "currentModeId": current}});
        Settings::read(&result).mode.unwrap()
    }

    #[test]
    fn all_three_ways_of_offering_are_read() {
        let result = json!({
            "models": {"currentModelId": "m1", "availableModels": [{"modelId": "m1", "name": "One"}, {"modelId": "m2"}]},
            "configOptions": [{"id": "model", "category": "model", "currentValue": "x", "options": [{"value": "x"}]},
                {"id": "agent", "category": "mode", "currentValue": "build", "options": [
                    {"group": "g", "name": "Group", "options": [{"value": "build", "name": "Build"}]}, {"value": "plan"}]}]});
        let settings = Settings::read(&result);
        let model = settings.model.clone().unwrap();
        assert_eq!(model.change("model", "m1", "s"), Ok(None));
        let (method, params) = model.change("model", "m2", "s").unwrap().unwrap();
        assert_eq!((method, params), ("session/set_model", json!({"sessionId": "s", "modelId": "m2"})));
        let error = model.change("model", "m3", "s").unwrap_err();
        assert_eq!(error, "there is no model `m3`; the agent offers `m1`, `m2`");
        let mode = settings.mode.clone().unwrap();
        let change = mode.change("mode", "plan", "s").unwrap().unwrap();
        let expected = json!({"sessionId": "s", "configId": "agent", "value": "plan"});
        assert_eq!(change, ("session/set_config_option", expected));
        assert_eq!(settings.models().len(), 2);
        assert_eq!(Settings::read(&json!({"sessionId": "s"})), Settings::default());
    }

    #[test]
    fn an_update_keeps_what_the_conversation_began_with() {
        let option = |current: &str| json!([{"id": "mode", "currentValue": current, "options": [{"value": "a"}, {"value": "b"}]}]);
        let mut settings = Settings::read(&json!({"configOptions": option("a")}));
        settings.take_options(&option("b"));
        let mode = settings.mode.unwrap();
        assert_eq!((mode.current.as_deref(), mode.initial()), (Some("b"), Some("a")));
    }

    #[test]
    fn permission_modes_map_only_where_the_match_is_plain() {
        let claude = mode(
            &[
                ("default", "Always Ask"),
                ("acceptEdits", "Accept Edits"),
                ("plan", "Plan Mode"),
                ("dontAsk", "Don't Ask"),
                ("bypassPermissions", "Bypass"),
            ],
            "plan",
        );
        let map = |mode: &Setting, name: &str| mode.for_permission_mode(name).map(str::to_owned);
        let names = ["default", "accept_edits", "plan", "dont_ask", "bypass"];
        let expected = ["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"];
        assert_eq!(names.map(|name| map(&claude, name)), expected.map(|id| Some(id.to_owned())));
        let gemini =
            mode(&[("default", "Default"), ("autoEdit", "Auto Edit"), ("yolo", "YOLO"), ("plan", "Plan")], "default");
        let expected = [Some("default"), Some("autoEdit"), Some("plan"), None, Some("yolo")];
        assert_eq!(names.map(|name| map(&gemini, name)), expected.map(|id| id.map(str::to_owned)));
        let codex =
            mode(&[("read-only", "Read Only"), ("auto", "Default"), ("full-access", "Full Access")], "read-only");
        let expected = [Some("read-only"), None, None, None, Some("full-access")];
        assert_eq!(names.map(|name| map(&codex, name)), expected.map(|id| id.map(str::to_owned)));
    }
}
