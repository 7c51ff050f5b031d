//! What `top` knows and shows: pure, driven by looks at the server and by keys.

use std::{cmp::Reverse, time::Instant};

use serde_json::Value;

use super::metrics::Numbers;
use crate::protocol::Snapshot;

/// What one look at the server has found.
#[derive(Debug, Clone)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// The server's version.
    pub version: String,
    /// Whether it takes work.
    pub ready: bool,
    /// Its numbers; none where the caller may not see them.
    pub numbers: Option<Numbers>,
    /// Sessions.
    pub sessions: Vec<Snapshot>,
    /// Agents, as `GET /v1/agents` lists them.
    pub agents: Vec<Value>,
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Leave.
    Quit,
    /// Go down by so many sessions.
    Down(usize),
    /// Go up by so many.
    Up(usize),
    /// Show only sessions with work, or all again.
    BusyOnly,
    /// Order by something else.
    Sort,
    /// Look no more, or again.
    Pause,
    /// The terminal has another size.
    Redraw,
}

/// What to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Draw again.
    Draw,
    /// Look at the server now.
    Look,
    /// Leave.
    Quit,
}

/// The order of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Those that were active last come first.
    #[default]
    Activity,
    /// The longest queue first.
    Queue,
    /// Most tokens first.
    Tokens,
}

impl Sort {
    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Queue => "queue",
            Self::Tokens => "tokens",
        }
    }
}

/// How much happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Turns that end.
    pub turns: f64,
    /// Turns that end otherwise than completed.
    pub failed: f64,
    /// Tokens.
    pub tokens: f64,
    /// Requests.
    pub requests: f64,
}

/// The whole state.
#[derive(Debug)]
pub struct Top {
    server: String,
    look: Option<Look>,
    rates: Option<Rates>,
    /// Why the last look failed.
    trouble: Option<String>,
    selected: usize,
    busy_only: bool,
    sort: Sort,
    paused: bool,
}

impl Top {
    /// Before the first look.
    #[must_use]
    pub fn new(server: &str) -> Self {
        let (look, rates, trouble) = (None, None, None);
        let server = server.to_owned();
        Self { server, look, rates, trouble, selected: 0, busy_only: false, sort: Sort::default(), paused: false }
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The last look.
    #[must_use]
    pub const fn look(&self) -> Option<&Look> {
        self.look.as_ref()
    }

    /// What happened between the last two looks, by the second.
    #[must_use]
    pub const fn rates(&self) -> Option<Rates> {
        self.rates
    }

    /// Why the last look failed.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Which session is marked.
    #[must_use]
    pub const fn selected(&self) -> usize {
        self.selected
    }

    /// Whether only sessions with work are asked for.
    #[must_use]
    pub const fn wants(&self) -> bool {
        self.busy_only
    }

    /// The order.
    #[must_use]
    pub const fn sort(&self) -> Sort {
        self.sort
    }

    /// True while nothing is asked.
    #[must_use]
    pub const fn paused(&self) -> bool {
        self.paused
    }

    /// A look has succeeded.
    pub fn polled(&mut self, mut look: Look) {
        self.trouble = None;
        let before = self.look.as_ref().and_then(|look| look.numbers.map(|numbers| (look.at, numbers)));
        self.rates = before.zip(look.numbers).and_then(|((at, before), now)| {
            let seconds = look.at.duration_since(at).as_secs_f64();
            // A counter that went back belongs to a server that was started anew.
            let restarted = now.started > before.started;
            (seconds > 0.0 && !restarted).then(|| Rates {
                turns: (now.turns - before.turns) / seconds,
                failed: (now.failed - before.failed) / seconds,
                tokens: (now.tokens - before.tokens) / seconds,
                requests: (now.requests - before.requests) / seconds,
            })
        });
        self.order(&mut look.sessions);
        self.selected = self.selected.min(look.sessions.len().saturating_sub(1));
        self.look = Some(look);
    }

    /// A look has failed; what was seen last stays.
    pub fn failed(&mut self, why: String) {
        self.trouble = Some(why);
    }

    fn order(&self, sessions: &mut [Snapshot]) {
        sessions.sort_by_key(|session| {
            let tokens = session.usage.input_tokens.saturating_add(session.usage.output_tokens);
            let first = match self.sort {
                Sort::Activity => u64::from(session.busy),
                Sort::Queue => session.queue_depth.into(),
                Sort::Tokens => tokens,
            };
            (Reverse(first), Reverse(session.last_active_at), session.key.clone())
        });
    }

    /// A key was pressed.
    pub fn key(&mut self, key: Key) -> Next {
        let last = self.look.as_ref().map_or(0, |look| look.sessions.len().saturating_sub(1));
        match key {
            Key::Quit => return Next::Quit,
            Key::Down(by) => self.selected = self.selected.saturating_add(by).min(last),
            Key::Up(by) => self.selected = self.selected.saturating_sub(by),
            Key::BusyOnly => {
                self.busy_only = !self.busy_only;
                return Next::Look;
            }
            Key::Sort => {
                self.sort = match self.sort {
                    Sort::Activity => Sort::Queue,
                    Sort::Queue => Sort::Tokens,
                    Sort::Tokens => Sort::Activity,
                };
                if let Some(mut look) = self.look.take() {
                    self.order(&mut look.sessions);
                    self.look = Some(look);
                }
            }
            Key::Pause => self.paused = !self.paused,
            Key::Redraw => {}
        }
        Next::Draw
    }
}
