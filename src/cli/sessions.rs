//! `greenroom sessions`: a page of sessions as a table or as JSON.

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
use crate::{protocol::Snapshot, timestamp::Timestamp};

/// Arguments of `sessions`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Print the snapshots as JSON
    #[arg(long)]
    json: bool,
    /// How many, newest first
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Those after this session id
    #[arg(long, value_name = "ID")]
    after: Option<crate::ids::SessionId>,
    /// Archived ones instead of the others
    #[arg(long)]
    archived: bool,
    /// Only those with a turn that runs or waits
    #[arg(long)]
    busy: bool,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Value>,
    has_more: bool,
    last_id: Option<String>,
}

impl Arguments {
    fn path(&self) -> String {
        let mut path = format!("/v1/sessions?limit={}", self.limit);
        if let Some(after) = self.after {
            path += &format!("&after={after}");
        }
        if self.archived {
            path += "&archived=true";
        }
        if self.busy {
            path += "&busy=true";
        }
        path
    }
}

/// Prints the page.
///
/// # Errors
/// See [`ClientError`].
pub async fn run(client: Client, arguments: Arguments) -> Result<ExitCode, ClientError> {
    let page: Page = client.get(&arguments.path()).await?;
    if arguments.json {
        terminal::print(&format!("{:#}\n", Value::Array(page.data)))?;
    } else {
        let wrong = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        let sessions: Vec<Snapshot> =
            page.data.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(wrong)?;
        terminal::print(&render(&sessions, Timestamp::now()))?;
    }
    if let Some(last) = page.last_id.filter(|_| page.has_more) {
        terminal::note(&format!("[there are more: --after {last}]"));
    }
    Ok(ExitCode::SUCCESS)
}

fn render(sessions: &[Snapshot], now: Timestamp) -> String {
    let row = |session: &Snapshot| {
        let state = match &session.current_turn {
            Some(turn) => turn.state.as_str(),
            None if session.archived => "archived",
            None if session.busy => "busy",
            None => "idle",
        };
        vec![
            session.key.to_string(),
            first_line(&session.agent, 30),
            state.to_owned(),
            session.queue_depth.to_string(),
            session.message_count.to_string(),
            ago(now, session.last_active_at),
            first_line(&session.title, 30),
            first_line(session.last_message_preview.as_deref().unwrap_or_default(), 50),
        ]
    };
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    table(&["KEY", "AGENT", "STATE", "QUEUE", "MESSAGES", "ACTIVE", "TITLE", "LAST MESSAGE"], &rows)
}

/// How long ago, in the largest unit that fits.
fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot() -> Value {
        json!({"key": "web:alice", "id": crate::ids::SessionId::new(), "title": "untitled", "owner": "local",
            "visibility": "private", "org_id": null, "agent": "echo", "model": null, "mode": null,
            "permission_mode": "default", "profile": null, "project_id": null, "metadata": {}, "archived": false,
            "archived_at": null, "primary": false, "created_at": "2025-11-21T14:00:00.000Z",
            "updated_at": "2025-11-21T14:00:00.000Z", "last_active_at": "2025-11-21T14:00:00.000Z",
            "message_count": 12, "last_message_preview": "one\ntwo", "busy": true, "queue_depth": 2, "live": true,
            "subscribers": 3, "last_seq": 118, "current_turn": null, "agent_status": "working",
            "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": null, "context_used": null, "context_max": null}})
    }

    #[test]
    fn a_row_tells_what_a_session_does() {
        let session: Snapshot = serde_json::from_value(snapshot()).unwrap();
        let now = session.last_active_at.plus(std::time::Duration::from_secs(7200));
        let expected = "\
KEY        AGENT  STATE  QUEUE  MESSAGES  ACTIVE   TITLE     LAST MESSAGE
web:alice  echo   busy   2      12        2 h ago  untitled  one…
";
        assert_eq!(render(&[session], now), expected);
    }

    #[test]
    fn the_filters_reach_the_server() {
        let remote = Remote { url: String::new(), token_file: None };
        let arguments = Arguments { json: true, limit: 5, after: None, archived: true, busy: true, remote };
        assert_eq!(arguments.path(), "/v1/sessions?limit=5&archived=true&busy=true");
    }
}
