//! Models, modes and policies: what is on offer, what is in force, and what a turn must say to get what it asks for.
//! Pure.
//!
//! What a turn overrides stays in force for the turns after it, also over a restart. So each turn says everything that
//! is to be other than it is, and one that asks for nothing special gets back what was there before.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What the commands of a turn may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sandbox {
    ReadOnly,
    WorkspaceWrite,
    Full,
}

/// Who is asked, and what may be touched without asking.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy {
    pub(super) approval: Value,
    pub(super) sandbox: Sandbox,
}

/// What the user's own configuration of Codex says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Own {
    pub(super) model: Option<String>,
    approval: Option<Value>,
    sandbox: Option<Sandbox>,
    /// `sandbox_workspace_write`
    workspace: Value,
}

/// What a turn is to run with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) model: Option<String>,
    /// A collaboration mode.
    pub(super) mode: String,
    pub(super) policy: Policy,
}

/// What is in force in the thread; what is not known is said again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct InForce {
    pub(super) model: Option<String>,
    pub(super) mode: Option<String>,
    effort: Value,
    approval: Value,
    sandbox: Value,
}

/// A skill, which is called like a slash command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skill {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) path: String,
}

impl Sandbox {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "read-only" | "readOnly" | ":read-only" => Self::ReadOnly,
            "workspace-write" | "workspaceWrite" | ":workspace" => Self::WorkspaceWrite,
            "danger-full-access" | "dangerFullAccess" | ":danger-full-access" => Self::Full,
            _ => return None,
        })
    }

    /// As `thread/start` and `thread/resume` take it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
            Self::Full => "danger-full-access",
        }
    }
}

impl Own {
    /// Reads the `config` of `config/read`.
    pub(super) fn read(config: &Value) -> Self {
        let text = |field: &str| config.get(field).and_then(Value::as_str);
        Self {
            model: text("model").map(str::to_owned),
            approval: config.get("approval_policy").filter(|policy| !policy.is_null()).cloned(),
            sandbox: text("sandbox_mode").or_else(|| text("default_permissions")).and_then(Sandbox::parse),
            workspace: config.get("sandbox_workspace_write").cloned().unwrap_or_default(),
        }
    }

    /// The policies of a permission mode.
    ///
    /// `default` asks before every command that is not known to be harmless, or as the user has configured, but not
    /// less than that: for more freedom there are the other modes. `plan` can change nothing and asks for nothing.
    pub(super) fn policy(&self, permission_mode: &str, allow_bypass: bool) -> Option<Policy> {
        let workspace = self.sandbox.filter(|sandbox| allow_bypass || *sandbox != Sandbox::Full);
        let workspace = workspace.unwrap_or(Sandbox::WorkspaceWrite);
        let policy = |approval: &str, sandbox| Some(Policy { approval: approval.into(), sandbox });
        match permission_mode {
            "accept_edits" => policy("on-request", Sandbox::WorkspaceWrite),
            "plan" => policy("never", Sandbox::ReadOnly),
            "dont_ask" => policy("never", workspace),
            "bypass" => allow_bypass.then(|| Policy { approval: "never".into(), sandbox: Sandbox::Full }),
            _ => {
                let asks = |policy: &&Value| policy.is_object() || **policy == "on-request" || **policy == "untrusted";
                let approval = self.approval.as_ref().filter(asks).cloned().unwrap_or_else(|| "untrusted".into());
                Some(Policy { approval, sandbox: workspace })
            }
        }
    }

    /// A sandbox as `turn/start` takes it, with what the user has configured for it.
    fn sandbox_policy(&self, sandbox: Sandbox) -> Value {
        let own = |field: &str, otherwise: Value| match self.workspace.get(field) {
            Some(value) if !value.is_null() => value.clone(),
            _ => otherwise,
        };
        match sandbox {
            Sandbox::ReadOnly => json!({"type": "readOnly"}),
            Sandbox::Full => json!({"type": "dangerFullAccess"}),
            Sandbox::WorkspaceWrite => json!({
                "type": "workspaceWrite",
                "writableRoots": own("writable_roots", json!([])),
                "networkAccess": own("network_access", false.into()),
                "excludeTmpdirEnvVar": own("exclude_tmpdir_env_var", false.into()),
                "excludeSlashTmp": own("exclude_slash_tmp", false.into()),
            }),
        }
    }
}

impl InForce {
    /// Reads the result of `thread/start` or `thread/resume`, or the `threadSettings` of an update.
    pub(super) fn read(settings: &Value) -> Self {
        let field = |name: &str| settings.get(name).filter(|value| !value.is_null()).cloned();
        let mode = settings.get("collaborationMode").and_then(|mode| mode.get("mode")?.as_str());
        Self {
            model: settings.get("model").and_then(Value::as_str).map(str::to_owned),
            // A new thread is in its default and does not say so.
            mode: Some(mode.unwrap_or("default").to_owned()),
            effort: field("effort").or_else(|| field("reasoningEffort")).unwrap_or_default(),
            approval: field("approvalPolicy").unwrap_or_default(),
            sandbox: field("sandboxPolicy").or_else(|| field("sandbox")).unwrap_or_default(),
        }
    }

