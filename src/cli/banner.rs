//! The block that `serve` prints at its start. Pure: facts in, text out.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use crate::{
    agents::process::{environment, find_program},
    config::{AgentConfig, AgentKind, Config, known, shown},
};

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody on this machine, without credentials.
    Open,
    /// Whoever has a token.
    Token,
}

/// What the block tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BannerFacts {
    /// Where the server listens: the port that it got, not the one that it asked for.
    pub address: SocketAddr,
    /// The database, without its password; see [`shown::database`].
    pub database: String,
    /// Where data lives.
    pub data_dir: PathBuf,
    /// Agents by name with what they are, the default one first.
    pub agents: Vec<(String, String)>,
    /// Who may call.
    pub access: Access,
}

impl BannerFacts {
    /// The facts of a configuration. Agents are those that are configured, and those that are known and have their program
    /// on the `PATH`: none is started or asked.
    #[must_use]
    pub fn new(config: &Config, address: SocketAddr, access: Access) -> Self {
        let default = config.default_agent();
        let alternative = |name: &str| known::find(name).is_some_and(|known| known.alternative);
        let shown = config.agents.iter().filter(|(name, agent)| {
            agent.configured || *name == default || (is_installed(agent) && !alternative(name))
        });
        let mut agents: Vec<_> = shown.map(|(name, agent)| (name.clone(), describe(agent))).collect();
        if !config.agents.contains_key("echo") {
            agents.push(("echo".into(), "built in, repeats what you say".into()));
        }
        agents.sort_by_key(|(name, _)| (name != default, name.clone()));
        let database = shown::database(config.database_url().expose());
        Self { address, database, data_dir: config.data_dir(), agents, access }
    }
}

fn describe(agent: &AgentConfig) -> String {
    let model = agent.model.as_ref().map(|model| format!(", model {model}")).unwrap_or_default();
    match agent.kind {
        None | Some(AgentKind::Echo) => "built in, repeats what you say".into(),
        Some(AgentKind::Openai) => format!("{}{model}", shown::endpoint(agent.base_url.as_deref().unwrap_or_default())),
        Some(_) if is_installed(agent) => format!("{}{model}", agent.command.join(" ")),
        Some(_) => format!("{}{model} (not found: see `greenroom agents`)", agent.command.join(" ")),
    }
}

fn is_installed(agent: &AgentConfig) -> bool {
    let program = agent.command.first().map(String::as_str).unwrap_or_default();
    find_program(program, &environment(&agent.pass_env, &agent.env)).is_some()
}

/// The block: about ten lines, ending with a line to try.
#[must_use]
pub fn banner(facts: &BannerFacts) -> String {
    let url = format!("http://{}", facts.address);
    let mut out = format!("Greenroom {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<9} {text}");
    };
    line("address", &url);
    line("database", &facts.database);
    line("data", &facts.data_dir.display().to_string());
    let width = facts.agents.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (index, (name, what)) in facts.agents.iter().enumerate() {
        let default = if index == 0 { " (default)" } else { "" };
        line(if index == 0 { "agents" } else { "" }, &format!("{name:<width$}  {what}{default}"));
    }
    let access = match facts.access {
        Access::Open => "open: everybody on this machine may call, nobody else can",
        Access::Token => "token: calls need `Authorization: Bearer gr_…`",
    };
    line("access", access);
    let token = match facts.access {
        Access::Open => "",
        Access::Token => " \\\n    -H \"authorization: Bearer $GREENROOM_TOKEN\"",
    };
    let _ = write!(
        out,
        "\nTry it:\n\n  curl -N {url}/v1/sessions/hello/messages{token} \\\n    -H 'content-type: application/json' \
         -H 'accept: text/event-stream' \\\n    -d '{{\"text\":\"Hello!\"}}'\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_tells_where_what_and_how() {
        let mut config: Config = toml::from_str(
            "data_dir = \"/srv/g\"\n[session]\ndefault_agent = \"local\"\n\
             [store]\nurl = \"postgres://me:hunter2@db/g?password=hunter2&sslmode=require\"\n\
             [agents.local]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:8080/v1\"\nmodel = \"qwen3\"\n\
             [agents.codex]\nkind = \"acp\"\ncommand = [\"codex-acp\", \"-c\", \"x\"]\n",
        )
        .unwrap();
        let address = "127.0.0.1:4910".parse().unwrap();
        let text = banner(&BannerFacts::new(&config, address, Access::Open));
        let expected = "\
Greenroom 0.1.0

  address   http://127.0.0.1:4910
  database  postgres://me:***@db/g?password=***&sslmode=require
  data      /srv/g
  agents    local  http://127.0.0.1:8080/v1, model qwen3 (default)
            codex  codex-acp -c x (not found: see `greenroom agents`)
            echo   built in, repeats what you say
  access    open: everybody on this machine may call, nobody else can

Try it:

  curl -N http://127.0.0.1:4910/v1/sessions/hello/messages \\
    -H 'content-type: application/json' -H 'accept: text/event-stream' \\
    -d '{\"text\":\"Hello!\"}'
";
        assert_eq!(text, expected.replace("0.1.0", env!("CARGO_PKG_VERSION")));

        config.store.url = None;
        let text = banner(&BannerFacts::new(&config, address, Access::Token));
        assert!(text.contains("database  sqlite:/srv/g/greenroom.db\n"), "{text}");
        assert!(text.contains("$GREENROOM_TOKEN") && text.contains("access    token"), "{text}");
    }
}
