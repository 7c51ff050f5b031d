//! Clients that follow: SSE, WebSocket of one session, WebSocket of all sessions, and the feed. They leave when they
//! please and come back from their cursor, or from an earlier one, and must be shown each event once and in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, Stream, StreamExt as _, stream::unfold};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{World, breathe};

/// A connection that shows nothing for so long is given up; nothing hangs on it.
const SILENCE: Duration = Duration::from_millis(500);

/// Two for each session, one that follows all on one socket, and one of the feed.
pub fn start(world: &Arc<World>, rng: &mut StdRng) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    for key in world.keys.clone() {
        all.push(tokio::spawn(by_sse(Arc::clone(world), key.clone(), StdRng::from_rng(rng))));
        all.push(tokio::spawn(by_socket(Arc::clone(world), vec![key], StdRng::from_rng(rng))));
    }
    all.push(tokio::spawn(by_socket(Arc::clone(world), world.keys.clone(), StdRng::from_rng(rng))));
    all.push(tokio::spawn(by_feed(Arc::clone(world), StdRng::from_rng(rng))));
    all
}

/// Where a follower is in each session.
struct Places {
    cursors: BTreeMap<String, u64>,
    /// Events until it leaves.
    patience: u32,
}

impl Places {
    fn new(keys: &[String]) -> Self {
        Self { cursors: keys.iter().map(|key| (key.clone(), 0)).collect(), patience: 0 }
    }

    /// Before a new connection: some come back from an earlier place than where they were.
    async fn come_back(&mut self, world: &World, rng: &mut StdRng) {
        self.patience = if rng.random_ratio(1, 3) { u32::MAX } else { rng.random_range(1..400) };
        if rng.random_ratio(1, 4) {
            for cursor in self.cursors.values_mut() {
                *cursor = cursor.saturating_sub(rng.random_range(0..100));
            }
            world.count("returns to an earlier event");
        }
        if rng.random_ratio(1, 4) && !world.finished() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
        }
        world.count("connections of followers");
    }

    /// Takes what was shown; false when the follower leaves now.
    fn take(&mut self, world: &World, data: &str) -> bool {
        if data.is_empty() {
            // A lone id.
            return true;
        }
        let event: Value = serde_json::from_str(data).unwrap();
        let kind = event["type"].as_str().unwrap();
        let Some(seq) = event["seq"].as_u64() else {
            assert_ne!(kind, "stream.gap", "a cursor that was given is not known: {data}");
            return kind != "stream.end" && event["ok"] != false;
        };
        let key = event["session"].as_str().unwrap();
        // The feed shows sessions that are none of ours.
        let Some(cursor) = self.cursors.get_mut(key) else { return true };
        assert_eq!(seq, *cursor + 1, "{key}: a gap or a duplicate: {data}");
        *cursor = seq;
        world.saw(key, seq, data);
        self.patience -= 1;
        self.patience > 0
    }

    /// True once all sessions have come to rest and their last events were shown.
    async fn done(&self, world: &World) -> bool {
        if !world.finished() {
            return false;
        }
        for (key, cursor) in &self.cursors {
            if world.rests_at(key).await != Some(*cursor) {
                return false;
            }
        }
        true
    }
}

async fn by_sse(world: Arc<World>, key: String, mut rng: StdRng) {
    let mut places = Places::new(std::slice::from_ref(&key));
    while !places.done(&world).await {
        places.come_back(&world, &mut rng).await;
        let cursor = places.cursors[&key].to_string();
        let request = world.request(Method::GET, &format!("/v1/sessions/{key}/events"));
        let request = request.header("accept", "text/event-stream").header("last-event-id", cursor);
        let Some(answer) = world.head(request).await.filter(|answer| answer.status() == 200) else {
            breathe().await;
            continue;
        };
        let mut stream = sse_events(answer);
        while let Ok(Some((_, data))) = tokio::time::timeout(SILENCE, stream.next()).await {
            if !places.take(&world, &data) {
                break;
            }
        }
    }
}

async fn by_socket(world: Arc<World>, keys: Vec<String>, mut rng: StdRng) {
    let mut places = Places::new(&keys);
    'again: while !places.done(&world).await {
        places.come_back(&world, &mut rng).await;
        let url = match keys.as_slice() {
            [key] => format!("ws://{}/v1/sessions/{key}/ws?after={}", world.address(), places.cursors[key]),
            _ => format!("ws://{}/v1/ws", world.address()),
        };
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else {
            breathe().await;
            continue;
        };
        if keys.len() > 1 {
            for (key, cursor) in &places.cursors {
                let op = json!({ "id": key, "op": "subscribe", "session": key, "after": cursor });
                if socket.send(Message::text(op.to_string())).await.is_err() {
                    continue 'again;
                }
            }
        }
        while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, socket.next()).await {
            if let Message::Text(text) = message
                && !places.take(&world, &text)
            {
                break;
            }
        }
    }
}

/// Follows everything at once. Its cursor is opaque, so it comes back from exactly where it was.
async fn by_feed(world: Arc<World>, mut rng: StdRng) {
    let mut places = Places::new(&world.keys);
    let mut place = "0".to_owned();
    while !places.done(&world).await {
        let before = places.cursors.clone();
        places.come_back(&world, &mut rng).await;
        places.cursors = before;
        let request = world.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
        let Some(answer) = world.head(request.header("last-event-id", &place)).await else {
            breathe().await;
            continue;
        };
        if answer.status() != 200 {
            assert_eq!(answer.status(), 503, "{place}");
            breathe().await;
            continue;
        }
        let mut stream = sse_events(answer);
        while let Ok(Some((id, data))) = tokio::time::timeout(SILENCE, stream.next()).await {
            if let Some(id) = id {
                place = id;
            }
            if !places.take(&world, &data) {
                break;
            }
        }
    }
}

/// The blocks of an SSE answer that have an `id:` or `data:`. It ends where the connection does.
pub fn sse_events(answer: reqwest::Response) -> impl Stream<Item = (Option<String>, String)> + Unpin {
    let stream = unfold((answer, Vec::<u8>::new()), |(mut answer, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = buffer.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (id, data) = (field("id: "), field("data: "));
                if id.is_none() && data.is_none() {
                    continue;
                }
                return Some(((id, data.unwrap_or_default()), (answer, buffer)));
            }
            match answer.chunk().await {
                Ok(Some(piece)) => buffer.extend_from_slice(&piece),
                Ok(None) | Err(_) => return None,
            }
        }
    });
    Box::pin(stream)
}
