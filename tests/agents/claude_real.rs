//! The real Claude Code, offline, against the mock model server: what only it shows. `scripts/agents` installs it.

use std::sync::{Arc, Mutex};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, Ask, Opened, Outcome, Prompt, claude::ClaudeAgent},
    config::{AgentConfig, AgentLimits},
    protocol::{Attachment, ChoiceKind, Message, OptionKind, Role, Usage, event::DeltaKind, event::Resumed},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{COMPLETED, Client, Ledger, Told, failure, message, open_spec, prompt, text},
    mock_llm::{MockLlm, Reply},
    real_agents::Real,
};

/// Claude Code with a HOME, a folder to work in and a model server of its own.
struct Rig {
    mock: MockLlm,
    config: AgentConfig,
    _home: TempDir,
    work: Arc<TempDir>,
    ledger: Arc<Ledger>,
    native_id: Option<String>,
    transcript: Mutex<Vec<Message>>,
}

impl Rig {
    fn new() -> Self {
        let mock = MockLlm::start();
        let home = tempfile::tempdir().unwrap();
        let config = Real::Claude.set_up(&mock, home.path());
        let work = Arc::new(tempfile::tempdir().unwrap());
        Self { mock, config, _home: home, work, ledger: Arc::default(), native_id: None, transcript: Mutex::default() }
    }

    async fn open(&self) -> (Client, Opened) {
        let mut spec = open_spec(self.work.path(), &self.ledger);
        spec.native_id.clone_from(&self.native_id);
        spec.transcript = Arc::new(Told(Ok(self.transcript.lock().unwrap().clone())));
        let live = ClaudeAgent::new("claude".into(), self.config.clone(), AgentLimits::default()).start(spec);
        let mut client = Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.work) };
        let opened = client.opened().await;
        (client, opened)
    }

    /// Opens it, and lets the model call a tool with an input for the first prompt.
    async fn calling(&self, name: &str, input: Value) -> Client {
        let (client, _) = self.open().await;
        self.mock.script([call(name, &input)]);
        client.prompt("go").await;
        client
    }

    /// What the model was sent last, as text.
    fn last_request(&self) -> String {
        self.mock.generations().last().unwrap().body.to_string()
    }

    fn made(&self, name: &str) -> bool {
        self.work.path().join(name).exists()
    }
}

/// A stream of the model's that calls a tool.
fn call(name: &str, input: &Value) -> Reply {
    let usage = json!({"input_tokens": 10, "output_tokens": 1});
    let message = json!({"id": "msg_call", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": null, "usage": usage});
    let block = json!({"type": "tool_use", "id": format!("toolu_{}", uuid::Uuid::now_v7().simple()), "name": name, "input": {}});
    let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
    let events = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ];
    events.iter().fold(Reply::sse(), |reply, event| reply.event(event["type"].as_str().unwrap(), event))
}

fn touch(name: &str) -> Value {
    json!({"command": format!("touch {name}"), "description": "make a file"})
}

async fn talk(client: &mut Client, words: &str) -> (Vec<AgentEvent>, String) {
    client.prompt(words).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED, "{events:?}");
    let answer = text(&events);
    (events, answer)
}

async fn choose(client: &Client, ask: Ask, kind: OptionKind) {
    let option = ask.options.iter().find(|option| option.kind == kind).unwrap();
    client.send(AgentCommand::Answer { ask_id: ask.ask_id, answer: Answer::Option { id: option.id.clone() } }).await;
}

fn usage(events: &[AgentEvent]) -> Usage {
    let last =
        events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None });
    last.unwrap()
}

#[tokio::test]
async fn it_talks_in_pieces_with_reasoning_usage_models_modes_and_commands() {
    let rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    assert!(opened.model.as_ref().is_some_and(|model| model.starts_with("claude-")), "{opened:?}");
    assert!(opened.models.iter().any(|model| model["id"] == "sonnet") && opened.resumed == Some(Resumed::New));
    let (events, answer) = talk(&mut client, "THINK of xylophones").await;
    assert_eq!(answer, "Hello from mock");
    let thought = |event: &&AgentEvent| matches!(event, AgentEvent::Delta { kind: DeltaKind::Reasoning, .. });
    assert_eq!(events.iter().filter(thought).count(), 2);
    assert!(events.iter().any(|event| matches!(event, AgentEvent::Commands(Value::Array(list)) if !list.is_empty())));
    assert!(events.iter().any(|event| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "default")));
    let first = usage(&events);
    assert!(first.input_tokens > 100 && first.output_tokens == 7 && first.cached_tokens == 10, "{first:?}");
    assert!(first.cost_usd > Some(0.0) && first.context_used > Some(100) && first.context_max > first.context_used);
    let (events, _) = talk(&mut client, "and again").await;
    let second = usage(&events);
    assert!(second.input_tokens < 2 * first.input_tokens && second.cost_usd < first.cost_usd.map(|cost| cost * 1.5));
    assert!(rig.last_request().contains("xylophones"));
    client.close().await;
}

