//! Whether a program could run: finds its program and asks for its version. Never opens a conversation.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::Program;
use crate::{
    agents::{
        Probe, ProcessLedger,
        process::{self, SpawnError},
    },
    config::known,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Programs that run a script: its version is the agent's.
const INTERPRETERS: [&str; 4] = ["node", "bun", "python", "python3"];
/// Programs that run others, or fetch them first: their version is not the agent's.
const LAUNCHERS: [&str; 8] = ["npx", "bunx", "pnpx", "deno", "uvx", "sh", "bash", "env"];

/// The file that would run; else what is missing.
pub(super) fn find(program: &Program) -> Result<PathBuf, Probe> {
    let env = process::environment(&program.config.pass_env, &program.config.env);
    let name = program.config.command.first().map(String::as_str).unwrap_or_default();
    process::find_program(name, &env).ok_or_else(|| {
        let reason = program.unavailable(&SpawnError::NotFound(name.to_owned()));
        Probe { reason: Some(reason), ..Probe::default() }
    })
}

pub(super) async fn probe(program: &Program, processes: Arc<dyn ProcessLedger>) -> Probe {
    let path = match find(program) {
        Ok(path) => path,
        Err(missing) => return missing,
    };
    let found = Probe { available: true, login: login(program), ..Probe::default() };
    let mut spawn = program.spawn(Vec::new(), "", std::env::temp_dir(), processes);
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if INTERPRETERS.contains(&file) {
        // The program is the script; of other words after an interpreter nobody knows what they do.
        let Some(script) = spawn.args.first().filter(|word| word.contains('/')).cloned() else { return found };
        if !Path::new(&script).is_file() {
            let reason = format!("`{script}` not found; install it or set agents.{}.command", program.name);
            return Probe { reason: Some(reason), ..Probe::default() };
        }
        spawn.args = vec![script, "--version".into()];
    } else if LAUNCHERS.contains(&file) {
        return found;
    } else {
        spawn.args = vec!["--version".into()];
    }
    match process::first_line(spawn, PATIENCE).await {
        Ok(line) => Probe { version: line.as_deref().and_then(version), ..found },
        Err(error) => Probe { reason: Some(program.unavailable(&error)), ..Probe::default() },
    }
}

/// How to log in, when neither a key nor a file with credentials is there. Whether they are good, only the agent knows:
/// nothing is read.
fn login(program: &Program) -> Option<String> {
    let config = &program.config;
    let known = known::find(&program.name).filter(|known| config.kind == Some(known.kind))?;
    let env = process::environment(&config.pass_env, &config.env);
    let has_key = known.keys.iter().any(|name| env.get(*name).is_some_and(|value| !value.is_empty()));
    let home = Path::new(env.get("HOME")?);
    // An empty file, or an empty object, is what some leave when they have none.
    let has_file = known.credentials.iter().any(|file| home.join(file).metadata().is_ok_and(|file| file.len() > 3));
    (!has_key && !has_file).then(|| known.login.to_owned())
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
