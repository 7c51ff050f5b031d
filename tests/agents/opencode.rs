//! The OpenCode adapter against a scripted server: faults that the real one does not show on demand.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, OpenSpec, Outcome, opencode::OpencodeAgent},
    config::{self, AgentConfig, AgentLimits, Secret},
    protocol::{Role, event::Resumed},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    COMPLETED, Client, LIMIT, Ledger, Told, eventually, failure, message, open_spec, prompt, text, wait_gone,
};

/// An agent whose server is scripted.
struct Fake {
    agent: OpencodeAgent,
    folder: Arc<TempDir>,
    ledger: Arc<Ledger>,
}

impl Fake {
    fn new(setup: Value) -> Self {
        Self::lingering(setup, LIMIT)
    }

    fn lingering(setup: Value, linger: Duration) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-opencode.mjs");
        let command = vec!["node".to_owned(), script.to_owned()];
        let log = folder.path().join("log").display().to_string();
        let env = [("FAKE", setup.to_string()), ("FAKE_LOG", log)];
        let env: BTreeMap<String, Secret> =
            env.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
        let config = AgentConfig { command, env, max_retries: 2, ..AgentConfig::default() };
        let limits = AgentLimits { kill_grace: config::Duration::millis(500), ..AgentLimits::default() };
        let agent = OpencodeAgent::with_linger("fake".into(), config, limits, linger);
        Self { agent, folder, ledger: Arc::default() }
    }

    fn spec(&self) -> OpenSpec {
        open_spec(self.folder.path(), &self.ledger)
    }

    fn start(&self, spec: OpenSpec) -> Client {
        let live = self.agent.start(spec);
        Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.folder) }
    }

    async fn open(&self) -> Client {
        let mut client = self.start(self.spec());
        client.opened().await;
        client
    }

    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn calls(&self, end: &str) -> Vec<Value> {
        let is = |call: &Value| call["path"].as_str().is_some_and(|path| path.ends_with(end));
        self.log().into_iter().filter(is).collect()
    }

    /// The process of the server.
    fn pid(&self) -> i32 {
        self.ledger.running()[0].pgid
    }
}

/// Reads to the end of the channel.
async fn closed(mut client: Client) -> Vec<AgentEvent> {
    let mut rest = Vec::new();
    while let Some(event) = client.next().await {
        rest.push(event);
    }
    rest
}

async fn answer(client: &Client, ask_id: &str, option: &str) {
    let answer = Answer::Option { id: option.into() };
    client.send(AgentCommand::Answer { ask_id: ask_id.into(), answer }).await;
}

