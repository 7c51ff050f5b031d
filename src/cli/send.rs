//! `greenroom send`: one message, its answer on stdout, everything about it on stderr.

use std::{
    io::{IsTerminal as _, Read as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::{
    FAILED,
    answer::{Answer, Out},
    client::{Client, ClientError, parse_key},
    follow::{Backoff, News, follow, pieces},
    options::Remote,
    prompt,
    sse::Piece,
    terminal::{self, Style},
};
use crate::{
    ids::SessionKey,
    protocol::{Choice, ChoiceAnswer, ChoiceKind, Event, SendMessage, Turn, TurnState},
};

/// How long a server that went away in the middle may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `send`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The session; made when there is none
    #[arg(value_parser = parse_key)]
    key: SessionKey,
    /// The message; - reads it from stdin
    text: String,
    /// Print the id of the turn and do not wait for the answer
    #[arg(long)]
    no_wait: bool,
    /// Allow whatever the agent asks permission for
    #[arg(long)]
    yes: bool,
    /// Another agent from this message on
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Another model from this message on
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What to do when the session is busy
    #[arg(long, value_parser = ["enqueue", "steer", "interrupt", "reject", "replace"], default_value = "enqueue")]
    policy: String,
    #[command(flatten)]
    pub(super) remote: Remote,
}

impl Arguments {
    fn message(&self) -> Result<SendMessage, ClientError> {
        let wrong = |error: &dyn std::fmt::Display| ClientError::Usage(format!("cannot read the message: {error}"));
        let mut text = self.text.clone();
        if text == "-" {
            text.clear();
            std::io::stdin().read_to_string(&mut text).map_err(|error| wrong(&error))?;
        }
        if text.trim().is_empty() {
            return Err(ClientError::Usage("there is nothing to send: the message is empty".into()));
        }
        let policy = serde_json::from_value(Value::from(self.policy.as_str())).map_err(|error| wrong(&error))?;
        let (agent, model) = (self.agent.clone(), self.model.clone());
        Ok(SendMessage { text: Some(text), agent, model, policy, source: Some("cli".into()), ..SendMessage::default() })
    }
}

/// Sends the message and shows the answer.
///
/// # Errors
/// See [`ClientError`]; a turn that does not complete is status 1.
pub async fn run(client: Client, arguments: Arguments) -> Result<ExitCode, ClientError> {
    let body = arguments.message()?;
    let path = format!("/v1/sessions/{}/messages", arguments.key);
    // The same for each attempt: the server takes the message once, however often the connection breaks.
    let once = uuid::Uuid::now_v7().to_string();
    if arguments.no_wait {
        let accepted = client.post(&path, &body, Some(&once)).await?;
        let id = accepted.pointer("/turn/id").and_then(Value::as_str);
        let id = id.ok_or_else(|| ClientError::Protocol("no turn in it".into()))?;
        terminal::print(&format!("{id}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut sending = Sending::new(client, arguments);
    sending.post(&path, &body, &once).await?;
    if sending.answer.ending().is_none() {
        sending.resume().await?;
    }
    sending.finish()
}

/// A message on its way and its answer.
struct Sending {
    client: Client,
    key: SessionKey,
    yes: bool,
    answer: Answer,
    cursor: u64,
    /// Whether stdout shows an unfinished line.
    open_line: bool,
    clean: bool,
}

impl Sending {
    fn new(client: Client, arguments: Arguments) -> Self {
        let clean = std::io::stdout().is_terminal();
        let Arguments { key, yes, .. } = arguments;
        Self { client, key, yes, answer: Answer::default(), cursor: 0, open_line: false, clean }
    }

    /// Posts until the turn is known, and reads its stream to the end, or to where it breaks.
    async fn post(&mut self, path: &str, body: &SendMessage, once: &str) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(PATIENCE);
        let mut response = self.client.post_stream(path, body, once).await?;
        loop {
            let mut stream = pieces(response);
            while let Some(piece) = stream.next().await {
                if let Piece::Event(event) = piece {
                    self.event(&event).await?;
                }
                if self.answer.ending().is_some() {
                    return Ok(());
                }
            }
            if self.answer.turn().is_some() {
                return Ok(());
            }
            // The connection broke before the first event: whether the message arrived is unknown, so ask again.
            let url = self.client.base().to_owned();
            backoff.wait_after(ClientError::Unreachable { url, why: "the stream broke".into() }).await?;
            response = loop {
                match self.client.post_stream(path, body, once).await {
                    Ok(response) => break response,
                    Err(error) => backoff.wait_after(error).await?,
                }
            };
        }
    }

    /// Goes on with the session's own stream after the last event that was seen.
    async fn resume(&mut self) -> Result<(), ClientError> {
        let mut news = follow(self.client.clone(), self.key.clone(), self.cursor, PATIENCE);
        while self.answer.ending().is_none() {
            match news.recv().await {
                Some(News::Piece(Piece::Event(event))) => self.event(&event).await?,
                // The end of the turn may be among the events that are lost.
                Some(News::Piece(Piece::Gap)) => self.look_up().await?,
                Some(News::Piece(Piece::End { retry: false, reason })) => {
                    return Err(ClientError::Protocol(format!("the stream ended before the turn: {reason}")));
                }
                Some(News::Piece(Piece::End { .. }) | News::Reconnecting) => {}
                Some(News::Failed(error)) => return Err(error),
                None => return Err(ClientError::Protocol("the stream ended before the turn".into())),
            }
        }
        Ok(())
    }

    async fn look_up(&mut self) -> Result<(), ClientError> {
        if let Some(id) = self.answer.turn() {
            let turn: Turn = self.client.get(&format!("/v1/sessions/{}/turns/{id}", self.key)).await?;
            self.answer.looked_up(&turn);
        }
        Ok(())
    }

    async fn event(&mut self, event: &Event) -> Result<(), ClientError> {
        if event.seq <= self.cursor {
            return Ok(());
        }
        self.cursor = event.seq;
        for out in self.answer.take(event) {
            match out {
                Out::Text(text) => {
                    self.open_line = !text.ends_with('\n');
                    terminal::print(&if self.clean { terminal::clean(&text) } else { text })?;
                }
                Out::Note(line) => terminal::note(&format!("[{}]", terminal::clean(&line))),
                Out::Ask(choice) => self.ask(&choice).await?,
            }
        }
        Ok(())
    }

    async fn ask(&self, choice: &Choice) -> Result<(), ClientError> {
        terminal::note(prompt::show(choice, Style::PLAIN).trim_end());
        if !self.yes || choice.kind != ChoiceKind::Permission {
            terminal::note(&prompt::how_to_answer(choice, self.client.base()));
            return Ok(());
        }
        let allow = ChoiceAnswer { allow: Some(true), ..ChoiceAnswer::default() };
        let path = format!("/v1/sessions/{}/choices/{}", self.key, choice.id);
        match self.client.post(&path, &allow, None).await {
            // Somebody else, or a rule, was faster: the turn goes on either way.
            Err(ClientError::Api { code, .. }) if code == "choice_already_resolved" => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                terminal::note("  allowed (--yes)");
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<ExitCode, ClientError> {
        if self.open_line {
            terminal::print("\n")?;
        }
        match self.answer.ending() {
            Some(ending) if ending.state == TurnState::Completed => Ok(ExitCode::SUCCESS),
            Some(ending) => {
                let why = ending.why.as_ref().map(|why| format!(": {}", terminal::clean(why))).unwrap_or_default();
                terminal::note(&format!("greenroom: the turn is {}{why}", ending.state.as_str()));
                Ok(ExitCode::from(FAILED))
            }
            None => Err(ClientError::Protocol("the stream ended before the turn".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::test_server::{self, Reply, event},
        ids::TurnId,
        protocol::{EventBody, Usage},
    };

    fn arguments(server: &test_server::Server) -> Arguments {
        Arguments {
            key: "k".parse().unwrap(),
            text: "hi".into(),
            no_wait: false,
            yes: false,
            agent: None,
            model: None,
            policy: "enqueue".into(),
            remote: Remote { url: server.url(), token_file: None },
        }
    }

    fn finished(state: TurnState) -> EventBody {
        EventBody::TurnFinished { state, reason: None, error: None, usage: Usage::default(), summary: None }
    }

    async fn status(server: &test_server::Server, arguments: Arguments) -> Result<ExitCode, ClientError> {
        run(Client::new(&server.url(), None).unwrap(), arguments).await
    }

    #[tokio::test]
    async fn a_broken_answer_is_resumed_by_cursor() {
        let turn = Some(TurnId::new());
        let started = EventBody::TurnStarted { agent: "echo".into(), model: None, cold_start: false, resumed: None };
        let server = test_server::start(vec![
            // Breaks before anything is known: the same POST again, with the same idempotency key.
            Reply::broken_stream(""),
            Reply::broken_stream(&event(7, turn, started)),
            Reply::stream(&event(8, turn, finished(TurnState::Completed))),
        ])
        .await;
        let status = status(&server, arguments(&server)).await.unwrap();
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::SUCCESS));
        let requests = server.requests();
        let lines: Vec<_> = requests.iter().map(test_server::Request::line).collect();
        let post = "POST /v1/sessions/k/messages";
        assert_eq!(lines, [post, post, "GET /v1/sessions/k/events"]);
        assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
        assert_eq!(requests[2].header("last-event-id"), Some("7".into()));
    }

    #[tokio::test]
    async fn a_turn_that_does_not_complete_is_status_1() {
        for state in [TurnState::Failed, TurnState::Cancelled, TurnState::Interrupted] {
            let stream = event(1, Some(TurnId::new()), finished(state));
            let server = test_server::start(vec![Reply::stream(&stream)]).await;
            let status = status(&server, arguments(&server)).await.unwrap();
            assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(FAILED)), "{state:?}");
        }
    }

    #[tokio::test]
    async fn no_wait_posts_once_and_a_refusal_is_an_error() {
        let accepted = r#"{"turn":{"id":"turn_x"},"position":0}"#;
        let full = r#"{"error":{"code":"queue_full","message":"full"}}"#;
        let server = test_server::start(vec![Reply::json(202, accepted), Reply::json(429, full)]).await;
        let no_wait = Arguments { no_wait: true, ..arguments(&server) };
        status(&server, no_wait).await.unwrap();
        let body: Value = serde_json::from_str(server.requests()[0].body()).unwrap();
        assert_eq!((&body["text"], &body["source"], &body["policy"]), (&"hi".into(), &"cli".into(), &"enqueue".into()));
        let error = status(&server, arguments(&server)).await.unwrap_err();
        assert_eq!((error.exit_status(), error.to_string()), (1, "full [queue_full]".into()));
    }

    #[tokio::test]
    async fn an_empty_message_is_a_usage_error() {
        let server = test_server::start(Vec::new()).await;
        let empty = Arguments { text: " \n".into(), ..arguments(&server) };
        assert_eq!(status(&server, empty).await.unwrap_err().exit_status(), 2);
    }

    #[tokio::test]
    async fn yes_allows_a_permission() {
        let turn = TurnId::new();
        let choice = Choice {
            id: crate::ids::ChoiceId::new(),
            session: "k".parse().unwrap(),
            turn_id: turn,
            kind: ChoiceKind::Permission,
            title: "Run ls?".into(),
            tool: None,
            input_summary: None,
            options: Vec::new(),
            questions: None,
            created_at: crate::timestamp::Timestamp(0),
            expires_at: crate::timestamp::Timestamp(0),
        };
        let path = format!("POST /v1/sessions/k/choices/{}", choice.id);
        let asked = event(1, Some(turn), EventBody::ChoiceRequested { choice: Box::new(choice) });
        let done = event(2, Some(turn), finished(TurnState::Completed));
        let server = test_server::start(vec![Reply::stream(&(asked + &done)), Reply::json(202, "{}")]).await;
        status(&server, Arguments { yes: true, ..arguments(&server) }).await.unwrap();
        let requests = server.requests();
        assert_eq!(
            (requests[1].line(), requests[1].body()),
            (path, r#"{"allow":true,"option_id":null,"answers":null}"#)
        );
    }
}
