//! Inbound webhooks, signed by the libraries of others: Standard Webhooks from npm and PyPI, GitHub's own from npm.

use serde_json::Value;

use crate::{
    gateway::{TestGateway, str_of},
    run::{file, node, python},
};

const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const GITHUB: &str = "It's a secret to everybody";

fn server(folder: &tempfile::TempDir) -> TestGateway {
    let example = std::fs::read_to_string(file("examples/webhooks/github-issue-comment.toml")).unwrap();
    let plain = std::fs::read_to_string(file("examples/webhooks/plain.toml")).unwrap();
    let config = folder.path().join("greenroom.toml");
    std::fs::write(&config, example + &plain).unwrap();
    TestGateway::with(&[
        ("GREENROOM_CONFIG", config.to_str().unwrap()),
        ("CI_WEBHOOK_SECRET", STANDARD),
        ("GITHUB_WEBHOOK_SECRET", GITHUB),
        ("GREENROOM_CALLERS__WRONG_CREDENTIALS", "0"),
    ])
}

/// What a client printed: a status and a body.
#[track_caller]
fn answer(printed: &str) -> (u16, Value) {
    let (status, body) = printed.trim().split_once(' ').unwrap_or_else(|| panic!("{printed}"));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn senders_of_other_makers_are_believed() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder);
    let (ci, github) = (server.url("/webhooks/ci"), server.url("/webhooks/github"));
    let payload = file("examples/webhooks/github-issue-comment.json");
    let payload = payload.to_str().unwrap();
    let wrong = "whsec_plJ3nmyCDGBKInavdOK15jsl3ZYOEzmSpl3B1YH2WpE=";

    let senders = [
        ("npm", node("webhooks", "tests/clients/standard-webhook.mjs", &[&ci, STANDARD, "msg_1", "npm"]).await),
        ("pypi", python("py-webhooks", "tests/clients/standard_webhook.py", &[&ci, STANDARD, "msg_2", "pypi"]).await),
    ];
    for (name, printed) in &senders {
        let (status, body) = answer(printed);
        assert_eq!((status, str_of(&body["turn"], "session")), (202, format!("webhook:ci:{name}").as_str()));
    }
    let forged = [
        node("webhooks", "tests/clients/standard-webhook.mjs", &[&ci, wrong, "msg_3", "npm"]).await,
        python("py-webhooks", "tests/clients/standard_webhook.py", &[&ci, wrong, "msg_4", "pypi"]).await,
        node("webhooks", "tests/clients/github-webhook.mjs", &[&github, "guess", payload]).await,
    ];
    for printed in &forged {
        let (status, body) = answer(printed);
        assert_eq!((status, str_of(&body["error"], "code")), (401, "invalid_signature"));
    }
    let (status, body) =
        answer(&node("webhooks", "tests/clients/github-webhook.mjs", &[&github, GITHUB, payload]).await);
    assert_eq!((status, str_of(&body["turn"], "session")), (202, "webhook:github:acme@@2fsite:17"));
    assert!(str_of(&body["turn"], "text").ends_with("Can you have a look?"), "{body}");
}

#[tokio::test]
async fn the_example_of_github_works_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder);
    let send = async |delivery: &str| {
        let mut command = tokio::process::Command::new("node");
        command.arg(file("examples/github-webhook/send.mjs")).arg(server.url("/webhooks/github"));
        command
            .arg(file("examples/webhooks/github-issue-comment.json"))
            .env("SECRET", GITHUB)
            .env("DELIVERY", delivery);
        let output = crate::gateway::in_time("the example", command.output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        answer(&String::from_utf8(output.stdout).unwrap()).1["turn"]["id"].clone()
    };
    let first = send("72d3162e-cc78-11e3-81ab-4c9367dc0958").await;
    assert_eq!(send("72d3162e-cc78-11e3-81ab-4c9367dc0958").await, first, "sent again by GitHub");
    assert_ne!(send("72d3162e-cc78-11e3-81ab-4c9367dc0959").await, first);
}
