//! Models, modes and permission modes: what the server offers, and what a prompt asks of it. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agents::AgentEvent;

/// The provider that the program brings along. It answers without a login and sends prompts to its maker, so it is offered
/// only where it was configured.
const BUILT_IN: &str = "opencode";
/// The most models that are listed.
const MAX_MODELS: usize = 1000;

/// A model, as OpenCode names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) provider: String,
    pub(super) model: String,
}

impl Model {
    /// `provider/model`
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }

    /// As in the body of a prompt.
    pub(super) fn to_value(&self) -> Value {
        json!({"providerID": self.provider, "modelID": self.model})
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Offered {
    model: Model,
    name: String,
    context: Option<u64>,
}

/// A mode: an agent of OpenCode's that takes prompts.
#[derive(Debug, Clone, PartialEq)]
struct Mode {
    name: String,
    description: Option<String>,
    model: Option<Model>,
}

/// What the server offers in a folder.
#[derive(Debug, Default)]
pub(super) struct Settings {
    models: Vec<Offered>,
    /// By provider, as the server gives them; the first offered provider's is the one without any configuration.
    default_model: Option<Model>,
    modes: Vec<Mode>,
    default_mode: Option<String>,
    /// Names of slash commands.
    pub(super) commands: Vec<String>,
    command_list: Value,
}

impl Settings {
    /// Reads `/config`, `/config/providers`, `/agent` and `/command`. `configured` is the model of Greenroom's own configuration.
    pub(super) fn read(
        config: &Value,
        providers: &Value,
        agents: &Value,
        commands: &Value,
        configured: Option<&str>,
    ) -> Self {
        let model = configured.or_else(|| text(config, "model"));
        let models = models(config, providers, model);
        let modes: Vec<Mode> = list(agents).iter().filter_map(mode).collect();
        let has = |name: &&str| modes.iter().any(|mode| mode.name == *name);
        let default_mode = text(config, "default_agent").filter(|name| has(name)).or(Some("build").filter(has));
        let default_mode = default_mode.map(str::to_owned).or_else(|| modes.first().map(|mode| mode.name.clone()));
        let entries = list(commands).iter().filter_map(|command| {
            let name = text(command, "name")?;
            Some((name.to_owned(), json!({"name": name, "description": text(command, "description")})))
        });
        let (commands, command_list) = entries.unzip::<_, _, _, Vec<Value>>();
        let mut settings = Self {
            models,
            default_model: None,
            modes,
            default_mode,
            commands,
            command_list: Value::Array(command_list),
        };
        settings.default_model = match model {
            // One that is not on offer is said by the prompt that needs it.
            Some(id) => settings.find(id).ok().or_else(|| split(id)),
            None => settings.first_default(providers),
        };
        settings
    }

    /// The server's own choice of the first provider that is offered.
    fn first_default(&self, providers: &Value) -> Option<Model> {
        let first = &self.models.first()?.model;
        let chosen = providers.get("default").and_then(|all| text(all, &first.provider));
        let chosen = chosen.map(|model| Model { provider: first.provider.clone(), model: model.to_owned() });
        chosen.filter(|model| self.offers(model)).or_else(|| Some(first.clone()))
    }

    fn offers(&self, model: &Model) -> bool {
        self.models.iter().any(|offered| offered.model == *model)
    }

    /// The model of this name. One without its provider gets the default one's, else the only one that has it.
    fn find(&self, id: &str) -> Result<Model, String> {
        let of_default = self
            .default_model
            .as_ref()
            .map(|default| Model { provider: default.provider.clone(), model: id.to_owned() });
        if let Some(model) =
            split(id).filter(|model| self.offers(model)).or(of_default.filter(|model| self.offers(model)))
        {
            return Ok(model);
        }
        let mut named = self.models.iter().filter(|offered| offered.model.model == id);
        match (named.next(), named.next()) {
            (Some(only), None) => Ok(only.model.clone()),
            (Some(_), Some(_)) => Err(format!("several providers have a model `{id}`: name it as `provider/{id}`")),
            _ => {
                let ids = self.models.iter().take(20).map(|offered| format!("`{}`", offered.model.id()));
                Err(format!("there is no model `{id}`; the agent offers {}", ids.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The model for a prompt in a mode. It is always named: the server would go on with the one of the turn before.
    ///
    /// # Errors
    /// For a person; the code is `model_not_found`, or `agent_unavailable` when no provider is set up at all.
    pub(super) fn model_for(&self, asked: Option<&str>, mode: Option<&str>) -> Result<Model, (&'static str, String)> {
        if let Some(id) = asked.map(str::trim).filter(|id| !id.is_empty()) {
            return self.find(id).map_err(|message| ("model_not_found", message));
        }
        let of_mode = self.modes.iter().find(|offered| Some(offered.name.as_str()) == mode);
        let model = of_mode.and_then(|mode| mode.model.clone()).or_else(|| self.default_model.clone());
        match model {
            Some(model) if self.offers(&model) => Ok(model),
            Some(model) => {
                let message = format!("the configured model `{}` is not among those that the agent offers", model.id());
                Err(("model_not_found", message))
            }
            None => {
                let message = "no provider of models is set up: run `opencode auth login`, or set a model";
                Err(("agent_unavailable", message.to_owned()))
            }
        }
    }

    /// The default model's id.
    pub(super) fn default_model(&self) -> Option<String> {
        self.default_model.as_ref().map(Model::id)
    }

    /// The context window of a model, in tokens.
    pub(super) fn context_of(&self, model: &Model) -> Option<u64> {
        self.models.iter().find(|offered| offered.model == *model)?.context
    }

    /// The models for [`crate::agents::Opened`].
    pub(super) fn models(&self) -> Vec<BTreeMap<String, Value>> {
        let entry = |offered: &Offered| {
            BTreeMap::from([
                ("id".to_owned(), Value::from(offered.model.id())),
                ("name".to_owned(), offered.name.as_str().into()),
            ])
        };
        self.models.iter().map(entry).collect()
    }

    /// The mode that a prompt runs in: none where the server offers none.
    ///
    /// # Errors
    /// A code and a message for a person.
    pub(super) fn mode_for(
        &self,
        asked: Option<&str>,
        configured: Option<&str>,
        permission_mode: &str,
    ) -> Result<Option<String>, (&'static str, String)> {
        let offers = || self.modes.iter().map(|mode| format!("`{}`", mode.name)).collect::<Vec<_>>().join(", ");
        let find = |name: &str| self.modes.iter().find(|mode| mode.name == name).map(|mode| mode.name.clone());
        if permission_mode == "plan" {
            return match (find("plan"), asked) {
                (Some(plan), None | Some("plan")) => Ok(Some(plan)),
                (_, Some(other)) if other != "plan" => {
                    let message = format!("permission mode `plan` cannot be kept in mode `{other}`");
                    Err(("invalid_permission_mode", message))
                }
                _ => Err(("invalid_permission_mode", format!("there is no mode for `plan`; it offers {}", offers()))),
            };
        }
        match asked.or(configured) {
            Some(name) => match find(name) {
                Some(mode) => Ok(Some(mode)),
                None => Err(("model_not_found", format!("there is no mode `{name}`; the agent offers {}", offers()))),
            },
            None => Ok(self.default_mode.clone()),
        }
    }

    /// The modes, and the one in force.
    pub(super) fn mode_event(&self, mode: Option<&str>) -> AgentEvent {
        let entry = |mode: &Mode| json!({"id": mode.name, "name": mode.name, "description": mode.description});
        let modes = Value::Array(self.modes.iter().map(entry).collect());
        AgentEvent::Mode { mode: mode.map(str::to_owned), modes }
    }

    /// The slash commands.
    pub(super) fn commands_event(&self) -> AgentEvent {
        AgentEvent::Commands(self.command_list.clone())
    }
}

/// What is answered to a permission without asking anybody; none asks. Rules of the agent's own configuration come before:
/// what they allow or deny is never asked.
pub(super) fn ready_reply(permission_mode: &str, permission: &str) -> Option<Value> {
    match (permission_mode, permission) {
        ("bypass", _) | ("accept_edits", "edit") => Some(json!({"reply": "once"})),
        // With a message the turn goes on without the tool; without one it would end.
        ("dont_ask", _) => {
            let message = "Not allowed: nobody is asked in this mode. Go on without it.";
            Some(json!({"reply": "reject", "message": message}))
        }
        _ => None,
    }
}

fn models(config: &Value, providers: &Value, model: Option<&str>) -> Vec<Offered> {
    let configured = config.get("provider").is_some_and(|all| all.get(BUILT_IN).is_some());
    let configured = configured || model.and_then(split).is_some_and(|model| model.provider == BUILT_IN);
    let mut models = Vec::new();
    for provider in providers.get("providers").map_or(&[][..], list) {
        let Some(id) = text(provider, "id") else { continue };
        // `custom` means that nobody logged in to it.
        if id == BUILT_IN && !configured && text(provider, "source") == Some("custom") {
            continue;
        }
        let provider_name = text(provider, "name").unwrap_or(id);
        for (name, info) in provider.get("models").and_then(Value::as_object).into_iter().flatten() {
            let model = Model { provider: id.to_owned(), model: name.clone() };
            let context =
                info.get("limit").and_then(|limit| limit.get("context")?.as_f64()).filter(|size| *size >= 1.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
            let context = context.map(|size| size as u64);
            let name = format!("{provider_name}: {}", text(info, "name").unwrap_or(name));
            models.push(Offered { model, name, context });
        }
    }
    models.truncate(MAX_MODELS);
    models
}

fn mode(agent: &Value) -> Option<Mode> {
    let takes_prompts = matches!(text(agent, "mode"), Some("primary" | "all"));
    let hidden = agent.get("hidden").and_then(Value::as_bool).unwrap_or(false);
    let model = agent.get("model").and_then(|model| {
        let (provider, model) = (text(model, "providerID")?.to_owned(), text(model, "modelID")?.to_owned());
        Some(Model { provider, model })
    });
    let name = text(agent, "name").filter(|_| takes_prompts && !hidden)?.to_owned();
    Some(Mode { name, description: text(agent, "description").map(str::to_owned), model })
}

/// `provider/model`: the provider is what stands before the first `/`.
fn split(id: &str) -> Option<Model> {
    let (provider, model) = id.split_once('/')?;
    Some(Model { provider: provider.to_owned(), model: model.to_owned() })
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers() -> Value {
        json!({"default": {"opencode": "free", "a": "two", "b": "x/y"}, "providers": [
            {"id": "opencode", "source": "custom", "models": {"free": {}}},
            {"id": "a", "name": "A", "source": "config", "models": {
                "one": {"name": "One", "limit": {"context": 1000}}, "two": {}}},
            {"id": "b", "source": "env", "models": {"two": {}, "x/y": {}, "only": {}}}]})
    }

    fn settings(config: Value, configured: Option<&str>) -> Settings {
        let agents = json!([{"name": "build", "mode": "primary"}, {"name": "title", "mode": "primary", "hidden": true},
            {"name": "sub", "mode": "subagent"}, {"name": "plan", "mode": "primary", "description": "p"},
            {"name": "mine", "mode": "all", "model": {"providerID": "b", "modelID": "only"}}]);
        let commands = json!([{"name": "init", "description": "d", "template": "long"}]);
        Settings::read(&config, &providers(), &agents, &commands, configured)
    }

    fn id(model: Result<Model, (&'static str, String)>) -> String {
        model.map_or_else(|(code, message)| format!("{code}: {message}"), |model| model.id())
    }

    #[test]
    fn models_are_found_with_and_without_their_provider() {
        let all = settings(json!({"model": "a/one"}), None);
        for (asked, expected) in [
            (None, "a/one"),
            (Some(""), "a/one"),
            (Some("two"), "a/two"),
            (Some("b/two"), "b/two"),
            (Some("b/x/y"), "b/x/y"),
            (Some("x/y"), "b/x/y"),
            (Some("only"), "b/only"),
        ] {
            assert_eq!(id(all.model_for(asked, Some("build"))), expected, "{asked:?}");
        }
        assert_eq!(id(all.model_for(None, Some("mine"))), "b/only");
        let missing = id(all.model_for(Some("opencode/free"), None));
        assert!(missing.starts_with("model_not_found: there is no model `opencode/free`; the agent offers `a/one`, "));
        let one = Model { provider: "a".into(), model: "one".into() };
        assert_eq!((all.context_of(&one), all.models().len()), (Some(1000), 5));
        assert_eq!(all.models()[0]["name"], "A: One");
    }

    #[test]
    fn the_built_in_provider_is_offered_only_where_it_was_configured() {
        assert_eq!(settings(json!({}), None).default_model().as_deref(), Some("a/two"));
        assert_eq!(id(settings(json!({}), Some("opencode/free")).model_for(None, None)), "opencode/free");
        assert_eq!(settings(json!({"provider": {"opencode": {}}}), None).models().len(), 6);
        let none = Settings::read(&json!({}), &json!({}), &json!([]), &json!([]), None);
        assert!(id(none.model_for(None, None)).starts_with("agent_unavailable: no provider"));
        let gone = settings(json!({"model": "gone/x"}), None);
        assert!(id(gone.model_for(None, None)).contains("`gone/x`"));
    }

    #[test]
    fn modes_are_agents_that_take_prompts_and_plan_is_kept() {
        let all = settings(json!({"default_agent": "mine"}), None);
        let mode = |asked, permission| all.mode_for(asked, Some("build"), permission).map_err(|(code, _)| code);
        let some = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(mode(None, "default"), some("build"));
        assert_eq!(all.mode_for(None, None, "default").unwrap().as_deref(), Some("mine"));
        assert_eq!((mode(None, "plan"), mode(Some("plan"), "default")), (some("plan"), some("plan")));
        assert_eq!(mode(Some("build"), "plan"), Err("invalid_permission_mode"));
        assert_eq!(
            (mode(Some("sub"), "default"), mode(Some("title"), "default")),
            (Err("model_not_found"), Err("model_not_found"))
        );
        let AgentEvent::Mode { mode, modes } = all.mode_event(Some("plan")) else { panic!("a mode") };
        assert_eq!(
            (mode.as_deref(), modes.as_array().map(Vec::len), &modes[1]["description"]),
            (Some("plan"), Some(3), &json!("p"))
        );
        assert_eq!(all.commands_event(), AgentEvent::Commands(json!([{"name": "init", "description": "d"}])));
    }

    #[test]
    fn permission_modes_answer_what_they_may() {
        let reply = |mode, permission| ready_reply(mode, permission).map(|reply| reply["reply"].clone());
        assert_eq!(
            (reply("default", "bash"), reply("plan", "edit"), reply("accept_edits", "bash")),
            (None, None, None)
        );
        assert_eq!(
            (reply("accept_edits", "edit"), reply("bypass", "bash")),
            (Some(json!("once")), Some(json!("once")))
        );
        assert_eq!(reply("dont_ask", "edit"), Some(json!("reject")));
    }
}
