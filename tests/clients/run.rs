//! Runs a client's script to its end.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::gateway::PATIENCE;

/// Where a set of `scripts/clients` is. It must be there: a test that is left out unseen would prove nothing.
pub fn set(name: &str) -> PathBuf {
    let folder = std::env::var_os("GREENROOM_TEST_CLIENTS").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/greenroom-clients"));
    let set = folder.join(name);
    assert!(set.exists(), "{name} is not in {}: run scripts/clients", folder.display());
    set
}

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a script of the repository with Node and the packages of a set, in a folder and an environment of its own.
/// Returns what it printed on stdout; a script that fails is a test that fails, with all that it said.
pub async fn node(packages: &str, script: &str, arguments: &[&str]) -> String {
    node_within(PATIENCE, packages, script, arguments).await
}

/// The same for a script that has much to do.
pub async fn node_within(limit: Duration, packages: &str, script: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("package.json"), r#"{"private": true, "type": "module"}"#).unwrap();
    std::os::unix::fs::symlink(set(packages).join("node_modules"), folder.path().join("node_modules")).unwrap();
    let name = Path::new(script).file_name().unwrap();
    std::fs::copy(file(script), folder.path().join(name)).unwrap();
    let mut command = Command::new("node");
    command.arg(name).args(arguments).current_dir(folder.path());
    within(limit, command, folder.path(), &[]).await
}

/// Runs a script of the repository with Python and the packages of a set.
#[allow(dead_code, reason = "not every state of this folder has a client from PyPI")]
pub async fn python(packages: &str, script: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(set(packages).join("bin/python"));
    command.arg(file(script)).args(arguments).current_dir(folder.path());
    to_its_end(command, folder.path(), &[]).await
}

/// Runs a program in an environment of its own, and returns what it printed on stdout.
pub async fn to_its_end(command: Command, home: &Path, settings: &[(&str, String)]) -> String {
    within(PATIENCE, command, home, settings).await
}

async fn within(limit: Duration, mut command: Command, home: &Path, settings: &[(&str, String)]) -> String {
    let path = std::env::var_os("PATH").unwrap();
    command.env_clear().env("PATH", path).env("HOME", home).stdin(Stdio::null()).kill_on_drop(true);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output.unwrap_or_else(|_late| panic!("{command:?}: not over in {limit:?}")).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}
