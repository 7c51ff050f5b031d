//! `greenroom attach`: follows a session in the terminal. Leaving cancels nothing.

use std::{
    collections::VecDeque,
    io::{BufRead as _, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde::Deserialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};

use super::{
    FAILED,
    client::{Client, ClientError, parse_key},
    follow::{News, follow},
    options::Remote,
    prompt::{self, Prompt, Step},
    render::Renderer,
    sse::Piece,
    terminal::{self, Style},
};
use crate::{
    ids::{MessageId, SessionKey},
    protocol::{Choice, EventBody, Message, SendMessage, Turn},
};

/// How long a server that went away may take to come back.
const PATIENCE: Duration = Duration::from_secs(600);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Back to the start of the line, and what is on it gone.
const WIPE: &str = "\r\x1b[K";

/// Arguments of `attach`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The session
    #[arg(value_parser = parse_key)]
    key: SessionKey,
    /// How many messages of the past to show first
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    messages: u32,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// What `GET …/state` tells, as far as a screen shows it.
#[derive(Debug, Deserialize)]
struct State {
    messages: Vec<Message>,
    partial: Vec<MessageId>,
    choices: Vec<Choice>,
    turn: Option<Turn>,
    seq: u64,
}

/// Follows the session until Ctrl-C or the end of the input, or until it is deleted.
///
/// # Errors
/// See [`ClientError`].
pub async fn run(client: Client, arguments: Arguments) -> Result<ExitCode, ClientError> {
    let path = format!("/v1/sessions/{}/state?messages={}", arguments.key, arguments.messages);
    let state: State = client.get(&path).await?;
    let mut news = follow(client.clone(), arguments.key.clone(), state.seq, PATIENCE);
    let interactive = std::io::stdin().is_terminal();
    let mut lines = if interactive { typed_lines() } else { mpsc::channel(1).1 };
    let mut screen = Screen::new(client, arguments.key, Style::of_stdout(), interactive);
    screen.begin(&state)?;
    // Made once: one that is made in each round would miss what comes between two rounds.
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| ClientError::Usage(format!("cannot listen for Ctrl-C: {error}")))?;
    let mut tick = tokio::time::interval(Duration::from_millis(120));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            item = news.recv() => match item {
                Some(item) => if let Some(status) = screen.news(item)? {
                    return Ok(status);
                },
                None => return Ok(ExitCode::SUCCESS),
            },
            line = lines.recv(), if interactive => match line {
                Some(line) => screen.line(&line).await?,
                None => return screen.leave(),
            },
            _ = tick.tick(), if screen.spins() => screen.spin()?,
            _ = interrupts.recv() => return screen.leave(),
        }
    }
}

/// Lines of stdin, read by a thread: a terminal cannot be waited for otherwise. It ends with the process.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What is on the screen and what waits for the person before it.
struct Screen {
    client: Client,
    key: SessionKey,
    renderer: Renderer,
    style: Style,
    interactive: bool,
    /// Choices that wait, the one that is being asked first.
    prompts: VecDeque<Prompt>,
    frame: usize,
    spinner: bool,
}

impl Screen {
    fn new(client: Client, key: SessionKey, style: Style, interactive: bool) -> Self {
        let (renderer, prompts) = (Renderer::new(style), VecDeque::new());
        Self { client, key, renderer, style, interactive, prompts, frame: 0, spinner: false }
    }

    fn begin(&mut self, state: &State) -> Result<(), ClientError> {
        let mut out = String::new();
        for message in &state.messages {
            out += &self.renderer.message(message, !state.partial.contains(&message.id));
        }
        if state.turn.is_some() {
            self.renderer.set_working();
        }
        self.print(&out)?;
        for choice in &state.choices {
            let shown = self.renderer.close() + &prompt::show(choice, self.style);
            self.print(&shown)?;
            self.asked(choice.clone())?;
        }
        Ok(())
    }

    /// Ends the line that is being written. The session goes on without us.
    fn leave(&mut self) -> Result<ExitCode, ClientError> {
        let end = self.renderer.close();
        self.print(&end)?;
        Ok(ExitCode::SUCCESS)
    }

    /// An exit status once there will be no more.
    fn news(&mut self, item: News) -> Result<Option<ExitCode>, ClientError> {
        match item {
            News::Piece(Piece::Event(event)) => {
                let out = self.renderer.event(&event);
                self.print(&out)?;
                match &event.body {
                    EventBody::ChoiceRequested { choice } => self.asked((**choice).clone())?,
                    EventBody::ChoiceResolved { choice_id, .. } => {
                        self.prompts.retain(|prompt| prompt.choice().id != *choice_id);
                    }
                    _ => {}
                }
                Ok(None)
            }
            News::Piece(Piece::Gap) => self.aside("— some events are gone —").map(|()| None),
            News::Piece(Piece::End { retry: true, reason }) => {
                self.aside(&format!("— the stream ended ({reason}), going on —")).map(|()| None)
            }
            News::Piece(Piece::End { reason, .. }) => {
                self.aside(&format!("— the stream ended: {reason} —"))?;
                Ok(Some(if reason == "session_deleted" { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }))
            }
            News::Reconnecting => self.aside("— connecting again —").map(|()| None),
            News::Failed(error) => Err(error),
        }
    }

