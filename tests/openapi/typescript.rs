//! A TypeScript client that is generated from the description compiles and completes a turn.

use std::{path::Path, process::Command};

use crate::{gateway::TestGateway, tools};

/// Generates the types, compiles `client.ts` against them and runs it.
async fn client(server: &TestGateway, token: Option<&str>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = tools::folder().join("node/node_modules");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("openapi.json"), server.get("/openapi.json").await.text).unwrap();
    std::fs::write(folder.path().join("package.json"), r#"{"private": true, "type": "module"}"#).unwrap();
    std::fs::copy(root.join("tests/openapi/client.ts"), folder.path().join("client.ts")).unwrap();
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules")).unwrap();
    let address = server.url("");
    let token = token.map(str::to_owned);
    let steps = move || {
        let run = |program: &str, arguments: &[&str]| {
            let mut command =
                Command::new(if program == "node" { "node".into() } else { modules.join(".bin").join(program) });
            tools::must_succeed(command.args(arguments).current_dir(folder.path()))
        };
        run("openapi-typescript", &["openapi.json", "--output", "api.d.ts"]);
        let compile = [
            "--strict",
            "--target",
            "es2022",
            "--module",
            "esnext",
            "--moduleResolution",
            "bundler",
            "--types",
            "node",
        ];
        run("tsc", &[&compile[..], &["--skipLibCheck", "false", "client.ts"]].concat());
        let arguments: Vec<&str> = ["client.js", &address].into_iter().chain(token.as_deref()).collect();
        run("node", &arguments)
    };
    tokio::task::spawn_blocking(steps).await.unwrap()
}

#[tokio::test]
async fn a_generated_client_completes_a_turn() {
    let server = TestGateway::start();
    assert_eq!(client(&server, None).await.trim(), "completed");
    server.assert_quiet();
}

#[tokio::test]
async fn a_generated_client_completes_a_turn_with_a_token() {
    let server = TestGateway::start();
    let token = tools::token(&server, "alice", "read,write");
    assert_eq!(client(&server, Some(&token)).await.trim(), "completed");
    server.assert_quiet();
}
