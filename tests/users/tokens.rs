//! Tokens: the first one ends open mode, each does what its scopes say, and none outlives its end.

use serde_json::{Value, json};

use crate::{
    gateway::{Sse, TestGateway, eventually, str_of, text},
    people::{House, greenroom, token, token_id, try_greenroom},
};

#[tokio::test]
async fn the_first_token_ends_open_mode_while_the_server_runs() {
    let mut server = TestGateway::start();
    server.run("old", text("hi")).await;
    let mut stream = Sse::open(&server, "/v1/sessions/old/events?after=0").await;
    let alice = token(&server, "alice", "read,write");
    // The command has returned, so it is in force.
    server.get("/v1/me").await.refused(401, "missing_credentials");
    server.get("/v1/sessions").await.refused(401, "missing_credentials");
    let end = stream.until_type("stream.end").await;
    assert_eq!(end["data"], json!({"reason": "credentials_revoked", "retry": false}));
    let me = server.send(server.request("GET", "/v1/me").bearer_auth(&alice)).await.ok(200);
    assert_eq!(
        (&me["user"], &me["mode"], &me["scopes"]),
        (&json!("alice"), &json!("token"), &json!(["read", "write"]))
    );
    // What was made before belongs to `local`: no other user sees it, and whoever gets a token for `local` does.
    let old = |token: String| server.request("GET", "/v1/sessions/old").bearer_auth(token);
    server.send(old(alice.clone())).await.refused(404, "session_not_found");
    let local = token(&server, "local", "read");
    assert_eq!(server.send(old(local)).await.ok(200)["owner"], "local");
    // And it stays so: a revoked last token opens nothing.
    for line in greenroom(&server, &["token", "list"]).lines().skip(1) {
        greenroom(&server, &["token", "revoke", line.split_whitespace().next().unwrap()]);
    }
    server.get("/v1/me").await.refused(401, "missing_credentials");
    server.kill9();
    server.restart();
    server.get("/v1/me").await.refused(401, "missing_credentials");
    server.send(server.request("GET", "/v1/me").bearer_auth(&alice)).await.refused(401, "invalid_credentials");
    server.get("/health").await.ok(200);
}

#[tokio::test]
async fn wrong_credentials_are_told_from_missing_ones() {
    let house = House::new();
    let server = &house.server;
    let me = || server.request("GET", "/v1/me");
    let missing = server.send(me()).await;
    missing.refused(401, "missing_credentials");
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"greenroom\"");
    let cut = &house.alice[..house.alice.len() - 1];
    for bad in
        ["gr_x".to_owned(), String::new(), cut.to_owned(), format!("{}x", house.alice), house.alice.to_uppercase()]
    {
        let reply = server.send(me().bearer_auth(&bad)).await;
        reply.refused(401, "invalid_credentials");
        assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""), "{:?}", reply.headers);
    }
    server.send(me().basic_auth("alice", Some(&house.alice))).await.refused(401, "invalid_credentials");
    let scope = house.post(&token(server, "alice", "read"), "/v1/sessions", json!({})).await;
    assert_eq!(scope.refused(403, "missing_scope")["scope"], "write");
    assert!(scope.header("www-authenticate").contains("insufficient_scope"), "{:?}", scope.headers);
}

#[tokio::test]
async fn tokens_expire_and_disabled_users_are_out() {
    let house = House::new();
    let short = greenroom(
        &house.server,
        &["token", "create", "--user", "bob", "--scopes", "read", "--expires", "1500ms", "--label", "short"],
    );
    let short = short.trim().to_owned();
    eventually("its end", || async {
        let reply = house.get(&short, "/v1/me").await;
        (reply.status == 401).then(|| reply.refused(401, "invalid_credentials"))
    })
    .await;
    house.get(&house.bob, "/v1/me").await.ok(200);
    greenroom(&house.server, &["user", "disable", "bob"]);
    house.get(&house.bob, "/v1/me").await.refused(401, "invalid_credentials");
    assert!(!try_greenroom(&house.server, &["token", "create", "--user", "bob"]).status.success());
    greenroom(&house.server, &["user", "enable", "bob"]);
    house.get(&house.bob, "/v1/me").await.ok(200);
}

