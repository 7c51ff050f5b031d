//! What real agents don't do on demand, end to end: a scripted agent behind a real server. What its adapter makes of
//! each fault alone is in `tests/agents`.

use serde_json::{Value, json};

use crate::{
    RUNTIME,
    gateway::wire,
    rig::Rig,
    scenarios::assert_settled,
    subject::{Subject, Variant},
    talk::Talk,
};

fn play(scenario: impl Future<Output = ()>) {
    RUNTIME.block_on(async { tokio::time::timeout(crate::LIMIT, scenario).await.expect("it takes for ever") });
}

fn steps(steps: Value) -> String {
    steps.to_string()
}

fn call(status: &str) -> Value {
    json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "ls", "kind": "execute", "status": status})
}

/// The process id that the scripted agent says in its first piece of text.
async fn pid(talk: &mut Talk<'_>) -> i32 {
    let said = talk.until("it said a pid", |event| event["type"] == "message.delta").await;
    said["data"]["delta"].as_str().unwrap().parse().unwrap()
}

fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn noise_half_lines_huge_lines_and_floods_come_through_as_one_good_turn() {
    play(async {
        let rig = Rig::own(Subject::Fake);
        let key = rig.new_session().await;
        let half = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"fake-1","#;
        let rest = r#""update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"whole"}}}}"#;
        let prompt = steps(
            json!([{"raw": "not json\n\u{1b}[31mred\u{1b}[0m\n[]\n7\n"}, {"raw": half}, {"raw": format!("{rest}\n")},
            {"long": 10 << 20}, {"long": 17 << 20}, {"flood": 5000}, {"say": "end"}]),
        );
        let told = rig.told(&key, prompt).await;
        told.assert_state("completed");
        let expected: String = (0..5000).map(|number| format!("{number} ")).collect();
        assert_eq!(told.said(), format!("whole{expected}end"));
        let faults: Vec<&Value> = told.of("error").into_iter().map(|event| &event["data"]["code"]).collect();
        assert_eq!(faults, ["line_too_long"], "only the line beyond the limit is a fault");
        let log = rig.server.events(&key).await;
        assert!((1..).zip(&log).all(|(seq, event)| event["seq"] == seq), "gaps in the log");
        assert_eq!(rig.answer(&key, "next").await, "echo: next");
    });
}

#[test]
fn an_agent_that_ignores_everything_is_stopped_with_all_that_it_started() {
    play(async {
        let rig = Rig::with(Subject::Fake, Variant::Stubborn);
        let key = rig.new_session().await;
        let mut talk = rig.talk(&key, steps(json!([{"fork": {"detached": true}}, {"hang": null}]))).await;
        let grandchild = pid(&mut talk).await;
        assert!(lives(grandchild));
        talk.cancel().await;
        talk.end().await.assert_state("cancelled");
        assert!(!lives(grandchild), "told as stopped while its grandchild lives");
        assert!(rig.processes().is_empty());
        assert_eq!(rig.answer(&key, "next").await, "echo: next");
    });
}

#[test]
fn an_agent_that_ends_in_the_middle_fails_its_turn_with_its_last_words() {
    play(async {
        let rig = Rig::own(Subject::Fake);
        let key = rig.new_session().await;
        let exit = json!({"exit": {"code": 9, "stderr": "out of luck\n"}});
        let told = rig.told(&key, steps(json!([{"say": "half"}, {"update": call("in_progress")}, exit]))).await;
        told.assert_state("failed");
        let message = told.finished()["error"]["message"].as_str().unwrap();
        assert!(message.contains("exit status: 9") && message.contains("out of luck"), "{message}");
        assert_settled(&told);
        let kept = wire::of_type(&told.events, "message.completed").pop().unwrap();
        assert_eq!(kept["data"]["message"]["parts"][0]["text"], "half");
        let next = rig.told(&key, "next").await;
        next.assert_state("completed");
        assert_eq!(next.of("turn.started")[0]["data"]["resumed"], "replayed");
    });
}

#[test]
fn silence_has_a_limit_and_its_end_is_told() {
    play(async {
        let rig = Rig::with(Subject::Fake, Variant::Stubborn);
        let key = rig.new_session().await;
        let told = rig.told(&key, steps(json!([{"say": "half"}, {"hang": null}]))).await;
        told.assert_state("failed");
        assert_eq!(told.finished()["reason"], "stalled");
        assert_eq!(told.of("error")[0]["data"]["code"], "agent_timeout");
        assert_eq!(rig.answer(&key, "next").await, "echo: next");
    });
}

#[test]
fn after_the_death_of_the_server_what_ignores_everything_is_swept() {
    play(async {
        let mut rig = Rig::with(Subject::Fake, Variant::Stubborn);
        let key = rig.new_session().await;
        let mut talk = rig.talk(&key, steps(json!([{"fork": {"detached": true}}, {"until_cancelled": null}]))).await;
        let (grandchild, running) = (pid(&mut talk).await, talk.turn.clone());
        drop(talk);
        rig.server.kill9();
        assert!(lives(grandchild), "it was to outlive the server");
        rig.server.restart();
        assert_eq!(rig.server.finished(&key, &running).await["state"], "interrupted");
        rig.wait_for_no_process();
        assert!(!lives(grandchild));
        assert_eq!(rig.answer(&key, "next").await, "echo: next");
    });
}

/// A form of the protocol, as any agent may put one.
#[test]
fn a_form_is_a_question_and_a_cancel_takes_it_back() {
    play(async {
        let rig = Rig::own(Subject::Fake);
        let key = rig.new_session().await;
        let field = json!({"type": "string", "title": "Colour", "oneOf": [{"const": "Red"}, {"const": "Blue"}]});
        let params = json!({"mode": "form", "message": "Which?", "requestedSchema": {"properties": {"colour": field}}});
        let ask = json!([{"request": {"id": "f", "method": "elicitation/create", "params": params}}]);
        let mut talk = rig.talk(&key, steps(ask.clone())).await;
        let choice = talk.asked().await.unwrap();
        assert_eq!((&choice["kind"], &choice["questions"][0]["question"]), (&json!("question"), &json!("Which?")));
        talk.choose(&choice, json!({"allow": true})).await.refused(400, "invalid_choice_payload");
        talk.choose(&choice, json!({"answers": {"colour": "Blue"}})).await.ok(202);
        let told = talk.end().await;
        assert_eq!(told.said(), r#"{"action":"accept","content":{"colour":"Blue"}}"#);
        let mut talk = rig.talk(&key, steps(ask)).await;
        talk.asked().await.unwrap();
        talk.cancel().await;
        let told = talk.end().await;
        told.assert_state("cancelled");
        assert_settled(&told);
    });
}
