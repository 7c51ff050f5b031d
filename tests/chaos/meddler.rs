//! Clients that interfere: answers, cancels, aborts, edits, moves, retries, resets, cleared queues. What they ask may be
//! refused, and never breaks anything.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::{World, breathe};

/// One for each session.
pub fn start(world: &Arc<World>, rng: &mut StdRng) -> Vec<JoinHandle<()>> {
    let keys = world.keys.clone().into_iter();
    keys.map(|key| tokio::spawn(meddle(Arc::clone(world), key, StdRng::from_rng(rng)))).collect()
}

/// Goes on until the session has come to rest, so that nothing waits for an answer for ever.
async fn meddle(world: Arc<World>, key: String, mut rng: StdRng) {
    let base = format!("/v1/sessions/{key}");
    let mut quiet = 0;
    while quiet < 3 {
        breathe().await;
        let Some(snapshot) = world.snapshot(&key).await else { continue };
        quiet = if world.finished() && snapshot["busy"] == false { quiet + 1 } else { 0 };
        let turn = &snapshot["current_turn"];
        if let Some(choice) = turn["pending_choice_id"].as_str() {
            for body in [json!({ "allow": rng.random::<bool>() }), json!({ "answers": { "answer": "this" } })] {
                ask(&world, "answers", Method::POST, format!("{base}/choices/{choice}"), &body).await;
            }
            continue;
        }
        let running = turn["id"].as_str();
        match rng.random_range(0..120) {
            0..3 => {
                if let Some(id) = running {
                    ask(&world, "cancels", Method::POST, format!("{base}/turns/{id}/cancel"), &json!({})).await;
                }
            }
            3..5 => ask(&world, "aborts", Method::POST, format!("{base}/abort"), &json!({})).await,
            5..20 => on_queued(&world, &base, &mut rng).await,
            20..22 if !world.finished() => on_ended(&world, &base).await,
            22 => ask(&world, "cleared queues", Method::DELETE, format!("{base}/queue"), &Value::Null).await,
            23 => ask(&world, "resets", Method::POST, format!("{base}/reset"), &json!({})).await,
            24 => ask(&world, "reloads", Method::POST, format!("{base}/reload"), &json!({})).await,
            25 => ask(&world, "patches", Method::PATCH, base.clone(), &json!({ "title": "another" })).await,
            _ => {}
        }
    }
}

async fn turns(world: &World, base: &str) -> Vec<Value> {
    let listed = world.call(world.request(Method::GET, &format!("{base}/turns?limit=20"))).await;
    let Some((200, listed)) = listed else { return Vec::new() };
    listed["data"].as_array().unwrap().clone()
}

/// Changes a turn that waits, or one that does not any more.
async fn on_queued(world: &World, base: &str, rng: &mut StdRng) {
    let waiting: Vec<Value> = turns(world, base).await.into_iter().filter(|turn| turn["state"] == "queued").collect();
    if waiting.is_empty() {
        return;
    }
    let mut pick = || waiting[rng.random_range(0..waiting.len())]["id"].as_str().unwrap().to_owned();
    let (id, other) = (pick(), pick());
    match rng.random_range(0..4) {
        0 => ask(world, "cancels", Method::POST, format!("{base}/turns/{id}/cancel"), &json!({})).await,
        1 => ask(world, "edits", Method::PATCH, format!("{base}/turns/{id}"), &json!({ "text": "edited" })).await,
        2 => ask(world, "moves", Method::POST, format!("{base}/turns/{id}/move"), &json!({ "before": null })).await,
        _ if id != other => {
            ask(world, "moves", Method::POST, format!("{base}/turns/{id}/move"), &json!({ "before": other })).await;
        }
        _ => {}
    }
}

/// Tries a turn again that did not complete.
async fn on_ended(world: &World, base: &str) {
    let ended = turns(world, base).await;
    if let Some(turn) = ended.iter().find(|turn| turn["state"] == "interrupted" || turn["state"] == "failed") {
        let id = turn["id"].as_str().unwrap();
        ask(world, "retries", Method::POST, format!("{base}/turns/{id}/retry"), &json!({})).await;
    }
}

async fn ask(world: &World, what: &str, method: Method, path: String, body: &Value) {
    let request = world.request(method, &path);
    let request = if body.is_null() { request } else { request.json(body) };
    let Some((status, answer)) = world.call(request).await else { return };
    match status {
        200..300 => world.count(what),
        // It came too late, or the server was busy with something else.
        400 | 404 | 409 | 429 | 502 | 503 => {}
        _ => panic!("{path} was answered {status}: {answer}"),
    }
}
