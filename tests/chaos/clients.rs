//! Clients that live through the death of their server: they send until they have an answer, and follow from their
//! last cursor. What they were told is all that the judge gets to see of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// A turn that was acknowledged.
#[derive(Debug, Clone)]
pub struct Told {
    /// The client's own id of the message: also its `Idempotency-Key`.
    pub client_id: String,
    /// The turn that the server named.
    pub turn: String,
}

/// What all clients share.
pub struct World {
    address: Mutex<SocketAddr>,
    keys: Vec<String>,
    told: Mutex<BTreeMap<String, Vec<Told>>>,
    /// What each subscriber saw: session → seq → bytes.
    seen: Mutex<BTreeMap<String, BTreeMap<u64, String>>>,
    /// The server was killed since a client last looked.
    pub down: AtomicBool,
    /// No more sends.
    pub finish: AtomicBool,
    http: reqwest::Client,
}

impl World {
    pub fn new(address: SocketAddr, sessions: usize) -> Self {
        Self {
            address: Mutex::new(address),
            keys: (0..sessions).map(|i| format!("chaos:{i}")).collect(),
            told: Mutex::default(),
            seen: Mutex::default(),
            down: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            http: reqwest::Client::new(),
        }
    }

    pub fn moved_to(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
    }

    pub fn told(&self) -> BTreeMap<String, Vec<Told>> {
        self.told.lock().unwrap().clone()
    }

    pub fn seen(&self) -> BTreeMap<String, BTreeMap<u64, String>> {
        self.seen.lock().unwrap().clone()
    }

    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    fn finished(&self) -> bool {
        self.finish.load(Ordering::SeqCst)
    }

    /// Notes an event; the same `seq` must always have the same bytes, and none may be left out.
    fn saw(&self, key: &str, cursor: &mut u64, event: String) {
        let seq = serde_json::from_str::<Value>(&event).unwrap()["seq"].as_u64().unwrap();
        assert_eq!(seq, *cursor + 1, "{key}: a gap or a duplicate");
        *cursor = seq;
        let before = self.seen.lock().unwrap().entry(key.to_owned()).or_default().insert(seq, event);
        assert_eq!(before, None, "{key}: {seq} was shown twice to one subscriber");
    }
}

pub fn start(world: &Arc<World>, rng: &mut StdRng) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::new();
    for (i, key) in world.keys.clone().into_iter().enumerate() {
        let (sender, meddler) = (StdRng::from_rng(rng), StdRng::from_rng(rng));
        clients.push(tokio::spawn(send(Arc::clone(world), key.clone(), sender)));
        clients.push(tokio::spawn(meddle(Arc::clone(world), key.clone(), meddler)));
        clients.push(if i % 2 == 0 {
            tokio::spawn(follow_sse(Arc::clone(world), key))
        } else {
            tokio::spawn(follow_socket(Arc::clone(world), key))
        });
    }
    clients
}

/// A pause between two tries; not a way to wait for anything in particular.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Sends one message after the other, each until it is acknowledged.
async fn send(world: Arc<World>, key: String, mut rng: StdRng) {
    for n in 0u64.. {
        if world.finished() {
            return;
        }
        let client_id = format!("{key}-{n}");
        let mut script = json!({ "deltas": rng.random_range(0..20), "delay_ms": rng.random_range(0..4) });
        if rng.random_ratio(1, 4) {
            script["tool"] = json!({ "name": "bash", "input": { "command": "ls" }, "output": "a b" });
        }
        if rng.random_ratio(1, 8) {
            script["ask"] = json!(if rng.random() { "permission" } else { "question" });
        }
        let body = json!({ "text": format!("/script {script}"), "client_id": client_id });
        loop {
            let url = format!("http://{}/v1/sessions/{key}/messages", world.address());
            let request = world.http.post(url).header("idempotency-key", &client_id).json(&body);
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(_down) => {
                    breathe().await;
                    continue;
                }
            };
            let status = answer.status().as_u16();
            let Ok(answer) = answer.json::<Value>().await else { continue };
            if status == 202 {
                let turn = answer["turn"]["id"].as_str().unwrap().to_owned();
                world.told.lock().unwrap().entry(key.clone()).or_default().push(Told { client_id, turn });
                break;
            }
            assert!(matches!(status, 429 | 503), "a send was answered {status}: {answer}");
            breathe().await;
        }
    }
}

/// Answers questions and cancels now and then, so that nothing waits for ever.
async fn meddle(world: Arc<World>, key: String, mut rng: StdRng) {
    let mut quiet = 0;
    while quiet < 3 {
        breathe().await;
        let base = format!("http://{}/v1/sessions/{key}", world.address());
        let Ok(answer) = world.http.get(&base).send().await else { continue };
        let Ok(snapshot) = answer.json::<Value>().await else { continue };
        quiet = if world.finished() && snapshot["busy"] == false { quiet + 1 } else { 0 };
        let turn = &snapshot["current_turn"];
        if let Some(choice) = turn["pending_choice_id"].as_str() {
            for body in [json!({ "allow": rng.random::<bool>() }), json!({ "answers": { "answer": "this" } })] {
                let _ = world.http.post(format!("{base}/choices/{choice}")).json(&body).send().await;
            }
        } else if let Some(id) = turn["id"].as_str().filter(|_| rng.random_ratio(1, 40)) {
            let request =
                world.http.post(format!("{base}/turns/{id}/cancel")).header("content-type", "application/json");
            let _ = request.send().await;
        }
    }
}

async fn follow_sse(world: Arc<World>, key: String) {
    let mut cursor = 0;
    while !done(&world, &key, cursor).await {
        let url = format!("http://{}/v1/sessions/{key}/events", world.address());
        let request =
            world.http.get(url).header("accept", "text/event-stream").header("last-event-id", cursor.to_string());
        let Ok(answer) = request.send().await else {
            breathe().await;
            continue;
        };
        if !answer.status().is_success() {
            breathe().await;
            continue;
        }
        let (mut bytes, mut buffer) = (answer.bytes_stream(), Vec::new());
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(Duration::from_millis(500), bytes.next()).await {
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = buffer.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                // Control frames have no id; a lone id is a cursor without an event.
                if let (Some(_), Some(data)) = (field("id: "), field("data: ")) {
                    world.saw(&key, &mut cursor, data.to_owned());
                }
            }
        }
    }
}

async fn follow_socket(world: Arc<World>, key: String) {
    let mut cursor = 0;
    while !done(&world, &key, cursor).await {
        let url = format!("ws://{}/v1/sessions/{key}/ws?after={cursor}", world.address());
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else {
            breathe().await;
            continue;
        };
        while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_millis(500), socket.next()).await {
            if let Message::Text(text) = message
                && text.starts_with("{\"seq\":")
            {
                world.saw(&key, &mut cursor, text.to_string());
            }
        }
    }
}

/// True once the session has come to rest and the subscriber has its last event.
async fn done(world: &World, key: &str, cursor: u64) -> bool {
    if !world.finished() {
        return false;
    }
    let url = format!("http://{}/v1/sessions/{key}", world.address());
    let Ok(answer) = world.http.get(url).send().await else { return false };
    let Ok(snapshot) = answer.json::<Value>().await else { return false };
    snapshot["busy"] == false && snapshot["last_seq"] == cursor
}
