//! Finding agents, and what happens where one is missing.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use crate::gateway::{
    TestGateway, eventually, play,
    process::tools,
    text,
    wire::{of_type, said},
};

/// Makes a program that tells this version.
fn install(folder: &Path, name: &str, version: &str) {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A server with a folder on its `PATH` that a test can install agents into.
fn server_with(folder: &Path, more: &[(&str, &str)]) -> TestGateway {
    let path = format!("{}:{}", folder.display(), tools().display());
    TestGateway::with(&[&[("PATH", path.as_str())], more].concat())
}

async fn agent(server: &TestGateway, id: &str) -> Option<Value> {
    let agents = server.get("/v1/agents").await.ok(200);
    agents["data"].as_array().unwrap().iter().find(|agent| agent["id"] == id).cloned()
}

/// The entry once it was looked for.
async fn looked_for(server: &TestGateway, id: &str) -> Value {
    let found = eventually(id, async || {
        let found = agent(server, id).await?;
        (found["reason"] != "not looked for yet").then_some(found)
    });
    found.await
}

#[tokio::test]
async fn a_program_that_is_there_and_does_not_answer_is_told_to_whoever_runs_the_server() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "claude", "");
    std::fs::write(folder.path().join("claude"), "#!/bin/sh\nexec sleep 600\n").unwrap();
    let server = server_with(folder.path(), &[]);
    let claude = looked_for(&server, "claude").await;
    assert_eq!(claude["available"], false);
    let ready = server.get("/ready").await.ok(200);
    assert_eq!(ready["agents"]["claude"], "did not answer within 10s: look again, or try it by hand", "{ready}");
    assert_eq!(ready["agents"]["codex"], Value::Null, "{ready}");
}

#[tokio::test]
async fn what_is_installed_is_found_and_what_is_not_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "claude", "9.8.7 (Claude Code)");
    let server = server_with(folder.path(), &[]);
    let claude = looked_for(&server, "claude").await;
    assert_eq!(
        (&claude["available"], &claude["version"], &claude["kind"]),
        (&json!(true), &json!("9.8.7"), &json!("claude"))
    );
    assert!(claude["reason"].is_null() && claude["login"].as_str().unwrap().contains("/login"), "{claude}");
    let codex = looked_for(&server, "codex").await;
    assert_eq!(codex["available"], false);
    assert!(codex["reason"].as_str().unwrap().contains("npm install -g @openai/codex"), "{codex}");
    assert_eq!((agent(&server, "codex-acp").await, agent(&server, "claude-acp").await), (None, None));
    // Nobody is bothered with agents that nobody has.
    let ready = server.get("/ready").await.ok(200);
    assert_eq!((&ready["agents"]["claude"], &ready["agents"]["codex"]), (&json!("ok"), &Value::Null), "{ready}");
    assert!(!server.log().contains("codex"), "{}", server.log());

    install(folder.path(), "codex-acp", "codex-acp 0.16.0");
    install(folder.path(), "codex", "codex-cli 1.2.3");
    std::fs::remove_file(folder.path().join("claude")).unwrap();
    let listed = server.act("/v1/agents/refresh").await.ok(200);
    let version = |id: &str| {
        listed["data"].as_array().unwrap().iter().find(|agent| agent["id"] == id).unwrap()["version"].clone()
    };
    assert_eq!(
        [version("codex"), version("codex-acp"), version("claude")],
        [json!("1.2.3"), json!("0.16.0"), Value::Null]
    );
}

#[tokio::test]
async fn a_version_on_stderr_is_one_too() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "pi", "");
    std::fs::write(folder.path().join("pi"), "#!/bin/sh\necho 0.73.1 >&2\n").unwrap();
    let pi = looked_for(&server_with(folder.path(), &[]), "pi").await;
    assert_eq!((&pi["available"], &pi["version"]), (&json!(true), &json!("0.73.1")), "{pi}");
}

