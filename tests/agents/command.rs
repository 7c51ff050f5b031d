//! Any program as an agent: what it gets, what becomes of what it prints, and how it ends.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, OpenSpec, Outcome, Prompt, command::CommandAgent},
    config::{self, AgentConfig, AgentKind, AgentLimits, PromptBy, Secret},
    protocol::{
        Attachment, Role, Usage,
        event::{DeltaKind, Resumed},
    },
};
use tempfile::TempDir;

use crate::harness::{COMPLETED, Client, Ledger, Told, failure, is_gone, message, open_spec, prompt, text, wait_gone};

/// A script of the shell as a program, with everything that a test may set before it starts.
struct Script {
    folder: Arc<TempDir>,
    config: AgentConfig,
    limits: AgentLimits,
    spec: OpenSpec,
    ledger: Arc<Ledger>,
}

impl Script {
    fn new(script: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let file = folder.path().join("program");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let ledger = Arc::new(Ledger::default());
        Self {
            config: AgentConfig {
                kind: Some(AgentKind::Command),
                command: vec!["sh".into(), file.to_str().unwrap().into()],
                ..AgentConfig::default()
            },
            limits: AgentLimits { kill_grace: config::Duration::millis(500), ..AgentLimits::default() },
            spec: open_spec(folder.path(), &ledger),
            folder,
            ledger,
        }
    }

    fn by_argument(mut self) -> Self {
        self.config.prompt_by = PromptBy::Argument;
        self
    }

    async fn open(&self) -> Client {
        let mut client = self.start();
        client.opened().await;
        client
    }

    fn start(&self) -> Client {
        let agent = CommandAgent::new("script".into(), self.config.clone(), self.limits.clone());
        let live = agent.start(self.spec.clone());
        Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.folder) }
    }

    /// One turn of a fresh agent.
    async fn say(&self, words: &str) -> (Vec<AgentEvent>, Outcome) {
        let mut client = self.open().await;
        client.prompt(words).await;
        let turn = client.turn().await;
        assert_eq!(self.ledger.running(), [], "a process outlives its turn");
        client.close().await;
        turn
    }
}