#[tokio::test]
async fn several_that_start_at_once_share_one_server_that_goes_after_the_last() {
    let fake = Fake::lingering(json!({}), Duration::from_millis(50));
    let mut clients = [fake.start(fake.spec()), fake.start(fake.spec()), fake.start(fake.spec())];
    for client in &mut clients {
        client.opened().await;
    }
    assert_eq!(fake.ledger.running().len(), 1);
    let pid = fake.pid();
    let started: Vec<Value> = fake.log().into_iter().filter(|line| line.get("started").is_some()).collect();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0]["password"], true);
    assert_eq!(started[0]["args"], json!(["serve", "--hostname", "127.0.0.1", "--port", "0"]), "no password here");
    let [mut one, two, three] = clients;
    two.send(AgentCommand::Close).await;
    closed(two).await;
    drop(three);
    let (events, outcome) = one.play(json!([{"say": "still here"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("still here", COMPLETED));
    one.send(AgentCommand::Close).await;
    closed(one).await;
    eventually("the server has gone", || fake.ledger.running().is_empty()).await;
    wait_gone(pid).await;
    // The next session starts another.
    let mut client = fake.open().await;
    assert_eq!(client.play(json!([{"say": "a"}])).await.1, COMPLETED);
    assert_ne!(fake.pid(), pid);
}

#[tokio::test]
async fn the_server_goes_with_the_agent() {
    let Fake { agent, folder, ledger } = Fake::new(json!({}));
    let live = agent.start(open_spec(folder.path(), &ledger));
    let mut client = Client { live, ledger: Arc::clone(&ledger), _folder: Arc::clone(&folder) };
    client.opened().await;
    client.send(AgentCommand::Close).await;
    closed(client).await;
    assert_eq!(ledger.running().len(), 1, "it lingers");
    drop(agent);
    eventually("the server has gone", || ledger.running().is_empty()).await;
}

#[tokio::test]
async fn a_dead_server_fails_the_turns_of_all_and_the_next_starts_another() {
    let fake = Fake::new(json!({}));
    let (mut one, mut two, idle) = (fake.open().await, fake.open().await, fake.open().await);
    let pid = fake.pid();
    two.script(json!([{"say": "before"}, {"hang": true}])).await;
    two.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    let (_, outcome) = one.play(json!([{"stderr": "out of luck"}, {"wait": 100}, {"exit": 7}])).await;
    let words = failure(&outcome, "agent_error");
    assert!(words.contains("exit status: 7") && words.contains("out of luck"), "{words}");
    assert!(failure(&two.turn().await.1, "agent_error").contains("exit status: 7"));
    assert_eq!(closed(one).await, []);
    assert!(closed(idle).await.iter().all(|event| !matches!(event, AgentEvent::Ended(_))), "nothing was owed");
    let mut next = fake.open().await;
    assert_eq!(next.play(json!([{"say": "a"}])).await.1, COMPLETED);
    assert_ne!(fake.pid(), pid);
    assert_eq!(fake.ledger.running().len(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let fake = Fake::new(json!({"refuse": "no such option"}));
    let (mut one, mut two) = (fake.start(fake.spec()), fake.start(fake.spec()));
    for client in [&mut one, &mut two] {
        let (_, outcome) = client.turn().await;
        let words = failure(&outcome, "agent_error");
        assert!(words.contains("exit status: 3") && words.contains("no such option"), "{words}");
    }
    assert_eq!(closed(one).await, []);
    assert_eq!(fake.ledger.running(), []);
    let missing = AgentConfig { command: vec!["no-such-opencode".into()], ..AgentConfig::default() };
    let agent = OpencodeAgent::new("gone".into(), missing, AgentLimits::default());
    let live = agent.start(fake.spec());
    let mut client = Client { live, ledger: Arc::clone(&fake.ledger), _folder: Arc::clone(&fake.folder) };
    assert!(failure(&client.turn().await.1, "agent_unavailable").contains("not found"));
}

#[tokio::test]
async fn text_is_whole_and_single_whatever_the_stream_does() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    for (steps, expected) in [
        (json!([{"twice": "doubled events"}]), "doubled events"),
        (json!([{"garbage": true}, {"say": "after garbage"}]), "after garbage"),
        (json!([{"cut": ["before ", "and after"]}, {"say": "!"}]), "before and after!"),
        (json!([{"unheard": "lost "}, {"cut": ["", ""]}, {"say": "found"}]), "lost found"),
        (json!([{"early_idle": true}, {"wait": 50}, {"say": "not over"}]), "not over"),
        (json!([{"say": "<dcp-message-id>m0001</dcp-message-id>tagless"}]), "tagless"),
    ] {
        let (events, outcome) = client.play(steps.clone()).await;
        assert_eq!((text(&events).as_str(), outcome), (expected, COMPLETED), "{steps}");
    }
}

#[tokio::test]
async fn a_turn_ends_although_no_event_says_so() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    let (events, outcome) = client.play(json!([{"say": "told "}, {"quiet": true}, {"say": "untold"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("told untold", COMPLETED));
    let usage =
        events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(usage) } else { None });
    let usage = usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost_usd), (13, 5, Some(0.25)));
    assert_eq!((usage.context_used, usage.context_max), (Some(18), Some(1000)));
}

#[tokio::test]
async fn who_does_not_read_stops_nobody_and_loses_nothing() {
    let fake = Fake::new(json!({}));
    let (mut slow, mut quick) = (fake.open().await, fake.open().await);
    slow.script(json!([{"flood": 5000}])).await;
    for _ in 0..3 {
        let (events, outcome) = quick.play(json!([{"say": "quick"}])).await;
        assert_eq!((text(&events).as_str(), outcome), ("quick", COMPLETED));
    }
    let (events, outcome) = slow.turn().await;
    assert_eq!(outcome, COMPLETED);
    let expected: String = (0..5000).map(|n| format!("{:x<1000}", format!("{n} "))).collect();
    assert!(text(&events) == expected, "text was lost or doubled");
}

#[tokio::test]
async fn permissions_of_sub_agents_are_asked_and_their_words_are_not_shown() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    client.script(json!([{"child": true}])).await;
    let ask = client.asked().await;
    assert_eq!((ask.tool.as_deref(), ask.input_summary.as_deref()), (Some("edit"), Some("y")));
    answer(&client, &ask.ask_id, "once").await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("child:once", COMPLETED));
}

#[tokio::test]
async fn a_permission_that_was_asked_while_the_stream_was_away_is_asked() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    client.script(json!([{"cut": ["a", "b"]}, {"ask": "bash"}])).await;
    let ask = client.asked().await;
    answer(&client, &ask.ask_id, "always").await;
    let (events, outcome) = client.turn().await;
    // Its own "always" would hold for all who work in the folder; the session's rule is kept by the session.
    assert_eq!((text(&events).as_str(), outcome), ("reply:once", COMPLETED));
}