    /// A line that was typed: the answer to what is asked, or a message.
    async fn line(&mut self, line: &str) -> Result<(), ClientError> {
        let result = match self.prompts.front_mut() {
            Some(prompt) => match prompt.line(line) {
                Step::More(hint) => return self.print(&hint),
                Step::Answer(answer) => {
                    let path = format!("/v1/sessions/{}/choices/{}", self.key, prompt.choice().id);
                    self.client.post(&path, &*answer, None).await
                }
            },
            None if line.trim().is_empty() => return Ok(()),
            None => {
                let client_id = uuid::Uuid::now_v7().to_string();
                self.renderer.sending(&client_id);
                let body = SendMessage {
                    text: Some(line.to_owned()),
                    source: Some("cli".into()),
                    client_id: Some(client_id.clone()),
                    ..SendMessage::default()
                };
                self.client.post(&format!("/v1/sessions/{}/messages", self.key), &body, Some(&client_id)).await
            }
        };
        match result {
            // A line that was refused is no reason to leave: the person sees why and goes on.
            Err(error) => {
                let line = self.renderer.close() + &self.style.bad(&terminal::clean(&error.to_string())) + "\n";
                self.print(&line)
            }
            Ok(_) => Ok(()),
        }
    }

    fn asked(&mut self, choice: Choice) -> Result<(), ClientError> {
        if !self.interactive {
            let how = prompt::how_to_answer(&choice, self.client.base());
            return self.print(&format!("{how}\n"));
        }
        self.prompts.push_back(Prompt::new(choice));
        let first = self.prompts.len() == 1;
        let hint = self.prompts.front().filter(|_| first).map(Prompt::hint);
        hint.map_or(Ok(()), |hint| self.print(&hint))
    }

    fn spins(&self) -> bool {
        self.style.is_live() && self.renderer.is_waiting() && self.prompts.is_empty()
    }

    fn spin(&mut self) -> Result<(), ClientError> {
        self.frame = (self.frame + 1) % SPINNER.len();
        self.spinner = true;
        let frame = SPINNER.get(self.frame).copied().unwrap_or_default();
        terminal::print(&format!("{WIPE}{}", self.style.dim(&format!("{frame} {}", self.renderer.activity()))))
    }

    fn aside(&mut self, line: &str) -> Result<(), ClientError> {
        let out = self.renderer.aside(line);
        self.print(&out)
    }

    fn print(&mut self, text: &str) -> Result<(), ClientError> {
        let wipe = if std::mem::take(&mut self.spinner) { WIPE } else { "" };
        if wipe.is_empty() && text.is_empty() { Ok(()) } else { terminal::print(&format!("{wipe}{text}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::{self, Reply, end, error_event};

    #[tokio::test]
    async fn it_follows_from_the_state_on_until_the_session_is_deleted() {
        let state =
            r#"{"snapshot":{},"messages":[],"partial":[],"tools":[],"choices":[],"turn":null,"queue":[],"seq":41}"#;
        let stream = error_event(42) + &end("session_deleted", false);
        let server = test_server::start(vec![Reply::json(200, state), Reply::stream(&stream)]).await;
        let arguments = Arguments {
            key: "k".parse().unwrap(),
            messages: 5,
            remote: Remote { url: server.url(), token_file: None },
        };
        let status = run(Client::new(&server.url(), None).unwrap(), arguments).await.unwrap();
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::SUCCESS));
        let requests = server.requests();
        assert_eq!(requests[0].line(), "GET /v1/sessions/k/state?messages=5");
        assert_eq!(requests[1].header("last-event-id"), Some("41".into()));
    }

    #[tokio::test]
    async fn a_typed_line_is_a_message_and_a_refusal_is_shown() {
        let full = r#"{"error":{"code":"queue_full","message":"full"}}"#;
        let server = test_server::start(vec![Reply::json(202, "{}"), Reply::json(429, full)]).await;
        let client = Client::new(&server.url(), None).unwrap();
        let mut screen = Screen::new(client, "k".parse().unwrap(), Style::PLAIN, true);
        screen.line("  ").await.unwrap();
        screen.line("hello").await.unwrap();
        screen.line("more").await.unwrap();
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        let body: serde_json::Value = serde_json::from_str(requests[0].body()).unwrap();
        assert_eq!(body["text"], "hello");
        assert_eq!(body["client_id"].as_str().map(str::to_owned), requests[0].header("idempotency-key"));
    }
}
