//! The Vercel AI SDK, from its oldest release with this protocol to the newest of each major: transport and reader in Node,
//! and `useChat` in a browser.

use std::net::TcpListener;

use crate::{gateway::TestGateway, run};

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

/// A page with `useChat` of one version, in a browser.
async fn page(packages: &str, version: &str) {
    // Free when it was asked for; the driver takes it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let origins = format!("[\"http://127.0.0.1:{port}\"]");
    let server = TestGateway::with(&[("GREENROOM_SERVER__ALLOWED_ORIGINS", &origins)]);
    let (page, packages) = (run::file("tests/clients/use_chat.jsx"), run::set(packages));
    let url = server.url("");
    let arguments = [&url, &port, page.to_str().unwrap(), packages.to_str().unwrap(), version];
    let told = run::node("page", "tests/clients/use_chat.mjs", &arguments).await;
    assert!(told.contains("ok 8 cuts") && told.contains("ok stopping"), "{told}");
    server.assert_quiet();
}

#[tokio::test]
async fn use_chat_of_the_oldest_release() {
    page("use-chat-5.0.0", "5.0.0").await;
}

#[tokio::test]
async fn use_chat_of_5() {
    page("use-chat-5", "5").await;
}

#[tokio::test]
async fn use_chat_of_6() {
    page("use-chat-6", "6").await;
}

#[tokio::test]
async fn use_chat_of_7() {
    page("use-chat-7", "7").await;
}