#[tokio::test]
async fn a_permission_is_asked_once_refused_or_given_for_ever() {
    let rig = Rig::new();
    let mut client = rig.calling("Bash", touch("/tmp/../tmp/greenroom-refused")).await;
    let asked = client.asked().await;
    choose(&client, asked, OptionKind::RejectOnce).await;
    let (events, outcome) = client.turn().await;
    let refused = |event: &AgentEvent| matches!(event, AgentEvent::ToolFinished { is_error: true, .. });
    assert!(events.iter().any(refused) && outcome == COMPLETED, "{events:?}");
    assert!(!std::path::Path::new("/tmp/greenroom-refused").exists());
    rig.mock.script([call("Bash", &touch("a.txt"))]);
    client.prompt("once").await;
    let asked = client.asked().await;
    assert!(!rig.made("a.txt") && asked.input_summary.as_deref() == Some("touch a.txt"), "{asked:?}");
    choose(&client, asked, OptionKind::AllowAlways).await;
    let (events, outcome) = client.turn().await;
    assert!(rig.made("a.txt") && outcome == COMPLETED, "{events:?}");
    // Nothing was written where the user works, and the agent does not ask again.
    assert!(!rig.made(".claude/settings.local.json"));
    std::fs::remove_file(rig.work.path().join("a.txt")).unwrap();
    rig.mock.script([call("Bash", &touch("a.txt"))]);
    let (events, _) = talk(&mut client, "again").await;
    assert!(rig.made("a.txt"));
    let cards: Vec<_> = events
        .iter()
        .filter_map(|event| {
            if let AgentEvent::ToolStarted(card) = event { Some((card.title.as_deref(), &card.input)) } else { None }
        })
        .collect();
    assert_eq!(cards, [(None, &Value::Null), (Some("touch a.txt"), &touch("a.txt"))]);
    let written = events.iter().find_map(|event| match event {
        AgentEvent::ToolDelta { input_so_far, .. } => Some(input_so_far.clone()),
        _ => None,
    });
    assert_eq!(written, Some(touch("a.txt").to_string()));
    client.close().await;
}

#[tokio::test]
async fn a_question_gets_its_answers() {
    let rig = Rig::new();
    let option = |label: &str| json!({"label": label, "description": "d"});
    let question = |text: &str, multi: bool| {
        json!({"question": text, "header": "H", "multiSelect": multi,
        "options": [option("Red"), option("Blue")]})
    };
    let input = json!({"questions": [question("Which color?", false), question("Which others?", true)]});
    let mut client = rig.calling("AskUserQuestion", input).await;
    let asked = client.asked().await;
    assert_eq!((asked.kind, asked.questions.len()), (ChoiceKind::Question, 2));
    let answers = json!({"q1": "Blue", "q2": ["Red", "Blue"]}).as_object().unwrap().clone();
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: Answer::Answers(answers) }).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    let request = rig.last_request();
    for answer in [r#"\"Which color?\"=\"Blue\""#, r#"\"Which others?\"=\"Red, Blue\""#] {
        assert!(request.contains(answer), "{answer} is not in {request}");
    }
    client.close().await;
}

#[tokio::test]
async fn a_plan_is_kept_until_it_is_accepted() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let plan = || AgentCommand::Prompt(Prompt { permission_mode: "plan".into(), ..prompt("plan it") });
    for (kind, mode) in [(OptionKind::RejectOnce, "plan"), (OptionKind::AllowOnce, "default")] {
        rig.mock.script([call("ExitPlanMode", &json!({"plan": "1. do it"}))]);
        client.send(plan()).await;
        let mut events = client.until(|event| matches!(event, AgentEvent::ChoiceAsked(_))).await;
        let Some(AgentEvent::ChoiceAsked(asked)) = events.pop() else { panic!("no question") };
        choose(&client, asked, kind).await;
        let (rest, outcome) = client.turn().await;
        events.extend(rest);
        let last = events
            .iter()
            .rev()
            .find_map(|event| if let AgentEvent::Mode { mode, .. } = event { mode.clone() } else { None });
        assert_eq!((last.as_deref(), outcome), (Some(mode), COMPLETED), "{events:?}");
    }
    client.close().await;
}

#[tokio::test]
async fn a_cancel_is_quick_while_it_streams_and_while_it_asks() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    client.prompt("SLOW").await;
    client.until(|event| text(std::slice::from_ref(event)).contains("slow")).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    rig.mock.script([call("Bash", &touch("a.txt"))]);
    client.prompt("go").await;
    client.asked().await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert!(!rig.made("a.txt"));
    // Before the agent has even begun.
    client.prompt("SLOW").await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert_eq!(talk(&mut client, "hi").await.1, "Hello from mock");
    client.close().await;
}