    fn sandbox(&self) -> Option<Sandbox> {
        Sandbox::parse(self.sandbox.get("type")?.as_str()?)
    }

    /// A collaboration mode with this model. The reasoning effort stays as it is, so it has to be named.
    pub(super) fn collaboration(&self, mode: &str, model: &str) -> Value {
        let settings = json!({"model": model, "reasoning_effort": self.effort, "developer_instructions": null});
        json!({"mode": mode, "settings": settings})
    }

    /// What `turn/start` must say so that this comes into force.
    pub(super) fn overrides(&self, wanted: &Wanted, own: &Own) -> Map<String, Value> {
        let mut said = Map::new();
        if wanted.policy.approval != self.approval {
            said.insert("approvalPolicy".into(), wanted.policy.approval.clone());
        }
        if Some(wanted.policy.sandbox) != self.sandbox() {
            said.insert("sandboxPolicy".into(), own.sandbox_policy(wanted.policy.sandbox));
        }
        let model = wanted.model.as_ref().or(self.model.as_ref());
        match model {
            Some(model) if self.mode.as_ref() != Some(&wanted.mode) => {
                said.insert("collaborationMode".into(), self.collaboration(&wanted.mode, model));
            }
            Some(model) if self.model.as_ref() != Some(model) => {
                said.insert("model".into(), model.as_str().into());
            }
            _ => {}
        }
        said
    }
}

/// The models for [`crate::agents::Opened`]; the one in use leads where the list does not know it, as with a provider
/// of the user's own.
pub(super) fn models(list: &[Value], current: Option<&str>) -> Vec<BTreeMap<String, Value>> {
    let entry = |id: &str, name: &str| BTreeMap::from([("id".to_owned(), id.into()), ("name".to_owned(), name.into())]);
    let listed = list.iter().filter_map(|model| {
        let id = model.get("model").or_else(|| model.get("id"))?.as_str()?;
        Some(entry(id, model.get("displayName").and_then(Value::as_str).unwrap_or(id)))
    });
    let mut models: Vec<_> = listed.collect();
    if let Some(current) =
        current.filter(|current| !models.iter().any(|model| model.get("id").is_some_and(|id| id == *current)))
    {
        models.insert(0, entry(current, current));
    }
    models
}

/// The model that the list marks as the default.
pub(super) fn default_model(list: &[Value]) -> Option<&str> {
    let marked = |model: &&Value| model.get("isDefault").and_then(Value::as_bool) == Some(true);
    list.iter().find(marked)?.get("model")?.as_str()
}

/// The collaboration modes as they are told: codex's own entries with an `id`.
pub(super) fn modes(list: &Value) -> Vec<Value> {
    let data = list.get("data").and_then(Value::as_array).into_iter().flatten();
    let with_id = |mode: &Value| {
        let mut mode = mode.clone();
        let id = mode.get("mode")?.as_str()?.to_owned();
        mode.as_object_mut()?.insert("id".into(), id.into());
        Some(mode)
    };
    data.filter_map(with_id).collect()
}

/// The skills of `skills/list` that are switched on.
pub(super) fn skills(list: &Value) -> Vec<Skill> {
    let data = list.get("data").and_then(Value::as_array).into_iter().flatten();
    let skills = data.filter_map(|entry| entry.get("skills")?.as_array()).flatten();
    let read = |skill: &Value| {
        let text = |field: &str| skill.get(field).and_then(Value::as_str).map(str::to_owned);
        let enabled = skill.get("enabled").and_then(Value::as_bool) != Some(false);
        let description = text("shortDescription").or_else(|| text("description")).unwrap_or_default();
        Some(Skill { name: text("name")?, description, path: text("path")? }).filter(|_| enabled)
    };
    skills.filter_map(read).collect()
}

