//! The judge: compares what clients were told with the final log. It knows nothing of the inside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{clients::World, gateway::TestGateway};

pub async fn judge(server: &TestGateway, world: &World) {
    let (told, seen) = (world.told(), world.seen());
    let (mut turns, mut interrupted) = (0, 0);
    for (key, told) in &told {
        let log = server.stored(key).await;
        let events: Vec<Value> = log.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        for (event, seq) in events.iter().zip(1..) {
            assert_eq!(event["seq"], seq, "{key}: the log has a gap");
        }
        let shown = &seen[key];
        assert_eq!(shown.len(), log.len(), "{key}: the subscriber did not see all events");
        for (bytes, seq) in log.iter().zip(1..) {
            assert_eq!(Some(bytes), shown.get(&seq), "{key}: event {seq} differs from what was shown");
        }
        let mut queued: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut accepted: Vec<&str> = Vec::new();
        let mut started: Vec<&str> = Vec::new();
        let mut finished: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in &events {
            let turn = event["turn_id"].as_str().unwrap_or_default();
            match event["type"].as_str().unwrap() {
                "turn.queued" => {
                    let client_id = event["data"]["turn"]["client_id"].as_str().unwrap();
                    queued.entry(client_id).or_default().push(turn);
                    accepted.push(turn);
                }
                "turn.started" => started.push(turn),
                "turn.finished" => finished.entry(turn).or_default().push(event["data"]["state"].as_str().unwrap()),
                _ => assert!(!finished.contains_key(turn), "{key}: {event} after the end of its turn"),
            }
        }
        for sent in told {
            assert_eq!(
                queued.get(sent.client_id.as_str()),
                Some(&vec![sent.turn.as_str()]),
                "{key}: not accepted once"
            );
        }
        for turn in &accepted {
            let ends = finished.get(turn).unwrap_or_else(|| panic!("{key}: {turn} was never settled"));
            assert_eq!(ends.len(), 1, "{key}: {turn} ended {ends:?}");
            interrupted += usize::from(ends == &["interrupted"]);
        }
        let unique: BTreeSet<&&str> = started.iter().collect();
        assert_eq!(unique.len(), started.len(), "{key}: a turn ran twice");
        let expected: Vec<&str> = accepted.iter().copied().filter(|turn| started.contains(turn)).collect();
        assert_eq!(started, expected, "{key}: turns did not run in the order in which they were accepted");
        for turn in &accepted {
            let stored = server.turn(key, turn).await;
            assert_eq!(stored["state"], finished[turn][0], "{key}: the turn and its event differ");
        }
        turns += accepted.len();
    }
    println!("chaos: {turns} turns accepted, {interrupted} interrupted, each settled once");
}