#[tokio::test]
async fn a_steered_text_reaches_the_model_with_the_tools_result() {
    let rig = Rig::new();
    let mut client = rig.calling("Bash", touch("a.txt")).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Steer { id: 9, text: "mind the gap".into() }).await;
    choose(&client, asked, OptionKind::AllowOnce).await;
    let (events, outcome) = client.turn().await;
    let at = |fits: &dyn Fn(&AgentEvent) -> bool| events.iter().position(fits);
    let finished = at(&|event| matches!(event, AgentEvent::ToolFinished { .. })).unwrap();
    let steered = at(&|event| *event == AgentEvent::Steered { id: 9 }).unwrap();
    assert!(finished < steered && outcome == COMPLETED, "{events:?}");
    assert!(rig.last_request().contains("mind the gap") && rig.mock.generations().len() == 2);
    // Where no tool follows, it is the next thing that runs, in the same turn.
    client.prompt("hi").await;
    client.send(AgentCommand::Steer { id: 10, text: "and that".into() }).await;
    let (events, outcome) = client.turn().await;
    assert!(events.contains(&AgentEvent::Steered { id: 10 }) && outcome == COMPLETED, "{events:?}");
    assert!(rig.last_request().contains("and that"));
    client.close().await;
}

#[tokio::test]
async fn it_goes_on_after_it_was_killed_and_an_unknown_conversation_poisons_nothing() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    let (_, answer) = talk(&mut client, "the word is xylophone").await;
    rig.transcript
        .lock()
        .unwrap()
        .extend([message(Role::User, "the word is xylophone"), message(Role::Assistant, &answer)]);
    rig.native_id = opened.native_id;
    let leader = nix::unistd::Pid::from_raw(rig.ledger.running()[0].pgid);
    nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(client.closed().await, []);
    let unknown = Some(uuid::Uuid::now_v7().to_string());
    for (id, resumed) in [(rig.native_id.clone(), Resumed::Native), (unknown, Resumed::Replayed)] {
        rig.native_id.clone_from(&id);
        let (mut client, opened) = rig.open().await;
        assert_eq!((opened.resumed, opened.native_id == id), (Some(resumed), resumed == Resumed::Native));
        let (events, _) = talk(&mut client, "and again").await;
        assert!(rig.last_request().contains("xylophone"));
        assert!(usage(&events).cost_usd < Some(0.01), "paid twice: {events:?}");
        client.close().await;
    }
}

#[tokio::test]
async fn what_the_provider_refuses_fails_the_turn_and_is_no_answer() {
    let rig = Rig::new();
    for (word, expected) in [("ERR401", "/login"), ("ERR429", "429"), ("ERR500", "500")] {
        let (mut client, _) = rig.open().await;
        client.prompt(word).await;
        let (events, outcome) = client.turn().await;
        assert!(failure(&outcome, "agent_error").contains(expected), "{outcome:?}");
        assert_eq!(text(&events), "");
        let retry = |event: &AgentEvent| matches!(event, AgentEvent::Status { reason: Some(reason), .. } if reason.starts_with("retry 1 of 1"));
        assert!(events.iter().any(retry), "{events:?}");
        client.close().await;
    }
    let (mut client, _) = rig.open().await;
    client.send(AgentCommand::Prompt(Prompt { model: Some("nonsense".into()), ..prompt("hi") })).await;
    assert!(failure(&client.turn().await.1, "model_not_found").contains("offers `default`"));
    assert_eq!(talk(&mut client, "hi").await.1, "Hello from mock");
    client.close().await;
}

#[tokio::test]
async fn a_model_is_changed_and_shown_as_what_it_really_is() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    for (asked, runs) in [("sonnet", "claude-sonnet-5-5"), ("claude-opus-4-1", "claude-opus-5-5")] {
        client.send(AgentCommand::Prompt(Prompt { model: Some(asked.into()), ..prompt("hi") })).await;
        let (events, outcome) = client.turn().await;
        let told = |event: &AgentEvent| matches!(event, AgentEvent::Status { reason: Some(reason), .. } if reason.contains(runs));
        assert!(events.iter().any(told) && outcome == COMPLETED, "{events:?}");
        assert_eq!(rig.mock.generations().last().unwrap().body["model"], runs);
    }
    client.close().await;
}