#[tokio::test]
async fn a_prompt_comes_by_stdin_or_argument_and_is_nothing_but_text() {
    let nasty = "--help; $(touch made) \"'\n`x` ü";
    let (events, outcome) = Script::new("cat").say(nasty).await;
    assert_eq!((text(&events).as_str(), outcome), (nasty, COMPLETED));
    let script = Script::new(r#"printf '%s|' "$@"; printf 'stdin:'; cat"#).by_argument();
    let (events, outcome) = script.say(nasty).await;
    assert_eq!((text(&events), outcome), (format!(" {nasty}|stdin:"), COMPLETED));
    assert!(!script.folder.path().join("made").exists());
}

#[tokio::test]
async fn text_comes_as_it_is_written_also_in_the_middle_of_a_line() {
    let script = Script::new(
        r#"printf 'one '; while [ ! -e go ]; do sleep 0.05; done; printf '\033[1mtwo\033[0m \303'; sleep 0.1; printf '\274\n'"#,
    );
    let mut client = script.open().await;
    client.prompt("x").await;
    let first = client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    assert_eq!(text(&first), "one ");
    std::fs::write(script.folder.path().join("go"), "").unwrap();
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("two ü\n", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn lines_of_events_become_events() {
    let script = Script::new(
        r#"cat >/dev/null
        echo '{"type":"system","subtype":"init","session_id":"x"}'
        echo '{"type":"assistant","message":{"content":[{"type":"text","text":"Hi"},{"type":"tool_use","id":"t","name":"Bash","input":{"command":"ls"}}]}}'
        echo 'a warning'
        echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t","content":"a"}]}}'
        printf '%s' '{"type":"result","subtype":"success","is_error":false,"result":"Hi","usage":{"input_tokens":3,"output_tokens":2}}'"#,
    );
    let (events, outcome) = script.say("x").await;
    assert_eq!((text(&events).as_str(), outcome), ("Hi", COMPLETED));
    assert!(events.iter().any(|event| matches!(event, AgentEvent::ToolStarted(call) if call.name == "Bash")));
    assert!(events.iter().any(|event| matches!(event, AgentEvent::ToolFinished { is_error: false, .. })));
    let usage = AgentEvent::Usage(Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() });
    assert_eq!(events.last(), Some(&usage));
    // Its own word goes before a good exit status.
    let failed = Script::new(r#"echo '{"type":"turn.failed","error":{"message":"out of tokens"}}'"#);
    assert_eq!(failure(&failed.say("x").await.1, "agent_error"), "agent `script`: out of tokens");
}

#[tokio::test]
async fn the_end_of_the_process_is_the_end_of_the_turn() {
    let (events, outcome) = Script::new("echo part; echo bad >&2; exit 3").say("x").await;
    assert_eq!(text(&events), "part\n");
    assert_eq!(failure(&outcome, "agent_error"), "agent `script` ended with exit status: 3; stderr: bad");
    let (_, outcome) = Script::new("kill -9 $$").say("x").await;
    assert!(failure(&outcome, "agent_error").contains("signal: 9"), "{outcome:?}");
    // What it leaves behind goes with it, and holds nothing up.
    let (events, outcome) = Script::new("sleep 1000 & echo $!").say("x").await;
    assert_eq!(outcome, COMPLETED);
    assert!(is_gone(text(&events).trim().parse().unwrap()));
    // A program that does not read what it gets.
    let (events, outcome) = Script::new("echo done").say(&"x".repeat(1_000_000)).await;
    assert_eq!((text(&events).as_str(), outcome), ("done\n", COMPLETED));
}

#[tokio::test]
async fn silence_is_told() {
    for (script, said) in [
        ("true", "(no output)"),
        ("echo only here >&2", "only here"),
        (r#"echo '{"type":"turn.started"}'"#, "(no text output)"),
    ] {
        let (events, outcome) = Script::new(script).say("x").await;
        assert_eq!((text(&events).as_str(), outcome), (said, COMPLETED), "{script}");
    }
}

#[tokio::test]
async fn a_cancel_ends_the_process_and_a_stubborn_one_too() {
    for trap in ["", "trap '' TERM;"] {
        let script = Script::new(&format!("{trap} echo $$; while :; do sleep 0.1; done"));
        let mut client = script.open().await;
        client.prompt("x").await;
        let begin = client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
        client.send(AgentCommand::Cancel).await;
        assert_eq!(client.turn().await.1, Outcome::Cancelled, "{trap}");
        assert!(is_gone(text(&begin).trim().parse().unwrap()), "{trap}");
        client.close().await;
    }
}

#[tokio::test]
async fn a_kill_and_a_dropped_session_end_the_process() {
    let script = Script::new("trap '' TERM; echo $$; while :; do sleep 0.1; done");
    let mut client = script.open().await;
    client.prompt("x").await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.live.kill.kill();
    let rest = client.closed().await;
    assert!(matches!(&rest[..], [AgentEvent::Ended(outcome)] if failure(outcome, "agent_error").contains("by force")));

    let mut client = script.open().await;
    client.prompt("x").await;
    let begin = client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    drop(client);
    wait_gone(text(&begin).trim().parse().unwrap()).await;
}

#[tokio::test]
async fn the_conversation_so_far_goes_along() {
    let mut script = Script::new("cat");
    let told = vec![message(Role::User, "the word is xylophone"), message(Role::Assistant, "noted")];
    script.spec.transcript = Arc::new(Told(Ok(told)));
    let mut client = script.start();
    assert_eq!(client.opened().await.resumed, Some(Resumed::Replayed));
    client.prompt("and now").await;
    let (events, _) = client.turn().await;
    let text = text(&events);
    assert!(text.contains("User: the word is xylophone\n\nAssistant: noted") && text.ends_with("and now"), "{text}");
    client.close().await;

    // An argument has less room.
    let mut narrow = Script::new(r#"printf '%s' "$1""#).by_argument();
    narrow.spec.transcript = Arc::new(Told(Ok(vec![message(Role::User, &"long ago\n".repeat(30_000))])));
    let (events, outcome) = narrow.say(&"y".repeat(60_000)).await;
    assert_eq!(outcome, COMPLETED);
    let said = crate::harness::text(&events);
    assert!(said.starts_with("This is the conversation so far") && said.ends_with('y'), "{}", said.len());
    assert!(said.matches("long ago").count() > 5000 && said.len() < 128 * 1024, "{}", said.len());

    script.spec.transcript = Arc::new(Told(Err("disk".into())));
    let mut client = script.open().await;
    assert!(matches!(client.next().await, Some(AgentEvent::Fault { code, .. }) if code == "replay_failed"));
    client.close().await;
}

#[tokio::test]
async fn files_are_put_into_the_working_folder() {
    let script = Script::new("cat; cat input/*");
    let mut client = script.open().await;
    let file =
        Attachment { name: "../a.txt".into(), media_type: "text/plain".into(), content_base64: "aGVsbG8=".into() };
    client.send(AgentCommand::Prompt(Prompt { attachments: Arc::new(vec![file]), ..prompt("see") })).await;
    let (events, outcome) = client.turn().await;
    let said = "see\n\nAttached files:\n- input/a.txt (text/plain)hello";
    assert_eq!((text(&events).as_str(), outcome), (said, COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn models_modes_and_permission_modes_that_do_not_fit_are_said() {
    let mut script = Script::new(r#"echo "$1 $MODEL""#);
    script.config.command.push("{model}".into());
    script.config.env.insert("MODEL".into(), Secret::new("{model}!"));
    let mut client = script.open().await;
    client.prompt("x").await;
    assert!(failure(&client.turn().await.1, "model_not_found").contains("agents.script.model"));
    client.send(AgentCommand::Prompt(Prompt { model: Some("m1".into()), ..prompt("x") })).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("m1 m1!\n", COMPLETED));
    for (prompt, code) in [
        (Prompt { mode: Some("plan".into()), ..prompt("x") }, "model_not_found"),
        (Prompt { permission_mode: "plan".into(), ..prompt("x") }, "invalid_permission_mode"),
        (Prompt { permission_mode: "bypass".into(), ..prompt("x") }, "invalid_permission_mode"),
    ] {
        client.send(AgentCommand::Prompt(prompt)).await;
        failure(&client.turn().await.1, code);
    }
    client.close().await;
    let mut client = Script::new("echo ok").open().await;
    client.send(AgentCommand::Prompt(Prompt { permission_mode: "accept_edits".into(), ..prompt("x") })).await;
    let (events, outcome) = client.turn().await;
    assert!(matches!(&events[0], AgentEvent::Fault { code, .. } if code == "invalid_permission_mode"), "{events:?}");
    assert_eq!((&events[1], outcome), (&AgentEvent::Delta { kind: DeltaKind::Text, text: "ok\n".into() }, COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_unavailable_before_the_turn_and_is_never_run_by_a_probe() {
    let mut script = Script::new("touch ran");
    let agent = |script: &Script| CommandAgent::new("script".into(), script.config.clone(), script.limits.clone());
    assert!(agent(&script).probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await.available);
    assert!(!script.folder.path().join("ran").exists());
    script.config.command = vec!["/nowhere/program".into()];
    let probe = agent(&script).probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    let reason = "`/nowhere/program` not found; install it or set agents.script.command";
    assert_eq!((probe.available, probe.reason.as_deref()), (false, Some(reason)));
    let mut client = script.start();
    assert_eq!(failure(&client.turn().await.1, "agent_unavailable"), reason);
    assert_eq!(client.closed().await, []);
}
