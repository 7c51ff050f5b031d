//! The modes of an agent, out of the lists in which agents give them. Pure.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A mode that an agent can be in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AgentMode")]
pub struct Mode {
    /// What `mode` of a session or turn takes.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

impl Mode {
    /// Reads a list as agents give it: entries with `id`, or `value` as options of a setting have it, maybe in groups.
    #[must_use]
    pub fn read(list: &Value) -> Vec<Self> {
        let entries = list.as_array().into_iter().flatten();
        let flat = entries.flat_map(|entry| match entry.get("options").and_then(Value::as_array) {
            Some(group) => group.as_slice(),
            None => std::slice::from_ref(entry),
        });
        let mode = |entry: &Value| {
            let text = |field: &str| entry.get(field)?.as_str().map(str::to_owned);
            let id = text("id").or_else(|| text("value"))?;
            Some(Self { name: text("name").unwrap_or_else(|| id.clone()), id })
        };
        flat.filter_map(mode).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn modes_are_read_out_of_every_form_of_list() {
        let mode = |id: &str, name: &str| Mode { id: id.into(), name: name.into() };
        let plain = json!([{"id": "plan", "name": "Plan"}, {"id": "build"}, {"name": "no id"}, 7]);
        assert_eq!(Mode::read(&plain), [mode("plan", "Plan"), mode("build", "build")]);
        let options = json!([{"value": "a", "name": "A"}, {"name": "Group", "options": [{"value": "b"}]}]);
        assert_eq!(Mode::read(&options), [mode("a", "A"), mode("b", "b")]);
        assert_eq!((Mode::read(&json!(null)), Mode::read(&json!({"id": "x"}))), (vec![], vec![]));
    }
}