#[tokio::test]
async fn commands_answer_and_a_cleared_conversation_stays_cleared() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    talk(&mut client, "the word is xylophone").await;
    assert!(talk(&mut client, "/cost").await.1.contains("Estimated cost"));
    let (events, _) = talk(&mut client, "/clear").await;
    let id = events
        .iter()
        .find_map(|event| if let AgentEvent::Opened(opened) = event { opened.native_id.clone() } else { None });
    assert!(id.is_some() && id != opened.native_id, "{events:?}");
    talk(&mut client, "after it").await;
    client.close().await;
    rig.native_id = id;
    let (mut client, opened) = rig.open().await;
    assert_eq!(opened.resumed, Some(Resumed::Native));
    talk(&mut client, "hi").await;
    let request = rig.last_request();
    assert!(!request.contains("xylophone") && request.contains("after it"), "{request}");
    client.close().await;
}

#[tokio::test]
async fn a_sub_agent_works_beside_the_answer() {
    let rig = Rig::new();
    let input = json!({"description": "look", "prompt": "look around", "subagent_type": "general-purpose",
        "run_in_background": false});
    let (mut client, _) = rig.open().await;
    rig.mock.script([call("Agent", &input), call("Bash", &json!({"command": "pwd", "description": "where"}))]);
    client.prompt("go").await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("Tool finished, all done.", COMPLETED), "{events:?}");
    let news = |event: &AgentEvent| matches!(event, AgentEvent::ToolUpdated { output: Value::String(said), .. } if said == "[Bash: pwd]");
    assert!(events.iter().any(news), "{events:?}");
    let cards = events.iter().filter(|event| matches!(event, AgentEvent::ToolFinished { .. })).count();
    assert_eq!(cards, 1, "{events:?}");
    // Its tokens count, too: two calls of the answer (1 and 7) and two of its own.
    assert_eq!(usage(&events).output_tokens, 16, "{:?}", usage(&events));
    client.close().await;
}

#[tokio::test]
async fn files_reach_the_model() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let file = |name: &str, media_type: &str, content: &str| Attachment {
        name: name.into(),
        media_type: media_type.into(),
        content_base64: content.into(),
    };
    let pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let attachments = Arc::new(vec![file("a.png", "image/png", pixel), file("a.txt", "text/plain", "bWFyaW1iYQ==")]);
    client.send(AgentCommand::Prompt(Prompt { attachments, ..prompt("look") })).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    let request = rig.last_request();
    assert!(request.contains(r#""type":"image""#) && request.contains("marimba"), "{request}");
    client.close().await;
}

#[tokio::test]
async fn bypass_asks_nothing_even_where_the_agent_refuses_it() {
    let mut rig = Rig::new();
    rig.config.allow_bypass = true;
    let (mut client, _) = rig.open().await;
    rig.mock.script([call("Bash", &touch("a.txt"))]);
    client.send(AgentCommand::Prompt(Prompt { permission_mode: "bypass".into(), ..prompt("go") })).await;
    let (events, outcome) = client.turn().await;
    assert!(rig.made("a.txt") && outcome == COMPLETED, "{events:?}");
    rig.mock.script([call("Bash", &touch("b.txt"))]);
    client.send(AgentCommand::Prompt(Prompt { permission_mode: "dont_ask".into(), ..prompt("go") })).await;
    let (events, outcome) = client.turn().await;
    assert!(!rig.made("b.txt") && outcome == COMPLETED, "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_model_for_one_message_does_not_come_back_with_the_conversation() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    let own = opened.model.clone();
    client.send(AgentCommand::Prompt(Prompt { model: Some("haiku".into()), ..prompt("hi") })).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    assert_ne!(rig.mock.generations().last().unwrap().body["model"].as_str(), own.as_deref());
    client.close().await;
    rig.native_id = opened.native_id;
    let (mut client, opened) = rig.open().await;
    assert_eq!((opened.resumed, &opened.model), (Some(Resumed::Native), &own));
    talk(&mut client, "and again").await;
    assert_eq!(rig.mock.generations().last().unwrap().body["model"].as_str(), own.as_deref());
    client.close().await;
}

#[tokio::test]
async fn a_model_that_is_not_on_offer_is_refused_cold_as_warm_and_offered_to_nobody() {
    let rig = Rig::new();
    let mut spec = open_spec(rig.work.path(), &rig.ledger);
    spec.model = Some("typo".into());
    let live = ClaudeAgent::new("claude".into(), rig.config.clone(), AgentLimits::default()).start(spec);
    let mut client = Client { live, ledger: Arc::clone(&rig.ledger), _folder: Arc::clone(&rig.work) };
    let opened = client.opened().await;
    assert!(opened.models.iter().all(|model| model["id"] != "typo"), "{opened:?}");
    client.send(AgentCommand::Prompt(Prompt { model: Some("typo".into()), ..prompt("hi") })).await;
    assert!(failure(&client.turn().await.1, "model_not_found").contains("offers `default`"));
    client.close().await;
}
