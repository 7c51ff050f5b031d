//! `greenroom top`: a live view of a server in the terminal: sessions, queues, agents, rates.
//!
//! It uses nothing but the public API. [`state`] decides what is shown, [`draw`] how, [`poll`] asks the server; here
//! is the loop that joins them with the terminal.

mod draw;
mod metrics;
mod poll;
mod state;

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::{
    client::{Client, ClientError},
    options::Remote,
};
use state::{Key, Next, Top};

/// How long the thread that reads keys waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    pub(super) remote: Remote,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "must be from 0.1 to 3600".into())
}

/// Shows the server until a key ends it.
///
/// # Errors
/// When there is no server, this is no terminal, or the terminal fails.
pub async fn run(client: Client, arguments: Arguments) -> Result<ExitCode, ClientError> {
    if !std::io::stdout().is_terminal() {
        return Err(ClientError::Usage(
            "top draws on a terminal, and this is none; see also `greenroom sessions`".into(),
        ));
    }
    let mut top = Top::new(client.base());
    // A first look before the screen is taken: a wrong address is told as everywhere.
    top.polled(poll::poll(&client, top.wants()).await.map_err(Failed::into_error)?);
    let mut terminal = ratatui::try_init().map_err(|error| ClientError::Protocol(format!("the terminal: {error}")))?;
    let shown = show(&mut terminal, &client, &mut top, Duration::from_secs_f64(arguments.interval)).await;
    ratatui::restore();
    shown.map(|()| ExitCode::SUCCESS)
}

use poll::Failed;

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    top: &mut Top,
    interval: Duration,
) -> Result<(), ClientError> {
    let broken = |error: std::io::Error| ClientError::Protocol(format!("the terminal: {error}"));
    let (keys, mut pressed) = mpsc::channel(64);
    let wanted = Arc::new(AtomicBool::new(true));
    let reader = std::thread::spawn({
        let wanted = Arc::clone(&wanted);
        move || read_keys(&keys, &wanted)
    });
    let result = async {
        loop {
            terminal.draw(|frame| draw::draw(frame, top)).map_err(broken)?;
            let next = tokio::select! {
                key = pressed.recv() => match key {
                    Some(key) => top.key(key),
                    None => return Err(ClientError::Protocol("the terminal is gone".into())),
                },
                () = tokio::time::sleep(interval), if !top.paused() => Next::Look,
            };
            match next {
                Next::Draw => {}
                Next::Quit => return Ok(()),
                Next::Look => match poll::poll(client, top.wants()).await {
                    Ok(look) => top.polled(look),
                    Err(Failed::Passing(why)) => top.failed(why),
                    Err(Failed::ForGood(error)) => return Err(error),
                },
            }
        }
    }
    .await;
    wanted.store(false, Ordering::Relaxed);
    // It ends within a moment; a terminal that is gone must not keep us.
    if result.is_ok() {
        let _ = reader.join();
    }
    result
}

/// Reads keys on a thread of its own: the terminal can only be waited for by blocking.
fn read_keys(keys: &mpsc::Sender<Key>, wanted: &AtomicBool) {
    while wanted.load(Ordering::Relaxed) {
        let key = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
                    KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
                    KeyCode::Char('j') | KeyCode::Down => Key::Down(1),
                    KeyCode::Char('k') | KeyCode::Up => Key::Up(1),
                    KeyCode::PageDown => Key::Down(10),
                    KeyCode::PageUp => Key::Up(10),
                    KeyCode::Char('b') => Key::BusyOnly,
                    KeyCode::Char('s') => Key::Sort,
                    KeyCode::Char('p') | KeyCode::Char(' ') => Key::Pause,
                    _ => continue,
                },
                Ok(Event::Resize(..)) => Key::Redraw,
                Ok(_) => continue,
                Err(_) => return,
            },
            Err(_) => return,
        };
        if keys.blocking_send(key).is_err() {
            return;
        }
    }
}
