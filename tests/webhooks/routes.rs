//! What an operator does with routes: the configuration, the examples, `greenroom webhook test`.

use std::process::Output;

use crate::{
    door::{self, Door, SHARED, example},
    gateway::str_of,
};

fn check(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("greenroom.toml");
    std::fs::write(&file, text).unwrap();
    door::greenroom(&file, arguments, &[])
}

#[test]
fn a_mistake_in_a_route_stops_the_start_with_one_line() {
    for (text, expected) in [
        ("[webhooks.a]\nverify = \"github\"\n", "webhooks.a.secret"),
        (
            "[webhooks.a]\nverify = \"github\"\nsecret_env = \"NOPE\"\n",
            "webhooks.a.secret_env: the environment has no NOPE",
        ),
        ("[webhooks.a]\nverify = \"none\"\ntext = \"{{ a\"\n", "webhooks.a.text"),
        ("[webhooks.a]\nverify = \"none\"\nwhem = \"a\"\n", "whem"),
        ("[webhooks.a]\nverify = \"gitlab\"\n", "gitlab"),
        ("[server]\nbind = \"0.0.0.0:0\"\n[webhooks.a]\nverify = \"none\"\n", "webhooks.a.verify"),
        ("[webhooks.a]\nverify = \"none\"\nagent = \"nobody\"\n", "webhooks.a.agent"),
    ] {
        for arguments in [&["config", "check"][..], &["serve", "--data-dir", "/nonexistent/greenroom"]] {
            let output = check(text, arguments);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}\n{stderr}");
            assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{text}\n{stderr}");
        }
    }
    assert_eq!(check("[webhooks.a]\nverify = \"none\"\n", &["config", "check"]).status.code(), Some(0));
    let data = tempfile::tempdir().unwrap();
    let nobody = "[server]\nbind = \"127.0.0.1:0\"\n[webhooks.a]\nverify = \"none\"\nowner = \"nobody\"\n";
    let output = check(nobody, &["serve", "--data-dir", data.path().to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("greenroom user create nobody"), "{stderr}");
    let printed = check("[webhooks.a]\nverify = \"secret\"\nsecret = \"hunter2\"\n", &["config", "print"]);
    assert!(printed.status.success() && !String::from_utf8(printed.stdout).unwrap().contains("hunter2"));
}

/// What comes of an example as it is.
struct Example {
    name: &'static str,
    route: &'static str,
    variable: &'static str,
    headers: &'static [&'static str],
    session: &'static str,
    text: &'static str,
}

const EXAMPLES: &[Example] = &[
    Example {
        name: "plain",
        route: "ci",
        variable: "CI_WEBHOOK_SECRET",
        headers: &[],
        session: "webhook:ci:nightly",
        text: "The nightly build failed: 3 tests of 912.",
    },
    Example {
        name: "github-issue-comment",
        route: "github",
        variable: "GITHUB_WEBHOOK_SECRET",
        headers: &["x-github-event:issue_comment"],
        session: "webhook:github:acme@@2fsite:17",
        text: "bob commented on \"The build is red\" (https://github.com/acme/site/issues/17#issuecomment-99262140):\n\n\
               Since yesterday. Can you have a look?",
    },
    Example {
        name: "slack",
        route: "slack",
        variable: "SLACK_SIGNING_SECRET",
        headers: &[],
        session: "webhook:slack:T061EG9R6:C123ABC456:1515449522.000016",
        text: "<@U0LAN0Z89> is the deployment done?",
    },
    Example {
        name: "alertmanager",
        route: "alerts",
        variable: "ALERTMANAGER_WEBHOOK_SECRET",
        headers: &[],
        session: "webhook:alerts:DiskFull",
        text: "2 firing:\n\n- DiskFull on db1:9100 since 2026-01-05T10:30:00Z: /var is 98 % full\n\
               - DiskFull on ? since 2026-01-05T10:31:00Z:",
    },
];

#[tokio::test]
async fn the_examples_work_as_they_are() {
    for Example { name, route, variable, headers, session, text } in EXAMPLES {
        let config = example(&format!("{name}.toml"));
        let file = example(&format!("{name}.json"));
        let secret = if *route == "ci" { door::STANDARD } else { SHARED };
        let door = Door::with(&std::fs::read_to_string(&config).unwrap(), &[(variable, secret)]);
        let run = |more: &[&str]| {
            let headers: Vec<&str> = headers.iter().flat_map(|header| ["--header", *header]).collect();
            let arguments = [&["webhook", "test", route, file.to_str().unwrap()], headers.as_slice(), more].concat();
            let output = door::greenroom(&config, &arguments, &[(variable, secret)]);
            let (stdout, stderr) =
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            (output.status.code(), stdout, stderr)
        };
        let dry = run(&["--dry-run"]);
        assert_eq!(dry, (Some(0), format!("session  {session}\nowner    local\n\n{text}\n"), String::new()), "{name}");
        assert_eq!(door.sessions().await, 0, "nothing was sent");
        let url = door.server.url("");
        let (status, stdout, stderr) = run(&["--url", &url, "--wait", "60"]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{name}: {stdout}");
        let answer: serde_json::Value = serde_json::from_str(stdout.strip_prefix("200\n").unwrap()).unwrap();
        assert_eq!((str_of(&answer["turn"], "session"), str_of(&answer["turn"], "text")), (*session, *text), "{name}");
    }
}

#[tokio::test]
async fn a_test_that_is_refused_fails() {
    let door = Door::open();
    let file = door.folder.path().join("body.json");
    std::fs::write(&file, r#"{"text":"x","session_key":"main"}"#).unwrap();
    let url = door.server.url("");
    let code = |arguments: &[&str]| {
        let output = door.greenroom(&[&["webhook", "test"], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let file = file.to_str().unwrap();
    let (status, said) = code(&["ci", file, "--url", &url]);
    assert!(status == Some(1) && said.starts_with("403\n") && said.contains("session_not_allowed"), "{said}");
    let (status, said) = code(&["ci", file, "--dry-run"]);
    assert!(status == Some(1) && said.contains("session_not_allowed"), "{said}");
    let (status, said) = code(&["nobody", file]);
    assert!(status == Some(2) && said.contains("[webhooks.nobody]"), "{said}");
    assert_eq!(code(&["ci", "/nonexistent"]).0, Some(2));
    assert_eq!(code(&["ci", file, "--url", "http://127.0.0.1:1"]).0, Some(3));
}
