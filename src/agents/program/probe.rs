//! Whether a program could run: finds its program and asks for its version. Never opens a conversation.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::Program;
use crate::agents::{
    Probe,
    process::{self, SpawnError, Unrecorded},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Programs that run others: their version is not the agent's.
const LAUNCHERS: [&str; 10] = ["node", "npx", "bun", "bunx", "deno", "python3", "uvx", "sh", "bash", "env"];

/// The file that would run; else what is missing.
pub(super) fn find(program: &Program) -> Result<PathBuf, Probe> {
    let env = process::environment(&program.config.pass_env, &program.config.env);
    let name = program.config.command.first().map(String::as_str).unwrap_or_default();
    process::find_program(name, &env).ok_or_else(|| {
        let reason = program.unavailable(&SpawnError::NotFound(name.to_owned()));
        Probe { reason: Some(reason), ..Probe::default() }
    })
}

pub(super) async fn probe(program: &Program) -> Probe {
    let path = match find(program) {
        Ok(path) => path,
        Err(missing) => return missing,
    };
    let mut spawn = program.spawn(Vec::new(), "", std::env::temp_dir(), Arc::new(Unrecorded));
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if LAUNCHERS.contains(&file) {
        return Probe { available: true, ..Probe::default() };
    }
    spawn.args = vec!["--version".into()];
    match process::first_line(spawn, PATIENCE).await {
        Ok(line) => Probe { available: true, version: line.as_deref().and_then(version), ..Probe::default() },
        Err(error) => Probe { reason: Some(program.unavailable(&error)), ..Probe::default() },
    }
}

/// The word that looks like a version, as in `codex-acp 0.16.0`.
fn version(line: &str) -> Option<String> {
    let looks = |word: &&str| {
        word.len() <= 40 && word.contains('.') && word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())
    };
    line.split_whitespace().find(looks).map(|word| word.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_is_found_in_the_line() {
        assert_eq!(version("0.61.0").as_deref(), Some("0.61.0"));
        assert_eq!(version("tool v2.1.330 (build 7)").as_deref(), Some("2.1.330"));
        assert_eq!(version("Usage: tool [OPTIONS]"), None);
    }
}
