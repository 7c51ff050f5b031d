//! Following a session over SSE: reconnects with its cursor, so that every event comes once and in order.

use std::time::{Duration, Instant};

use eventsource_stream::Eventsource as _;
use futures_util::{Stream, StreamExt as _};
use reqwest::Response;
use tokio::sync::mpsc;

use super::{
    client::{Client, ClientError},
    sse::{self, Piece},
};
use crate::ids::SessionKey;

/// Waits between attempts to reconnect: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// What a follower is told.
#[derive(Debug)]
pub enum News {
    /// A piece of the stream.
    Piece(Piece),
    /// The connection is gone; it is being made again.
    Reconnecting,
    /// There will be no more.
    Failed(ClientError),
}

/// The pieces of one SSE answer until it ends or breaks, without what a client ignores.
pub fn pieces(response: Response) -> impl Stream<Item = Piece> + Unpin {
    let events = response.bytes_stream().eventsource();
    // A broken connection and a regular end are the same here: the cursor tells what is missing.
    let good = events.take_while(|event| std::future::ready(event.is_ok()));
    Box::pin(good.filter_map(|event| std::future::ready(event.ok().and_then(|event| sse::read(&event.data)))))
}

/// A growing wait between attempts that gives up after `patience` without success.
#[derive(Debug)]
pub struct Backoff {
    patience: Duration,
    since: Option<Instant>,
    wait: Duration,
}

impl Backoff {
    /// Gives up once nothing has worked for `patience`.
    pub const fn new(patience: Duration) -> Self {
        Self { patience, since: None, wait: BACKOFF.0 }
    }

    /// Something worked.
    pub const fn reset(&mut self) {
        self.since = None;
        self.wait = BACKOFF.0;
    }

    /// Waits before the next attempt, or hands `error` back when it cannot pass or patience is at its end.
    ///
    /// # Errors
    /// `error` itself.
    pub async fn wait_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !error.is_passing() || since.elapsed() >= self.patience {
            return Err(error);
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(BACKOFF.1);
        Ok(())
    }
}

/// Follows the log of `key` after `cursor` in a task of its own, until the receiver is dropped.
///
/// Each event comes exactly once. The stream ends with [`News::Failed`], or with an `End` that is not to be retried.
pub fn follow(client: Client, key: SessionKey, cursor: u64, patience: Duration) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(error) = run(&client, &key, cursor, patience, &sender).await {
            let _ = sender.send(News::Failed(error)).await;
        }
    });
    receiver
}

async fn run(
    client: &Client,
    key: &SessionKey,
    mut cursor: u64,
    patience: Duration,
    sender: &mpsc::Sender<News>,
) -> Result<(), ClientError> {
    let mut backoff = Backoff::new(patience);
    loop {
        let response = match client.events(key, cursor).await {
            Ok(response) => response,
            Err(error) => {
                backoff.wait_after(error).await?;
                continue;
            }
        };
        let mut stream = pieces(response);
        while let Some(piece) = stream.next().await {
            match &piece {
                Piece::Event(event) if event.seq <= cursor => continue,
                Piece::Event(event) => cursor = event.seq,
                _ => {}
            }
            backoff.reset();
            let over = matches!(piece, Piece::End { retry: false, .. });
            if sender.send(News::Piece(piece)).await.is_err() || over {
                return Ok(());
            }
        }
        if sender.send(News::Reconnecting).await.is_err() {
            return Ok(());
        }
        // A server that accepts and hangs up at once must not be asked without a pause.
        let why = "the stream ended".to_owned();
        backoff.wait_after(ClientError::Unreachable { url: client.base().to_owned(), why }).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::{self, Reply, error_event};

    #[tokio::test]
    async fn a_broken_stream_goes_on_where_it_was() {
        // The first answer breaks in the middle of the third event, the second repeats what was seen.
        let three = format!("{}{}{}", error_event(1), error_event(2), error_event(3));
        let server = test_server::start(vec![
            Reply::broken_stream(&three[..three.len() - 20]),
            Reply::json(503, r#"{"error":{"code":"shutting_down","message":"later"}}"#),
            Reply::stream(&format!(
                "{}{}{}",
                error_event(2),
                error_event(3),
                test_server::end("session_deleted", false)
            )),
        ])
        .await;
        let client = Client::new(&server.url(), None).unwrap();
        let mut news = follow(client, "k".parse().unwrap(), 0, Duration::from_secs(30));
        let mut seen = Vec::new();
        while let Some(item) = news.recv().await {
            match item {
                News::Piece(Piece::Event(event)) => seen.push(event.seq),
                News::Piece(Piece::End { retry, .. }) => assert!(!retry),
                News::Reconnecting => seen.push(0),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [1, 2, 0, 3]);
        let cursors: Vec<_> = server.requests().iter().map(|request| request.header("last-event-id")).collect();
        assert_eq!(cursors, [Some("0".into()), Some("2".into()), Some("2".into())]);
    }

    #[tokio::test]
    async fn a_refusal_ends_it() {
        let body = r#"{"error":{"code":"session_not_found","message":"no such session"}}"#;
        let server = test_server::start(vec![Reply::json(404, body)]).await;
        let client = Client::new(&server.url(), None).unwrap();
        let mut news = follow(client, "k".parse().unwrap(), 0, Duration::from_secs(30));
        assert!(matches!(news.recv().await, Some(News::Failed(ClientError::Api { status: 404, .. }))));
        assert!(news.recv().await.is_none());
    }
}
