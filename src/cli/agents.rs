//! `greenroom agents`: what a running server found, as a table or as JSON.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{
    client::{Client, ClientError},
    options::Remote,
    table::table,
    terminal::{self, first_line},
};

/// Arguments of `agents`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Deserialize)]
struct List {
    data: Vec<Value>,
}

/// Prints the agents.
///
/// # Errors
/// See [`ClientError`].
pub async fn run(client: Client, arguments: Arguments) -> Result<ExitCode, ClientError> {
    let list: List = client.get("/v1/agents").await?;
    let text = if arguments.json { format!("{:#}\n", Value::Array(list.data)) } else { render(&list.data) };
    terminal::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn render(agents: &[Value]) -> String {
    let row = |agent: &Value| {
        let text = |name: &str| first_line(agent.get(name).and_then(Value::as_str).unwrap_or_default(), 200);
        let available = agent.get("available").and_then(Value::as_bool).unwrap_or(false);
        let models = agent.get("models").and_then(Value::as_array).map_or(0, Vec::len);
        let models = if models == 0 { String::new() } else { models.to_string() };
        let available = if available { "yes" } else { "no" }.to_owned();
        let note = match (text("reason"), text("login")) {
            (reason, login) if reason.is_empty() && !login.is_empty() => format!("no credentials seen: {login}"),
            (reason, _) => reason,
        };
        vec![text("id"), text("kind"), available, text("version"), models, note]
    };
    let rows: Vec<Vec<String>> = agents.iter().map(row).collect();
    table(&["ID", "KIND", "AVAILABLE", "VERSION", "MODELS", "WHAT TO DO"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_tells_whether_an_agent_could_run() {
        let agents = [
            json!({"id": "echo", "kind": "echo", "available": true, "version": null, "models": [], "reason": null}),
            json!({"id": "codex", "kind": "acp", "available": false, "models": ["a", "b"], "reason": "not found\nx"}),
        ];
        let expected = "\
ID     KIND  AVAILABLE  VERSION  MODELS  WHAT TO DO
echo   echo  yes
codex  acp   no                  2       not found…
";
        assert_eq!(render(&agents), expected);
    }
}