#[tokio::test]
async fn permission_modes_answer_for_the_user() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    for (mode, permission, expected) in [
        ("accept_edits", "edit", "reply:once"),
        ("dont_ask", "bash", "reply:reject"),
        ("dont_ask", "edit", "reply:reject"),
    ] {
        let steps = json!([{"ask": permission}]).to_string();
        let asked = greenroom::agents::Prompt { permission_mode: mode.into(), ..prompt(steps) };
        client.send(AgentCommand::Prompt(asked)).await;
        let (events, outcome) = client.turn().await;
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::ChoiceAsked(_))), "{mode}");
        assert_eq!((text(&events).as_str(), outcome), (expected, COMPLETED), "{mode} {permission}");
    }
    let bypass = greenroom::agents::Prompt { permission_mode: "bypass".into(), ..prompt("[]") };
    client.send(AgentCommand::Prompt(bypass)).await;
    failure(&client.turn().await.1, "invalid_permission_mode");
    let plan = greenroom::agents::Prompt { permission_mode: "plan".into(), ..prompt("[]") };
    client.send(AgentCommand::Prompt(plan)).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    assert_eq!(fake.calls("/prompt_async").last().unwrap()["body"]["agent"], "plan");
}

#[tokio::test]
async fn a_cancelled_turn_has_stopped_and_its_question_is_taken_back() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    client.script(json!([{"say": "a"}, {"hang": true}])).await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    client.script(json!([{"ask": "bash"}, {"hang": true}])).await;
    let ask = client.asked().await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(events.contains(&AgentEvent::ChoiceWithdrawn { ask_id: ask.ask_id.clone() }));
    let replies = fake.calls(&format!("{}/reply", ask.ask_id));
    assert_eq!(replies[0]["body"]["reply"], "reject", "else it would wait for ever");
    assert_eq!(client.play(json!([{"say": "b"}])).await.1, COMPLETED);
}

/// Whether an event tells of a tool's start, its result, or a text that was taken.
fn order(events: &[AgentEvent]) -> Vec<&'static str> {
    let name = |event: &AgentEvent| match event {
        AgentEvent::ToolStarted(_) => Some("started"),
        AgentEvent::ToolFinished { .. } => Some("completed"),
        AgentEvent::Steered { .. } => Some("steered"),
        AgentEvent::Delta { .. } => Some("said"),
        _ => None,
    };
    events.iter().filter_map(name).collect()
}

#[tokio::test]
async fn a_text_is_taken_when_an_answer_to_it_begins() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    client.script(json!([{"tool": "until a text"}])).await;
    let mut events = client.until(|event| matches!(event, AgentEvent::ToolStarted(_))).await;
    client.send(AgentCommand::Steer { id: 7, text: json!([]).to_string() }).await;
    let (rest, outcome) = client.turn().await;
    events.extend(rest);
    assert_eq!((order(&events), outcome), (vec!["started", "completed", "steered"], COMPLETED));
    // One that comes while the last words are said is answered in the same turn.
    client.script(json!([{"say": "a"}, {"ask": "bash"}])).await;
    let ask = client.asked().await;
    client.send(AgentCommand::Steer { id: 8, text: json!([{"say": "b"}]).to_string() }).await;
    eventually("it is there", || fake.calls("/prompt_async").len() == 4).await;
    answer(&client, &ask.ask_id, "reject").await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    assert!(order(&events).ends_with(&["said", "steered", "said"]), "{events:?}");
    assert_eq!(fake.calls("/message").len(), 0, "no state had to be fetched");
}

