//! The document itself: served to anybody, kept in the repository, free of faults.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{gateway::TestGateway, tools};

#[tokio::test]
async fn the_kept_copy_is_what_is_served() {
    let server = TestGateway::start();
    let reply = server.get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json")).unwrap();
    assert!(kept == reply.text, "docs/openapi.json is old: cargo run -- openapi > docs/openapi.json");

    let printed = Command::new(env!("CARGO_BIN_EXE_greenroom")).arg("openapi").output().unwrap();
    assert!(printed.status.success() && printed.stdout == reply.text.as_bytes());

    let document = reply.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    server.assert_quiet();
}

/// Whoever reads the description finds every code of the table, and knows in which calls to expect it.
#[tokio::test]
async fn every_code_is_described() {
    let server = TestGateway::start();
    let document = server.get("/openapi.json").await.json();
    let known: Vec<&Value> =
        document["components"]["schemas"]["ErrorCode"]["oneOf"].as_array().unwrap().iter().collect();
    for code in greenroom::error::Code::ALL {
        assert!(known.iter().any(|known| known["const"] == code.as_str()), "{}", code.as_str());
    }
    assert_eq!(known.len(), greenroom::error::Code::ALL.len());
}

#[test]
fn a_linter_finds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spectral = tools::folder().join("node/node_modules/.bin/spectral");
    let mut command = Command::new(spectral);
    command.args(["lint", "docs/openapi.json", "--ruleset", "tests/openapi/spectral.yaml", "--fail-severity", "warn"]);
    tools::must_succeed(command.current_dir(root));
}