/// The slash commands: `/compact`, and the skills.
pub(super) fn commands(skills: &[Skill]) -> Value {
    let compact = json!({"name": "compact", "description": "Summarise the conversation, so that it takes less room"});
    let skills = skills.iter().map(|skill| json!({"name": skill.name, "description": skill.description}));
    std::iter::once(compact).chain(skills).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(config: Value) -> Own {
        Own::read(&config)
    }

    fn policy(config: Value, mode: &str, allow_bypass: bool) -> Option<(Value, Sandbox)> {
        own(config).policy(mode, allow_bypass).map(|policy| (policy.approval, policy.sandbox))
    }

    #[test]
    fn permission_modes_become_policies() {
        use Sandbox::{Full, ReadOnly, WorkspaceWrite};
        let none = || json!({});
        assert_eq!(policy(none(), "default", false), Some((json!("untrusted"), WorkspaceWrite)));
        assert_eq!(policy(none(), "accept_edits", false), Some((json!("on-request"), WorkspaceWrite)));
        assert_eq!(policy(none(), "plan", true), Some((json!("never"), ReadOnly)));
        assert_eq!(policy(none(), "dont_ask", false), Some((json!("never"), WorkspaceWrite)));
        assert_eq!(policy(none(), "bypass", true), Some((json!("never"), Full)));
        assert_eq!(policy(none(), "bypass", false), None);
    }

    #[test]
    fn the_users_own_settings_count_unless_they_allow_more_than_the_mode() {
        use Sandbox::{Full, ReadOnly, WorkspaceWrite};
        let careful = json!({"approval_policy": "on-request", "sandbox_mode": "read-only"});
        assert_eq!(policy(careful.clone(), "default", false), Some((json!("on-request"), ReadOnly)));
        assert_eq!(policy(careful, "dont_ask", false), Some((json!("never"), ReadOnly)));
        let profile = json!({"default_permissions": ":read-only"});
        assert_eq!(policy(profile, "default", false), Some((json!("untrusted"), ReadOnly)));
        let bold = json!({"approval_policy": "never", "sandbox_mode": "danger-full-access"});
        assert_eq!(policy(bold.clone(), "default", false), Some((json!("untrusted"), WorkspaceWrite)));
        assert_eq!(policy(bold, "default", true), Some((json!("untrusted"), Full)));
    }

    #[test]
    fn a_turn_says_what_is_to_be_other_than_it_is() {
        let own = own(json!({"sandbox_workspace_write": {"network_access": true, "writable_roots": ["/more"]}}));
        let started = json!({"model": "m", "reasoningEffort": "high", "approvalPolicy": "untrusted",
            "sandbox": {"type": "workspaceWrite"}});
        let normal =
            Wanted { model: Some("m".into()), mode: "default".into(), policy: own.policy("default", false).unwrap() };
        let mut in_force = InForce::read(&started);
        assert_eq!(in_force.overrides(&normal, &own), Map::new());
        let plan = Wanted { mode: "plan".into(), policy: own.policy("plan", false).unwrap(), ..normal.clone() };
        let said = Value::Object(in_force.overrides(&plan, &own));
        let settings = json!({"model": "m", "reasoning_effort": "high", "developer_instructions": null});
        assert_eq!(
            said,
            json!({"approvalPolicy": "never", "sandboxPolicy": {"type": "readOnly"},
            "collaborationMode": {"mode": "plan", "settings": settings}})
        );
        in_force = InForce::read(&json!({"model": "m", "effort": "high", "approvalPolicy": "never",
            "sandboxPolicy": {"type": "readOnly"}, "collaborationMode": {"mode": "plan"}}));
        let back = in_force.overrides(&normal, &own);
        assert_eq!(back["sandboxPolicy"]["writableRoots"], json!(["/more"]));
        assert_eq!(
            (&back["sandboxPolicy"]["networkAccess"], &back["collaborationMode"]["mode"]),
            (&json!(true), &json!("default"))
        );
        let other = Wanted { model: Some("n".into()), ..normal };
        assert_eq!(Value::Object(InForce::read(&started).overrides(&other, &own)), json!({"model": "n"}));
        // What is not known is said.
        assert_eq!(InForce::default().overrides(&other, &own).len(), 3);
    }

    #[test]
    fn lists_are_read_leniently() {
        let list = [json!({"id": "a-id", "model": "a", "displayName": "A", "isDefault": true}), json!({"id": "b"})];
        let told = |current| serde_json::to_value(models(&list, current)).unwrap();
        assert_eq!(told(Some("a")), json!([{"id": "a", "name": "A"}, {"id": "b", "name": "b"}]));
        assert_eq!(told(Some("own"))[0], json!({"id": "own", "name": "own"}));
        assert_eq!(default_model(&list), Some("a"));
        let modes = modes(&json!({"data": [{"name": "Plan", "mode": "plan"}, {"name": "?", "mode": null}]}));
        assert_eq!(modes, [json!({"id": "plan", "name": "Plan", "mode": "plan"})]);
        let skill = |name: &str, enabled| json!({"name": name, "description": "d", "path": "/p", "enabled": enabled});
        let skills = skills(&json!({"data": [{"skills": [skill("on", true), skill("off", false), {"name": 1}]}]}));
        assert_eq!(skills, [Skill { name: "on".into(), description: "d".into(), path: "/p".into() }]);
        assert_eq!(commands(&skills)[1], json!({"name": "on", "description": "d"}));
    }
}