#[tokio::test]
async fn a_text_that_was_not_taken_leaves_the_conversation_with_the_turn() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    client.script(json!([{"tool": "for ever"}])).await;
    client.until(|event| matches!(event, AgentEvent::ToolStarted(_))).await;
    for id in [7, 8] {
        client.send(AgentCommand::Steer { id, text: json!([{"hang": true}]).to_string() }).await;
    }
    // The second may still be on its way.
    eventually("one is there", || fake.calls("/prompt_async").len() > 1).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((order(&events), outcome), (vec!["completed"], Outcome::Cancelled));
    let removed: Vec<Value> = fake.log().into_iter().filter(|call| call["method"] == "DELETE").collect();
    for text in &fake.calls("/prompt_async")[1..] {
        let message = text["body"]["messageID"].as_str().unwrap();
        assert!(removed.iter().any(|call| call["path"].as_str().unwrap().ends_with(message)), "{removed:?}");
    }
    let (events, outcome) = client.play(json!([{"say": "next"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("next", COMPLETED));
}

#[tokio::test]
async fn a_turn_that_does_not_stop_is_killed_with_its_server() {
    let fake = Fake::new(json!({}));
    let (mut deaf, other) = (fake.open().await, fake.open().await);
    deaf.script(json!([{"say": "a"}, {"deaf": true}])).await;
    deaf.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    deaf.send(AgentCommand::Cancel).await;
    eventually("it was asked to stop", || !fake.calls("/abort").is_empty()).await;
    deaf.live.kill.kill();
    let rest = closed(deaf).await;
    assert_eq!(rest.last(), Some(&AgentEvent::Ended(Outcome::Cancelled)));
    assert_eq!(fake.ledger.running(), [], "closed before it was gone");
    closed(other).await;
}

#[tokio::test]
async fn killing_one_session_leaves_the_server_to_the_others() {
    let fake = Fake::new(json!({}));
    let (mut one, mut two) = (fake.open().await, fake.open().await);
    let pid = fake.pid();
    one.script(json!([{"say": "a"}, {"hang": true}])).await;
    one.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    one.live.kill.kill();
    let rest = closed(one).await;
    assert!(matches!(rest.last(), Some(AgentEvent::Ended(Outcome::Failed(_)))), "{rest:?}");
    assert!(!fake.calls("/abort").is_empty());
    assert_eq!(two.play(json!([{"say": "a"}])).await.1, COMPLETED);
    assert_eq!(fake.pid(), pid);
}

#[tokio::test]
async fn retries_are_told_and_end() {
    let fake = Fake::new(json!({}));
    let mut client = fake.open().await;
    let (events, outcome) = client.play(json!([{"retry": 2}, {"say": "at last"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("at last", COMPLETED));
    let retried = |event: &&AgentEvent| matches!(event, AgentEvent::Status { reason: Some(reason), .. } if reason.contains("too many"));
    assert_eq!(events.iter().filter(retried).count(), 2);
    let (_, outcome) = client.play(json!([{"retry": 100}, {"hang": true}])).await;
    assert!(failure(&outcome, "agent_error").contains("too many (after 2 retries)"));
}

#[tokio::test]
async fn a_conversation_that_is_gone_is_replayed_and_one_that_is_there_goes_on() {
    let fake = Fake::new(json!({"sessions": ["ses_known"]}));
    let opened = |native_id: &str| {
        let native_id = Some(native_id.to_owned());
        let transcript = Arc::new(Told(Ok(vec![message(Role::User, "xylophone")])));
        fake.start(OpenSpec { native_id, transcript, ..fake.spec() })
    };
    let mut client = opened("ses_known");
    assert_eq!(client.opened().await.resumed, Some(Resumed::Native));
    for unknown in ["ses_unknown", "../../global/dispose", ""] {
        let mut client = opened(unknown);
        assert_eq!(client.opened().await.resumed, Some(Resumed::Replayed));
        assert_eq!(client.play(json!([{"say": "a"}])).await.1, COMPLETED);
        let prompt = fake.calls("/prompt_async").pop().unwrap();
        assert!(prompt["body"]["parts"][0]["text"].as_str().unwrap().contains("xylophone"));
        client.play(json!([{"say": "b"}])).await;
        assert_eq!(fake.calls("/prompt_async").pop().unwrap()["body"]["parts"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn settings_reach_the_server_with_each_prompt() {
    let fake = Fake::new(json!({}));
    let folder = tempfile::tempdir().unwrap();
    let cwd: PathBuf = folder.path().to_owned();
    let mut client = fake.start(OpenSpec { cwd: cwd.clone(), ..fake.spec() });
    let opened = client.opened().await;
    assert_eq!((opened.model.as_deref(), opened.models.len()), (Some("mock/one"), 2));
    let steps = json!([{"say": "a"}]).to_string();
    let asked = greenroom::agents::Prompt { model: Some("two".into()), mode: Some("plan".into()), ..prompt(steps) };
    client.send(AgentCommand::Prompt(asked)).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    client.play(json!([{"say": "b"}])).await;
    let prompts = fake.calls("/prompt_async");
    assert_eq!(prompts[0]["body"]["model"], json!({"providerID": "mock", "modelID": "two"}));
    assert_eq!(prompts[0]["folder"], cwd.to_str().unwrap());
    assert_eq!((&prompts[0]["body"]["agent"], &prompts[1]["body"]["agent"]), (&json!("plan"), &json!("build")));
    assert_eq!(prompts[1]["body"]["model"]["modelID"], "one", "a turn's model is not the next one's");
    client.prompt("/go [{\"say\": \"a command\"}]").await;
    assert_eq!(text(&client.turn().await.0), "a command");
    assert_eq!(fake.calls("/command").last().unwrap()["body"]["model"], "mock/one");
    let wrong = greenroom::agents::Prompt { model: Some("nope".into()), ..prompt("[]") };
    client.send(AgentCommand::Prompt(wrong)).await;
    assert!(failure(&client.turn().await.1, "model_not_found").contains("`mock/one`"));
}