#[tokio::test]
async fn the_command_line_keeps_the_books() {
    let house = House::new();
    let list: Value = serde_json::from_str(&greenroom(&house.server, &["token", "list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);
    let id = token_id(&house, &house.carol).await;
    let table = greenroom(&house.server, &["token", "list", "--user", "carol"]);
    assert!(table.contains(&id) && table.contains("live") && table.lines().count() == 2, "{table}");
    for secret in [&house.alice, &house.bob, &house.carol, &house.root] {
        assert!(!list.to_string().contains(secret.as_str()) && !table.contains(secret.as_str()));
    }
    greenroom(&house.server, &["token", "revoke", &id]);
    assert!(greenroom(&house.server, &["token", "list", "--user", "carol"]).contains("revoked"));
    greenroom(&house.server, &["user", "create", "dora"]);
    assert!(greenroom(&house.server, &["user", "list"]).contains("dora"));
    let orgs: Value = serde_json::from_str(&greenroom(&house.server, &["org", "list", "--json"])).unwrap();
    assert_eq!(orgs, json!([{"name": "acme", "members": ["alice", "bob"]}]));
    for (wrong, status) in [
        (&["user", "create", "dora"][..], 1),
        (&["user", "create", "a b"], 2),
        (&["user", "disable", "nobody"], 1),
        (&["token", "create", "--user", "x", "--scopes", "root"], 2),
        (&["token", "revoke", "tok_x"], 2),
        (&["org", "add", "nowhere", "alice"], 1),
        (&["org", "add", "acme", "nobody"], 1),
        (&["org", "remove", "acme", "carol"], 1),
    ] {
        let output = try_greenroom(&house.server, wrong);
        assert_eq!(output.status.code(), Some(status), "{wrong:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{wrong:?}: {output:?}");
    }
}

#[tokio::test]
async fn the_clients_of_the_command_line_take_a_token() {
    let house = House::new();
    let url = format!("http://{}", house.server.address());
    let run = |environment: Vec<(&str, String)>, arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(arguments).env_clear().env("HOME", house.server.data_dir()).env("GREENROOM_URL", &url);
        command.envs(environment).output().unwrap()
    };
    let none = run(vec![], &["send", "k", "hi"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("missing_credentials"), "{none:?}");
    let sent = run(vec![("GREENROOM_TOKEN", house.alice.clone())], &["send", "k", "hi"]);
    assert!(sent.status.success() && String::from_utf8_lossy(&sent.stdout).contains("hi"), "{sent:?}");
    let file = house.server.data_dir().join("token");
    std::fs::write(&file, format!("{}\n", house.alice)).unwrap();
    let listed = run(vec![], &["sessions", "--token-file", file.to_str().unwrap()]);
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains('k'), "{listed:?}");
    let agents = run(vec![("GREENROOM_TOKEN_FILE", file.display().to_string())], &["agents"]);
    assert!(agents.status.success(), "{agents:?}");
    let missing = run(vec![], &["agents", "--token-file", "/nowhere"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    let owner = house.get(&house.alice, "/v1/sessions/k").await.ok(200);
    assert_eq!(str_of(&owner, "owner"), "alice");
}

#[tokio::test]
async fn other_addresses_than_loopback_need_a_token_first() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(arguments).arg("--data-dir").arg(dir.path()).env_clear().env("HOME", dir.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let refused = run(&["--bind", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("token create"), "{refused:?}");
    assert!(run(&["token", "create", "--user", "a"]).output().unwrap().status.success());
    let mut child = run(&["--bind", "0.0.0.0:0"]).spawn().unwrap();
    let line = tokio::task::spawn_blocking(move || {
        use std::io::BufRead as _;
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.filter(|line| line.contains("http://0.0.0.0:")).find(|line| line.contains("address"));
        child.kill().unwrap();
        child.wait().unwrap();
        address
    });
    assert!(line.await.unwrap().is_some(), "it starts with a token");
}
