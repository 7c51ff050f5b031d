//! The tools that `scripts/tools` installs.

use std::{path::PathBuf, process::Command};

use crate::gateway::TestGateway;

/// Where they are. They must be there: a test that is left out unseen would prove nothing.
pub fn folder() -> PathBuf {
    let folder = std::env::var_os("GREENROOM_TEST_TOOLS").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/greenroom-tools"));
    for tool in ["node", "schemathesis"] {
        assert!(folder.join(tool).exists(), "{tool} is not in {}: run scripts/tools", folder.display());
    }
    folder
}

/// Runs a command to its end; its output is what explains a failure.
pub fn must_succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// A new token, made on the command line.
pub fn token(server: &TestGateway, user: &str, scopes: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(["token", "create", "--user", user, "--scopes", scopes, "--data-dir"]).arg(server.data_dir());
    let output = command.env_clear().env("HOME", server.data_dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
