//! schemathesis against a server: every call with data that fits and data that does not, by examples, borders, chance,
//! and in sequences; all checks on.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{gateway::TestGateway, tools};

/// Cases by chance for each call; more with `GREENROOM_SCHEMATHESIS_EXAMPLES`.
const EXAMPLES: &str = "30";

/// The same where the data was tried without a token already.
const FEW_EXAMPLES: &str = "5";

/// The same cases in every run, so that a red run is about the change; others with `GREENROOM_SCHEMATHESIS_SEED`.
const SEED: &str = "1";

/// A text that is too long is refused with 413, as a body is.
const SETTINGS: &str = r#"
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"#;

/// Runs it. With a token all calls have it, and the description says that none goes without.
async fn run(server: &TestGateway, token: Option<&str>, examples: &str) -> String {
    let mut document = server.get("/openapi.json").await.ok(200);
    if token.is_some() {
        without_open_mode(&mut document);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), SETTINGS).unwrap();

    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let mut command = Command::new(tools::folder().join("schemathesis/bin/schemathesis"));
    command.current_dir(folder.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path());
    command.env("PYTHONPATH", hooks).env("PYTHONDONTWRITEBYTECODE", "1").env("SCHEMATHESIS_HOOKS", "hooks");
    command.arg("run").arg(&file).args(["--url", &server.url("/")]);
    let setting = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let (examples, seed) =
        (setting("GREENROOM_SCHEMATHESIS_EXAMPLES", examples), setting("GREENROOM_SCHEMATHESIS_SEED", SEED));
    command.args([
        "--checks",
        "all",
        "--max-examples",
        &examples,
        "--seed",
        &seed,
        "--request-timeout",
        "30",
        "--no-color",
    ]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing,stateful",
        "--continue-on-failure",
        "--output-truncate",
        "false",
    ]);
    // Sockets are no calls; `frames.rs` has them. Logins and their tokens need a browser.
    command.args(["--exclude-path-regex", "ws$|/login$|/logout$|/me/tokens", "--generation-database", "none"]);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]).env("GREENROOM_TEST_TOKEN", token);
    }
    let output = tokio::task::spawn_blocking(move || tools::must_succeed(&mut command)).await.unwrap();
    // Quiet, but for what it means to say: a call that it could not make would be worth a look.
    println!("{output}");
    output
}

/// Takes the alternative of open mode, no credentials at all, out of every call.
fn without_open_mode(document: &mut Value) {
    let items = document["paths"].as_object_mut().unwrap().values_mut();
    for call in items.flat_map(|item| item.as_object_mut().unwrap().values_mut()) {
        call["security"].as_array_mut().unwrap().retain(|alternative| *alternative != json!({}));
    }
}

fn server() -> TestGateway {
    TestGateway::with(&[
        // It tries wrong credentials on every call and wants to hear that they are wrong.
        ("GREENROOM_CALLERS__WRONG_CREDENTIALS", "0"),
        ("GREENROOM_AGENTS__ECHO__KIND", "echo"),
        ("GREENROOM_AGENTS__ECHO__ALLOW_BYPASS", "true"),
        // What is asked is answered at once or not at all: no call waits behind it.
        ("GREENROOM_CHOICE__TIMEOUT", "3s"),
    ])
}

fn all_phases_ran(report: &str) {
    for phase in ["Examples", "Coverage", "Fuzzing", "Stateful"] {
        assert!(report.contains(&format!("✅ {phase}")), "{phase} did not run:\n{report}");
    }
}

#[tokio::test]
async fn schemathesis_finds_nothing_in_open_mode() {
    let server = server();
    all_phases_ran(&run(&server, None, EXAMPLES).await);
    server.assert_quiet();
}

/// The same with the token of an admin; calls without it, or with a wrong one, are made too and must be refused.
#[tokio::test]
async fn schemathesis_finds_nothing_with_a_token() {
    let server = server();
    let token = tools::token(&server, "root", "admin");
    all_phases_ran(&run(&server, Some(&token), FEW_EXAMPLES).await);
    server.assert_quiet();
}