#[tokio::test]
async fn credentials_are_seen_as_variables_or_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["claude", "codex", "pi"] {
        install(folder.path(), name, "1.0.0");
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".codex")).unwrap();
    std::fs::write(home.path().join(".codex/auth.json"), "{\"token\":\"x\"}").unwrap();
    // What pi leaves behind when it has none.
    std::fs::create_dir_all(home.path().join(".pi/agent")).unwrap();
    std::fs::write(home.path().join(".pi/agent/auth.json"), "{}").unwrap();
    let environment = [("HOME", home.path().to_str().unwrap()), ("CLAUDE_CODE_OAUTH_TOKEN", "dummy")];
    let server = server_with(folder.path(), &environment);
    for (name, seen) in [("claude", true), ("codex", true), ("pi", false)] {
        let found = looked_for(&server, name).await;
        assert_eq!(found["login"].is_null(), seen, "{found}");
    }
    assert!(!server.get("/v1/agents").await.ok(200).to_string().contains("dummy"));
}

/// A server with agents that are not there: `a`, whose fallback is `b`, whose fallback is given.
fn broken(fallback_of_b: Option<&str>) -> TestGateway {
    let mut environment = vec![
        ("GREENROOM_AGENTS__A__KIND", "command"),
        ("GREENROOM_AGENTS__A__COMMAND", r#"["/nowhere/a"]"#),
        ("GREENROOM_AGENTS__A__FALLBACK", "b"),
        ("GREENROOM_AGENTS__B__KIND", "acp"),
        ("GREENROOM_AGENTS__B__COMMAND", r#"["/nowhere/b"]"#),
        ("GREENROOM_SESSION__DEFAULT_AGENT", "a"),
    ];
    environment.extend(fallback_of_b.map(|name| ("GREENROOM_AGENTS__B__FALLBACK", name)));
    TestGateway::with(&environment)
}

#[tokio::test]
async fn a_turn_falls_back_along_the_chain_and_says_so() {
    let mut server = broken(Some("echo"));
    for number in 1..=2 {
        let done = server.run("k", json!({"text": "hello", "model": "of-a"})).await;
        assert_eq!(
            (&done["turn"]["state"], &done["response"]),
            (&json!("completed"), &json!("hello")),
            "{number}: {done}"
        );
        assert_eq!((&done["turn"]["agent"], &done["turn"]["model"]), (&json!("echo"), &Value::Null));
    }
    let events = server.events("k").await;
    let errors: Vec<String> = of_type(&events, "error").iter().map(|event| event["data"].to_string()).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(
        errors[0].contains("agent_fallback") && errors[0].contains("`b`, as `a`") && errors[0].contains("/nowhere/a"),
        "{errors:?}"
    );
    assert!(errors[1].contains("`echo`, as `b`"), "{errors:?}");
    let started = of_type(&events, "turn.started");
    assert!(started.iter().all(|event| event["data"]["agent"] == "echo"), "{started:?}");
    // The session keeps the agent that it asked for, and the turn is stored with the one that ran.
    assert_eq!(server.snapshot("k").await["agent"], "a");
    server.kill9();
    server.restart();
    let turns = server.get("/v1/sessions/k/turns").await.ok(200);
    assert!(turns["data"].as_array().unwrap().iter().all(|turn| turn["agent"] == "echo"), "{turns}");
}

#[tokio::test]
async fn a_circle_of_fallbacks_ends_and_so_does_a_chain() {
    for fallback in [Some("a"), None] {
        let server = broken(fallback);
        let done = server.run("k", text("hello")).await;
        assert_eq!(
            (&done["turn"]["state"], &done["turn"]["error"]["code"]),
            (&json!("failed"), &json!("agent_unavailable")),
            "{done}"
        );
        let message = done["turn"]["error"]["message"].as_str().unwrap();
        assert!(message.contains("/nowhere/b") && message.contains("agents.b.command"), "{message}");
        assert_eq!(of_type(&server.events("k").await, "error").len(), 1, "{fallback:?}");
    }
}

#[tokio::test]
async fn turns_that_wait_behind_one_that_fails_to_start_have_their_own_end() {
    let server = broken(Some("echo"));
    let mut turns = Vec::new();
    for number in 0..5 {
        turns.push(crate::gateway::turn_id(&server.message("k", text(&format!("number {number}"))).await));
    }
    for (number, turn) in turns.iter().enumerate() {
        let done = server.finished("k", turn).await;
        assert_eq!(done["state"], "completed", "{done}");
        assert_eq!(said(&server.events("k").await, turn, "text"), format!("number {number}"));
    }
}

#[tokio::test]
async fn a_program_gets_a_process_for_each_turn_and_the_conversation_so_far() {
    let environment = [
        ("GREENROOM_AGENTS__TOOL__KIND", "command"),
        ("GREENROOM_AGENTS__TOOL__COMMAND", r#"["sh", "-c", "echo $$; cat"]"#),
        ("GREENROOM_POOL__MAX_PROCESSES", "1"),
    ];
    let server = TestGateway::with(&environment);
    let mut pids = Vec::new();
    // More sessions than places: none holds one between its turns.
    for (key, words) in [("a", "the word is xylophone"), ("b", "other"), ("a", "and now")] {
        let done = server.run(key, json!({"text": words, "agent": "tool"})).await;
        assert_eq!(done["turn"]["state"], "completed", "{done}");
        let response = done["response"].as_str().unwrap().to_owned();
        assert!(response.contains(words), "{response}");
        pids.push(response.lines().next().unwrap().to_owned());
        assert_eq!(response.contains("User: the word is xylophone"), words == "and now", "{response}");
    }
    pids.dedup();
    assert_eq!(pids.len(), 3);
    let started = server.events("a").await;
    let resumed: Vec<_> =
        of_type(&started, "turn.started").iter().map(|event| event["data"]["resumed"].clone()).collect();
    assert_eq!(resumed, ["new", "replayed"]);
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
}

#[tokio::test]
async fn a_cancelled_program_is_gone_before_the_turn_says_so() {
    let environment = [
        ("GREENROOM_AGENTS__TOOL__KIND", "command"),
        ("GREENROOM_AGENTS__TOOL__COMMAND", r#"["sh", "-c", "echo $$; while :; do sleep 0.1; done"]"#),
    ];
    let server = TestGateway::with(&environment);
    let turn = crate::gateway::turn_id(&server.message("k", json!({"text": "x", "agent": "tool"})).await);
    let pid = said(&server.until("k", |event| event["type"] == "message.delta").await, &turn, "text");
    server.act("/v1/sessions/k/abort").await.ok(200);
    assert_eq!(server.finished("k", &turn).await["state"], "cancelled");
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "{pid}");
    assert_eq!(server.run("k", json!({"text": "x", "agent": "echo"})).await["response"], "x");
}

#[tokio::test]
async fn a_model_that_the_agent_did_not_tell_of_is_not_found() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-pi.mjs");
    let command = json!(["node", script]).to_string();
    let environment = [("GREENROOM_AGENTS__FAKE__KIND", "pi"), ("GREENROOM_AGENTS__FAKE__COMMAND", command.as_str())];
    let server = TestGateway::with(&environment);
    server.post("/v1/sessions", json!({"key": "k", "agent": "fake"})).await.ok(201);
    // Nobody knows yet.
    server.put("/v1/sessions/k/model", json!({"id": "m"})).await.ok(200);
    assert_eq!(server.run("k", text("[]")).await["turn"]["state"], "completed");
    let refused = server.put("/v1/sessions/k/model", json!({"id": "nonsense"})).await.refused(404, "model_not_found");
    assert!(refused.to_string().contains("fake/m"), "{refused}");
    for id in ["m", "fake/m"] {
        assert_eq!(server.put("/v1/sessions/k/model", json!({"id": id})).await.ok(200)["model"], id);
    }
    assert_eq!(looked_for(&server, "fake").await["models"][0]["id"], "fake/m");
    assert_eq!(server.run("k", json!({"text": "x", "agent": "echo"})).await["response"], "x");
    server.run("other", play(json!({"text": "y"}))).await;
}

#[tokio::test]
async fn a_mode_that_the_agent_does_not_offer_is_not_found_once_its_modes_are_known() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let modes = json!({"currentModeId": "ask", "availableModes": [{"id": "ask", "name": "Ask"}, {"id": "code"}]});
    let setup = json!({"session": {"modes": modes}}).to_string();
    let config = json!({"agents": {
        "fake": {"kind": "acp", "command": ["node", script], "env": {"FAKE": setup, "PATH": std::env::var("PATH").unwrap()}},
        "thinks": {"kind": "pi", "command": ["/nowhere/pi"]},
        "tool": {"kind": "command", "command": ["cat"]},
    }});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("greenroom.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let server = TestGateway::with(&[("GREENROOM_CONFIG", file.to_str().unwrap())]);
    for agent in ["fake", "thinks", "tool", "echo"] {
        server.post("/v1/sessions", json!({"key": agent, "agent": agent})).await.ok(201);
    }
    let put = async |key: &str, id: &str| server.put(&format!("/v1/sessions/{key}/mode"), json!({"id": id})).await;
    // Nobody knows yet, so it is taken; the turn says that there is none, and what there is.
    assert!(looked_for(&server, "fake").await["modes"].is_null());
    put("fake", "fly").await.ok(200);
    assert_eq!(server.run("fake", text("hi")).await["turn"]["error"]["code"], "model_not_found");
    let refused = put("fake", "walk").await;
    assert_eq!(refused.refused(404, "model_not_found")["modes"], json!(["ask", "code"]));
    assert_eq!(put("fake", "code").await.ok(200)["mode"], "code");
    assert_eq!(server.run("fake", text("hi")).await["response"], "echo: hi");
    let listed = looked_for(&server, "fake").await;
    assert_eq!(listed["modes"], json!([{"id": "ask", "name": "Ask"}, {"id": "code", "name": "code"}]));
    // Some are known without a start, and some agents have none.
    put("thinks", "build").await.refused(404, "model_not_found");
    assert_eq!(put("thinks", "high").await.ok(200)["mode"], "high");
    for key in ["tool", "echo"] {
        assert_eq!(put(key, "plan").await.refused(404, "model_not_found")["modes"], json!([]));
    }
}

#[tokio::test]
async fn an_idle_agent_is_closed_and_the_next_turn_starts_it_again() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-pi.mjs");
    let command = json!(["node", script]).to_string();
    let environment = [
        ("GREENROOM_AGENTS__FAKE__KIND", "pi"),
        ("GREENROOM_AGENTS__FAKE__COMMAND", command.as_str()),
        ("GREENROOM_POOL__IDLE_TIMEOUT", "100ms"),
    ];
    let server = TestGateway::with(&environment);
    server.post("/v1/sessions", json!({"key": "k", "agent": "fake"})).await.ok(201);
    for _ in 0..2 {
        assert_eq!(server.run("k", text("[]")).await["turn"]["state"], "completed");
        let closed = async || {
            let metrics = server.get("/metrics").await.text;
            metrics.lines().any(|line| line == "greenroom_agent_processes{state=\"used\"} 0").then_some(())
        };
        eventually("the agent is closed", closed).await;
    }
    let events = server.events("k").await;
    let cold: Vec<_> =
        of_type(&events, "turn.started").iter().map(|event| event["data"]["cold_start"].clone()).collect();
    assert_eq!(cold, [true, true]);
    assert_eq!(server.snapshot("k").await["live"], true, "the session itself stays");
    server.assert_quiet();
}

#[tokio::test]
async fn commands_are_a_list_whatever_the_agent_sends() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let command = json!(["node", script]).to_string();
    let server =
        TestGateway::with(&[("GREENROOM_AGENTS__FAKE__KIND", "acp"), ("GREENROOM_AGENTS__FAKE__COMMAND", &command)]);
    for (sent, told) in [(json!([{"name": "a"}]), json!([{"name": "a"}])), (json!("nonsense"), json!([]))] {
        let steps = json!([{"update": {"sessionUpdate": "available_commands_update", "availableCommands": sent}}]);
        server.run("k", json!({"text": steps.to_string(), "agent": "fake"})).await;
        assert_eq!(server.get("/v1/sessions/k/commands").await.ok(200)["data"], told);
    }
    server.assert_quiet();
}
