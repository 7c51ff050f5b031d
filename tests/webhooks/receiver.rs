//! A receiver of webhooks on loopback that answers what the test says, and keeps what it got.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use greenroom::webhooks::signature::{self, Headers, Secret};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::gateway::in_time;

/// What a receiver answers to its request of that number, from 0.
type Answers = Arc<dyn Fn(usize) -> String + Send + Sync>;

/// A receiver. It goes with the test's runtime.
pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Receiver<usize>,
    answers: Arc<Mutex<Answers>>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: String,
    pub at: std::time::Instant,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }

    pub fn id(&self) -> &str {
        self.header(signature::ID)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The type and the event, after a look at the form of the body.
    pub fn event(&self) -> Value {
        let body = self.json();
        let names: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["type", "timestamp", "data"], "{body}");
        body["data"].clone()
    }

    /// Whether it is signed with a secret, now.
    pub fn is_signed(&self, secret: &str) -> bool {
        let headers = Headers {
            id: self.id(),
            timestamp: self.header(signature::TIMESTAMP),
            signature: self.header(signature::SIGNATURE),
        };
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let secret = Secret::parse(secret).unwrap();
        signature::verify(&[secret], &headers, self.body.as_bytes(), now, signature::TOLERANCE).is_ok()
    }
}

/// An answer without a body.
pub fn answer(status: u16, more: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{more}content-length: 0\r\n\r\n")
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::answering(|_| answer(204, "")).await
    }

    /// One with a status for each request, by its number.
    pub async fn answering(answers: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answers) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(Mutex::new(Arc::new(answers) as Answers)));
        let (sender, count) = watch::channel(0);
        let (all, with) = (Arc::clone(&seen), Arc::clone(&answers));
        tokio::spawn(async move {
            let sender = Arc::new(sender);
            while let Ok((stream, _)) = listener.accept().await {
                let (all, with, sender) = (Arc::clone(&all), Arc::clone(&with), Arc::clone(&sender));
                tokio::spawn(async move { serve(stream, &all, &with, &sender).await });
            }
        });
        Self { address, seen, count, answers }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on it answers that.
    pub fn now_answers(&self, answers: impl Fn(usize) -> String + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }

    /// All that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until so many came; gives all.
    pub async fn wait(&self, count: usize) -> Vec<Seen> {
        let mut news = self.count.clone();
        in_time(&format!("{count} deliveries"), news.wait_for(|seen| *seen >= count)).await.unwrap();
        self.seen()
    }
}

async fn serve(
    mut stream: TcpStream,
    all: &Mutex<Vec<Seen>>,
    answers: &Mutex<Answers>,
    count: &watch::Sender<usize>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            more(&mut stream, &mut buffer).await?;
        };
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while buffer.len() < end + 4 + length {
            more(&mut stream, &mut buffer).await?;
        }
        let body = String::from_utf8(buffer[end + 4..end + 4 + length].to_vec()).unwrap();
        buffer.drain(..end + 4 + length);
        let number = {
            let mut all = all.lock().unwrap();
            all.push(Seen { head, body, at: std::time::Instant::now() });
            all.len() - 1
        };
        let answers = Arc::clone(&answers.lock().unwrap());
        stream.write_all(answers(number).as_bytes()).await.ok()?;
        count.send_replace(number + 1);
    }
}

/// Reads some more; none at the end.
async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(1..) => Some(()),
        _ => None,
    }
}
