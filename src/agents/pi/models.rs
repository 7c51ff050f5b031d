//! pi's models and thinking levels, and what a process is started with. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, Mode, OpenSpec},
    config::AgentConfig,
};

/// Thinking levels, which are pi's modes here; the last one only some models have.
const LEVELS: [&str; 6] = ["off", "minimal", "low", "medium", "high", "xhigh"];
/// Models in a message for a person.
const SHOWN: usize = 10;

/// What a process is started with. pi stores a model or level that is set later as its user's default, which is none of a
/// session's business; so a change of them is another process on the same conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `provider/id`; none is pi's own choice.
    pub(super) model: Option<String>,
    /// The thinking level; none is pi's own choice.
    pub(super) level: Option<String>,
    /// Only tools that change nothing: pi asks for no permission, so this is how it is held to a plan.
    pub(super) read_only: bool,
}

impl Settings {
    /// What a session asks for at its start, else the configuration. Whether pi has it shows only then.
    pub(super) fn asked(spec: &OpenSpec, config: &AgentConfig) -> Self {
        let level = spec.mode.clone().or_else(|| config.mode.clone());
        Self {
            model: spec.model.clone().or_else(|| config.model.clone()),
            level: level.filter(|level| LEVELS.contains(&level.as_str())),
            read_only: spec.permission_mode == "plan",
        }
    }

    /// The arguments of a process with these settings, on this conversation.
    pub(super) fn arguments(&self, file: Option<&str>) -> Vec<String> {
        let mut args = vec!["--mode".to_owned(), "rpc".to_owned()];
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                args.extend([name.to_owned(), value.to_owned()]);
            }
        };
        add("--session", file);
        add("--model", self.model.as_deref());
        add("--thinking", self.level.as_deref());
        add("--tools", self.read_only.then_some("read,grep,find,ls"));
        args
    }
}

/// The models that pi can use, and the state that it is in.
#[derive(Debug, Default)]
pub(super) struct Models {
    offered: Vec<Model>,
    /// `provider/id` of the one in use.
    pub(super) current: Option<String>,
    /// The thinking level in use.
    pub(super) level: Option<String>,
}

#[derive(Debug, Default)]
struct Model {
    /// `provider/id`.
    name: String,
    id: String,
    label: String,
    reasoning: bool,
    images: bool,
    context: Option<u64>,
}

impl Models {
    /// Reads the answer to `get_available_models`.
    pub(super) fn offer(&mut self, answer: &Value) {
        let models = answer.get("models").and_then(Value::as_array).into_iter().flatten();
        self.offered = models.filter_map(Model::read).collect();
    }

    /// Reads the answer to `get_state`.
    pub(super) fn state(&mut self, state: &Value) {
        let model = state.get("model").and_then(Model::read);
        // So it says that it has none.
        self.current = model.map(|model| model.name).filter(|name| name != "unknown/unknown");
        self.level = state.get("thinkingLevel").and_then(Value::as_str).map(str::to_owned);
    }

    /// The model that is meant: by `provider/id`, or by its id alone where that is enough.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub(super) fn find(&self, wanted: &str) -> Result<String, String> {
        if self.offered.iter().any(|model| model.name == wanted) {
            return Ok(wanted.to_owned());
        }
        let same: Vec<&Model> = self.offered.iter().filter(|model| model.id == wanted).collect();
        match same.as_slice() {
            [one] => Ok(one.name.clone()),
            [] => Err(format!("it has no model `{wanted}`; it offers {}", list(self.offered.iter()))),
            several => Err(format!("model `{wanted}` is ambiguous: it may be {}", list(several.iter().copied()))),
        }
    }

    /// Whether a thinking level can be asked of a model.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub(super) fn check_level(&self, level: &str, model: Option<&str>) -> Result<(), String> {
        if !LEVELS.contains(&level) {
            return Err(format!("it has no mode `{level}`; its modes are thinking levels: {}", LEVELS.join(", ")));
        }
        let model = model.or(self.current.as_deref()).and_then(|name| self.by_name(name));
        match model {
            Some(model) if !model.reasoning && level != "off" => {
                Err(format!("mode `{level}` is a thinking level, and model `{}` does not think", model.name))
            }
            _ => Ok(()),
        }
    }

    fn by_name(&self, name: &str) -> Option<&Model> {
        self.offered.iter().find(|model| model.name == name)
    }

    fn in_use(&self) -> Option<&Model> {
        self.by_name(self.current.as_deref()?)
    }

    /// Whether the model in use takes images.
    pub(super) fn takes_images(&self) -> bool {
        self.in_use().is_some_and(|model| model.images)
    }

    /// The size of its context in tokens.
    pub(super) fn context(&self) -> Option<u64> {
        self.in_use()?.context
    }

    /// For [`Opened`](crate::agents::Opened).
    pub(super) fn told(&self) -> Vec<BTreeMap<String, Value>> {
        let told = |model: &Model| {
            BTreeMap::from([("id".to_owned(), json!(model.name)), ("name".to_owned(), json!(model.label))])
        };
        self.offered.iter().map(told).collect()
    }

    /// The thinking level as a mode; none where the model does not think.
    pub(super) fn mode_event(&self) -> Option<AgentEvent> {
        self.in_use().filter(|model| model.reasoning)?;
        Some(AgentEvent::Mode { mode: self.level.clone(), modes: json!(modes()) })
    }
}

