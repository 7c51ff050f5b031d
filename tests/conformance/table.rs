//! What each agent can do, as measured: every cell that is not `yes`, with the reason that lies in the agent. The
//! scenarios hold each cell to it, both ways; the table in `docs/agents.md` is made of it.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use crate::{
    scenarios::{SCENARIOS, Scenario, Went},
    subject::Subject,
};

/// Cells that are not `yes`: agents, scenario, what is seen, and the reason where something is missing.
type Row = (&'static [&'static str], &'static str, Went, &'static str);

#[rustfmt::skip]
const CELLS: &[Row] = &[
    (&["claude", "codex", "opencode", "pi", "qwen", "claude-acp", "codex-acp", "opencode-acp"], "agent_killed", Went::As("native"), ""),
    (&["claude", "codex", "opencode", "pi", "qwen", "claude-acp", "codex-acp", "opencode-acp"], "server_killed", Went::As("native"), ""),
    (&["gemini"], "agent_killed", Went::As("replayed"), ""),
    (&["gemini", "openai"], "server_killed", Went::As("replayed"), ""),
    (&["codex"], "question", Went::As("in plan mode"), ""),
    (&["qwen", "opencode-acp"], "error_429", Went::As("stall limit"), ""),
    (&["qwen", "opencode-acp"], "error_500", Went::As("stall limit"), ""),

    (&["pi"], "tool_allowed", Went::Without("permissions"), "pi has no permissions: its tools run at once."),
    (&["pi"], "tool_rejected", Went::Without("permissions"), "pi has no permissions: its tools run at once."),
    (&["pi"], "allow_always", Went::Without("permissions"), "pi has no permissions: its tools run at once."),
    (&["pi"], "cancel_asking", Went::Without("permissions"), "pi has no permissions: its tools run at once."),
    (&["pi"], "question", Went::Without("questions"), "pi has no tool for questions."),
    (&["pi"], "mode_switch", Went::Without("modes"), "pi has no modes."),
    (&["pi"], "commands", Went::Without("commands"), "pi lists the commands of its extensions, prompts and skills; by itself it has none."),
    (&["gemini"], "question", Went::Without("questions"), "gemini-cli takes its question tool away when it is driven over ACP."),
    (&["codex-acp"], "question", Went::Without("questions"), "codex-acp offers its question tool in a collaboration mode that it does not let clients choose."),
    (&["codex-acp"], "plan", Went::Without("a plan mode"), "codex-acp offers no mode that only plans; the turn fails rather than change something."),
    (&["codex-acp"], "usage", Went::Without("tokens"), "codex-acp tells how full the context is, and no tokens."),
    (&["opencode-acp"], "question", Went::Without("questions"), "opencode offers its question tool to its own clients, not over ACP."),
    (&["opencode-acp"], "usage", Went::Without("all calls of a turn"), "opencode acp tells the tokens of the last model call of a turn only."),
    (&["opencode-acp"], "error_401", Went::Without("what to do"), "opencode acp passes on the provider's words without the status, so the turn fails with them alone."),
    (&["openai"], "commands", Went::Without("commands"), "An endpoint has no slash commands."),
    (&["openai"], "tool_allowed", Went::Without("tools"), "An endpoint is given no tools."),
    (&["openai"], "tool_rejected", Went::Without("tools"), "An endpoint is given no tools."),
    (&["openai"], "allow_always", Went::Without("tools"), "An endpoint is given no tools."),
    (&["openai"], "cancel_asking", Went::Without("tools"), "An endpoint is given no tools."),
    (&["openai"], "question", Went::Without("questions"), "An endpoint is given no tools."),
    (&["openai"], "steer", Went::Without("steering"), "One request is one turn: a text becomes the next turn."),
    (&["openai"], "mode_switch", Went::Without("modes"), "An endpoint has no modes."),
    (&["openai"], "agent_killed", Went::Without("a process"), "An endpoint is no process of Greenroom's."),
];

/// Adapters that are not part of this build yet.
const PENDING: &[&str] = &[];

/// Where the table begins and ends in the document.
const BEGIN: &str =
    "<!-- made by tests/conformance: GREENROOM_WRITE_DOCS=1 cargo test --test conformance the_table -->\n";
const END: &str = "<!-- end of what is made -->\n";

/// What must be seen; none while the adapter is not there.
pub fn expected(subject: Subject, scenario: &str) -> Option<Went> {
    if PENDING.contains(&subject.name()) {
        return None;
    }
    Some(row(subject, scenario).map_or(Went::Well, |(_, _, went, _)| *went))
}

fn row(subject: Subject, scenario: &str) -> Option<&'static Row> {
    CELLS.iter().find(|(agents, name, ..)| agents.contains(&subject.name()) && *name == scenario)
}

/// The versions that `scripts/agents` installs, by package.
fn versions() -> BTreeMap<String, String> {
    let script = std::fs::read_to_string(root().join("scripts/agents")).unwrap();
    let packages = script.lines().filter_map(|line| line.trim().rsplit_once('@'));
    let packages = packages.filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
    packages.map(|(package, version)| (package.to_owned(), version.to_owned())).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The table, in Markdown.
fn table() -> String {
    let subjects: Vec<Subject> = Subject::all().collect();
    let versions = versions();
    let mut text = "| agent | driven by | package | version |\n|---|---|---|---|\n".to_owned();
    for subject in &subjects {
        let package = subject.package();
        let version = package.map_or("", |package| versions[package].as_str());
        let package = package.map_or_else(|| "built in".to_owned(), |package| format!("`{package}`"));
        writeln!(text, "| {} | `{}` | {package} | {version} |", subject.name(), subject.kind()).unwrap();
    }
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name()).collect();
    writeln!(text, "\n| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len())).unwrap();
    let mut reasons: Vec<&str> = Vec::new();
    for Scenario { name, what, .. } in SCENARIOS {
        write!(text, "| {what} |").unwrap();
        for subject in &subjects {
            let cell = match (expected(*subject, name), row(*subject, name)) {
                (None, _) => "pending".to_owned(),
                (Some(Went::Well), _) | (_, None) => "yes".to_owned(),
                (Some(Went::As(how)), _) => how.to_owned(),
                (Some(Went::Without(_)), Some((.., reason))) => {
                    let known = reasons.iter().position(|known| known == reason);
                    let at = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("no [{}]", at + 1)
                }
            };
            write!(text, " {cell} |").unwrap();
        }
        text.push('\n');
    }
    text.push('\n');
    for (at, reason) in reasons.iter().enumerate() {
        writeln!(text, "{}. {reason}", at + 1).unwrap();
    }
    text
}

#[test]
fn the_table_in_the_documents_is_what_the_scenarios_hold() {
    let file = root().join("docs/agents.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("docs/agents.md has lost its mark");
    let (_, after) = rest.split_once(END).expect("docs/agents.md has lost its mark");
    let made = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("GREENROOM_WRITE_DOCS").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let document = std::fs::read_to_string(&file).unwrap();
    assert!(document == made, "docs/agents.md is not what the suite makes: run it with GREENROOM_WRITE_DOCS=1");
}

#[test]
fn every_cell_names_agents_and_scenarios_that_there_are() {
    for (agents, scenario, went, reason) in CELLS {
        assert!(SCENARIOS.iter().any(|known| known.name == *scenario), "{scenario}");
        for agent in *agents {
            assert!(Subject::all().any(|subject| subject.name() == *agent), "{agent}");
        }
        assert_eq!(matches!(went, Went::Without(_)), !reason.is_empty(), "{agents:?} {scenario}");
    }
}
