//! The judge: compares what clients were told with the final log. It knows nothing of the inside.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    belief::{Belief, Turn},
    gateway::TestGateway,
    world::{Answer, Sent, World},
};

/// The log of each session.
pub async fn logs(server: &TestGateway, world: &World) -> Vec<Vec<String>> {
    let mut logs = Vec::new();
    for key in &world.keys {
        logs.push(server.stored(key).await);
    }
    logs
}

pub async fn judge(server: &TestGateway, world: &World) {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (key, log) in world.keys.iter().zip(logs(server, world).await) {
        let belief = read(key, &log);
        let seen = world.seen(key);
        assert_eq!(seen.len(), log.len(), "{key}: not every event was shown, or more than the log has");
        for (bytes, seq) in log.iter().zip(1..) {
            assert_eq!(Some(bytes), seen.get(&seq), "{key}: event {seq} differs from what was shown");
        }
        let sent = world.sent(key);
        for message in &sent {
            happened(key, message, &belief);
        }
        in_order(key, &sent, &belief);
        for (id, turn) in &belief.turns {
            let stored = server.turn(key, id).await;
            assert_eq!(stored["state"].as_str(), turn.state.as_deref(), "{key}: {id} and its event differ");
            *ends.entry(turn.state.clone().unwrap()).or_default() += 1;
        }
    }
    println!("chaos: each turn settled once: {ends:?}");
    assert!(ends.contains_key("completed") && ends.contains_key("interrupted"), "too little has happened: {ends:?}");
    for what in ["turns accepted", "texts offered", "connections of followers", "answers", "cancels"] {
        assert!(world.counted(what) > 0, "no {what}: the test would show nothing");
    }
}

/// The log by its own rules.
fn read(key: &str, log: &[String]) -> Belief {
    let mut belief = Belief::default();
    for (text, seq) in log.iter().zip(1u64..) {
        let event: Value = serde_json::from_str(text).unwrap();
        assert_eq!(event["seq"], seq, "{key}: the log has a gap");
        belief.read(&event);
    }
    belief.at_rest();
    belief
}

/// A message is what its sender was told that it is.
fn happened(key: &str, sent: &Sent, belief: &Belief) {
    let is_it = |turn: &&Turn| turn.client_id.as_deref() == Some(&sent.tag) && !turn.again;
    let turns = belief.turns.values().filter(is_it).count();
    let steered = belief.steered.iter().filter(|text| text.contains(&sent.tag)).count();
    let times = turns + steered;
    match &sent.answer {
        Answer::Turn(id) => {
            assert_eq!(times, 1, "{key}: {sent:?} happened {times} times");
            // A text that was offered and offered again under its key is told as the turn that it has become.
            let turn = belief.turns.get(id).unwrap_or_else(|| panic!("{key}: {sent:?} is not in the log"));
            assert_eq!(turn.client_id.as_deref(), Some(sent.tag.as_str()), "{key}: another turn was named");
        }
        Answer::Steered(_) => assert_eq!(times, 1, "{key}: {sent:?} happened {times} times"),
        Answer::Refused(_) => assert_eq!(times, 0, "{key}: {sent:?} happened {times} times"),
        Answer::Unknown => assert!(times <= 1 && !sent.keyed, "{key}: {sent:?} happened {times} times"),
    }
}

/// Of each line of messages, the later was accepted later; and what nobody put elsewhere ran in that order.
fn in_order(key: &str, sent: &[Sent], belief: &Belief) {
    let mut lines: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for message in sent {
        if let Answer::Turn(id) = &message.answer
            && message.policy != "steer"
        {
            lines.entry(message.line).or_default().push(id);
        }
    }
    let place_in = |order: &[String], id: &str| order.iter().position(|other| other == id);
    for turns in lines.values() {
        let accepted: Vec<_> = turns.iter().map(|id| place_in(&belief.accepted, id)).collect();
        assert!(accepted.is_sorted(), "{key}: not accepted in the order in which they were answered: {turns:?}");
        let in_line = turns.iter().filter(|id| {
            let turn = &belief.turns[**id];
            !turn.moved && !turn.policy_first
        });
        let ran: Vec<_> = in_line.filter_map(|id| place_in(&belief.started, id)).collect();
        assert!(ran.is_sorted(), "{key}: not run in the order in which they were accepted");
    }
}