/// The thinking levels as modes.
pub(super) fn modes() -> Vec<Mode> {
    LEVELS.map(|level| Mode { id: level.to_owned(), name: format!("Thinking: {level}") }).into()
}

impl Model {
    fn read(model: &Value) -> Option<Self> {
        let text = |name: &str| model.get(name).and_then(Value::as_str);
        let id = text("id")?;
        let inputs = model.get("input").and_then(Value::as_array);
        Some(Self {
            name: format!("{}/{id}", text("provider")?),
            id: id.to_owned(),
            label: text("name").unwrap_or(id).to_owned(),
            reasoning: model.get("reasoning").and_then(Value::as_bool).unwrap_or(false),
            images: inputs.is_some_and(|inputs| inputs.iter().any(|input| input == "image")),
            context: model.get("contextWindow").and_then(Value::as_u64).filter(|size| *size > 0),
        })
    }
}

fn list<'a>(models: impl ExactSizeIterator<Item = &'a Model>) -> String {
    let count = models.len();
    let shown: Vec<String> = models.take(SHOWN).map(|model| format!("`{}`", model.name)).collect();
    match count {
        0 => "none: it has no credentials for any".to_owned(),
        1..=SHOWN => shown.join(", "),
        _ => format!("{} and {} more", shown.join(", "), count - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Models {
        let model = |provider: &str, id: &str, reasoning: bool| json!({"id": id, "provider": provider, "reasoning": reasoning, "input": ["text", "image"], "contextWindow": 100});
        let mut models = Models::default();
        models.offer(&json!({"models": [model("a", "one", true), model("a", "two", false), model("b", "one", true)]}));
        models.state(&json!({"model": model("a", "one", true), "thinkingLevel": "low"}));
        models
    }

    #[test]
    fn a_model_is_found_by_its_name_or_where_it_is_enough_by_its_id() {
        let models = models();
        assert_eq!((models.find("b/one"), models.find("two")), (Ok("b/one".into()), Ok("a/two".into())));
        assert!(models.find("one").unwrap_err().contains("`a/one`, `b/one`"));
        assert!(models.find("tw").unwrap_err().contains("it offers `a/one`, `a/two`, `b/one`"));
        assert!(Models::default().find("x").unwrap_err().contains("no credentials"));
        assert_eq!((models.context(), models.takes_images(), models.told().len()), (Some(100), true, 3));
    }

    #[test]
    fn thinking_levels_are_modes_of_models_that_think() {
        let mut models = models();
        assert!(matches!(models.mode_event(), Some(AgentEvent::Mode { mode: Some(mode), .. }) if mode == "low"));
        assert!(models.check_level("high", None).is_ok() && models.check_level("off", Some("a/two")).is_ok());
        assert!(models.check_level("high", Some("a/two")).unwrap_err().contains("does not think"));
        assert!(models.check_level("build", None).unwrap_err().contains("off, minimal"));
        models.state(&json!({"model": {"id": "unknown", "provider": "unknown"}}));
        assert_eq!((models.current.as_deref(), models.mode_event()), (None, None));
    }

    #[test]
    fn settings_are_arguments() {
        let settings = Settings { model: Some("a/one".into()), level: Some("low".into()), read_only: true };
        let args = settings.arguments(Some("/s.jsonl")).join(" ");
        assert_eq!(args, "--mode rpc --session /s.jsonl --model a/one --thinking low --tools read,grep,find,ls");
        assert_eq!(Settings::default().arguments(None), ["--mode", "rpc"]);
    }
}
