//! The Vercel AI SDK, from its oldest release with this protocol to the newest of each major: transport and reader in Node,
//! and `useChat` in a browser.

use std::{net::TcpListener, time::Duration};

use crate::{
    gateway::{TestGateway, in_time},
    run,
};

/// All scenarios of `ui_message.mjs` with one version of the package.
async fn transport(packages: &str, version: &str) {
    let server = TestGateway::start();
    let told = run::node(packages, "tests/clients/ui_message.mjs", &[&server.url(""), version]).await;
    assert_eq!(told.lines().filter(|line| line.starts_with("ok ")).count(), 13, "{told}");
    server.assert_quiet();
}

#[tokio::test]
async fn the_oldest_release() {
    transport("use-chat-5.0.0", "5.0.0").await;
}

#[tokio::test]
async fn the_newest_5() {
    transport("use-chat-5", "5").await;
}

#[tokio::test]
async fn the_newest_6() {
    transport("use-chat-6", "6").await;
}

#[tokio::test]
async fn the_newest_7() {
    transport("use-chat-7", "7").await;
}

#[tokio::test]
async fn the_example() {
    let server = TestGateway::start();
    let arguments =
        [&server.url(""), "web:alice", "/script {\"tool\": {\"name\": \"bash\"}, \"text\": \"Hello there\"}"];
    let told = run::node("use-chat-6", "examples/use-chat/chat.mjs", &arguments).await;
    assert_eq!(told, "[bash: output-available]\nHello there\n");
}
