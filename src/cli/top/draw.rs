//! How `top` looks: from the state to a screen, and nothing else.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Table, TableState},
};
use serde_json::Value;

use super::{
    metrics::Numbers,
    state::{Look, Top},
};
use crate::{protocol::Snapshot, timestamp::Timestamp};

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, top: &Top) {
    let Some(look) = top.look() else { return };
    let agents = u16::try_from(look.agents.len()).unwrap_or(u16::MAX).min(8);
    let parts = [Constraint::Length(4), Constraint::Length(agents + 2), Constraint::Min(4), Constraint::Length(1)];
    let [head, middle, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(header(top, look)), head);
    draw_agents(frame, middle, look);
    draw_sessions(frame, body, top, look);
    frame.render_widget(Paragraph::new(footer(top)), foot);
}

fn header(top: &Top, look: &Look) -> Vec<Line<'static>> {
    let ready = if look.ready {
        Span::styled("ready", Style::new().fg(Color::Green))
    } else {
        Span::styled("not ready", Style::new().fg(Color::Red))
    };
    let mut first = vec![
        Span::styled(format!("greenroom {}", look.version), BOLD),
        Span::raw(format!("  {}  ", top.server())),
        ready,
    ];
    let Some(numbers) = &look.numbers else {
        return vec![Line::from(first), Line::styled("numbers need credentials with the scope admin", DIM)];
    };
    let up = Timestamp::now().0.saturating_sub(micros(numbers.started)) / 1_000_000;
    first.push(Span::raw(format!("  up {}", duration(up))));
    vec![Line::from(first), Line::from(levels(numbers)), Line::from(rates(top, numbers))]
}

fn micros(seconds: f64) -> i64 {
    // Seconds since 1970 fit by far.
    (seconds * 1e6) as i64
}

fn levels(n: &Numbers) -> String {
    format!(
        "sessions {} of {}   turns {} run, {} wait   processes {} of {}{}   streams {}   connections {}   store queue {}",
        n.live.0,
        n.live.1,
        n.running,
        n.queued,
        n.processes.0,
        n.processes.1,
        if n.waiting > 0.0 { format!(", {} wait", n.waiting) } else { String::new() },
        n.streams,
        n.connections.0,
        n.store_queue,
    )
}

fn rates(top: &Top, n: &Numbers) -> String {
    let totals = format!("{} turns, {} tokens, ${:.2}", n.turns, short(n.tokens), n.cost);
    match top.rates() {
        None => format!("since the start: {totals}"),
        Some(r) => format!(
            "a second: {:.1} turns ({:.1} not completed)  {} tokens  {:.1} requests   since the start: {totals}",
            r.turns,
            r.failed,
            short(r.tokens),
            r.requests
        ),
    }
}

fn draw_agents(frame: &mut Frame<'_>, area: Rect, look: &Look) {
    let text = |agent: &Value, name: &str| agent.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let rows = look.agents.iter().map(|agent| {
        let id = text(agent, "id");
        let of = |busy: bool| {
            look.sessions.iter().filter(|session| session.agent == id && (!busy || session.busy)).count().to_string()
        };
        let available = agent.get("available").and_then(Value::as_bool).unwrap_or(false);
        let style = if available { Style::new() } else { Style::new().fg(Color::Red) };
        let state = if available { "ok".to_owned() } else { text(agent, "reason") };
        Row::new([id.clone(), text(agent, "kind"), of(false), of(true), text(agent, "version"), state]).style(style)
    });
    let widths = [
        Constraint::Length(16),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(12),
        Constraint::Min(10),
    ];
    let head = Row::new(["agent", "kind", "sessions", "busy", "version", "state"]).style(BOLD);
    let table = Table::new(rows, widths).header(head).block(Block::new().borders(Borders::TOP));
    frame.render_widget(table, area);
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, top: &Top, look: &Look) {
    let now = Timestamp::now();
    let rows = look.sessions.iter().map(|session| row(session, now));
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(12),
        Constraint::Length(15),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Fill(4),
    ];
    let names = ["session", "agent", "state", "for", "queue", "subs", "tokens", "cost", "last message"];
    let title = format!(" {} sessions, by {} ", look.sessions.len(), top.sort().name());
    let table = Table::new(rows, widths)
        .header(Row::new(names).style(BOLD))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).title(title));
    let mut state = TableState::new().with_selected((!look.sessions.is_empty()).then(|| top.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn row(session: &Snapshot, now: Timestamp) -> Row<'static> {
    let (state, since) = match &session.current_turn {
        Some(turn) if turn.pending_choice_id.is_some() => ("asks", turn.started_at),
        Some(turn) => (turn.state.as_str(), turn.started_at),
        None if session.archived => ("archived", None),
        None if session.live => (session.agent_status.as_str(), Some(session.last_active_at)),
        None => ("stored", Some(session.last_active_at)),
    };
    let style = match state {
        "asks" | "awaiting_choice" => Style::new().fg(Color::Yellow),
        "error" => Style::new().fg(Color::Red),
        _ if session.busy => Style::new().fg(Color::Green),
        _ => Style::new(),
    };
    let since =
        since.map_or_else(String::new, |at| duration(i64::try_from(now.since(at).as_secs()).unwrap_or(i64::MAX)));
    let usage = &session.usage;
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    let blank = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    Row::new([
        session.key.to_string(),
        session.agent.clone(),
        state.to_owned(),
        since,
        blank(session.queue_depth),
        blank(session.subscribers),
        short(tokens as f64),
        usage.cost_usd.map_or_else(String::new, |cost| format!("${cost:.2}")),
        session.last_message_preview.clone().unwrap_or_default().replace(char::is_control, " "),
    ])
    .style(style)
}

fn footer(top: &Top) -> Line<'static> {
    if let Some(trouble) = top.trouble() {
        return Line::styled(format!("{trouble} (trying again)"), Style::new().fg(Color::Red));
    }
    let keys = "q quit   j k move   s sort   ";
    let busy = if top.wants() { "b all sessions   " } else { "b only busy ones   " };
    let pause = if top.paused() { "p go on (PAUSED)" } else { "p pause" };
    Line::styled(format!("{keys}{busy}{pause}"), DIM)
}

/// A number in few characters.
fn short(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Seconds in few characters.
fn duration(seconds: i64) -> String {
    match seconds {
        s if s >= 86_400 => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
        s if s >= 3600 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{}m {}s", s / 60, s % 60),
        s => format!("{}s", s.max(0)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;
    use crate::cli::top::state::{Key, Next};

    fn session(key: &str, changes: Value) -> Snapshot {
        let mut snapshot = json!({
            "key": key, "id": crate::ids::SessionId::new(), "title": "t", "owner": "local", "visibility": "private",
            "org_id": null, "agent": "echo", "model": null, "mode": null, "permission_mode": "default", "profile": null,
            "project_id": null, "metadata": {}, "archived": false, "archived_at": null, "primary": false,
            "created_at": "2026-11-21T10:00:00.000Z", "updated_at": "2026-11-21T10:00:00.000Z",
            "last_active_at": "2026-11-21T10:00:00.000Z", "message_count": 0, "last_message_preview": null,
            "busy": false, "queue_depth": 0, "live": true, "subscribers": 0, "last_seq": 1, "current_turn": null,
            "agent_status": "idle", "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": null,
                "context_used": null, "context_max": null},
        });
        snapshot.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(snapshot).unwrap()
    }

    fn look(at: Instant, numbers: Option<Numbers>) -> Look {
        let running = json!({"id": crate::ids::TurnId::new(), "state": "running", "started_at": Timestamp::now(),
            "pending_choice_id": null});
        let busy = json!({"busy": true, "queue_depth": 7, "current_turn": running, "last_message_preview": "do\tit",
            "usage": {"input_tokens": 20_000, "output_tokens": 500, "cost_usd": 0.5, "context_used": null,
                "context_max": null}});
        let sessions = vec![session("quiet", json!({"live": false})), session("web:busy", busy)];
        let agents = vec![
            json!({"id": "echo", "kind": "echo", "available": true, "version": null, "reason": null}),
            json!({"id": "codex", "kind": "acp", "available": false, "version": null, "reason": "no program codex-acp"}),
        ];
        Look { at, version: "1.2.3".into(), ready: true, numbers, sessions, agents }
    }

    /// The screen as lines.
    fn screen(top: &Top, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top)).unwrap();
        let cells = terminal.backend().buffer().content().chunks(width.into());
        cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
    }

    #[track_caller]
    fn shows(lines: &[String], words: &[&str]) {
        let all = |line: &&String| words.iter().all(|word| line.contains(word));
        assert!(lines.iter().any(|line| all(&line)), "no line with {words:?}:\n{}", lines.join("\n"));
    }

    #[test]
    fn sessions_agents_levels_and_rates_are_on_the_screen() {
        let (mut top, begin) = (Top::new("http://h:1"), Instant::now());
        let numbers = Numbers { turns: 10.0, live: (2.0, 9.0), running: 1.0, queued: 7.0, ..Numbers::default() };
        top.polled(look(begin, Some(numbers)));
        shows(&screen(&top, 140, 20), &["since the start", "10 turns"]);
        let later = Numbers { turns: 14.0, failed: 1.0, tokens: 30_000.0, ..numbers };
        top.polled(look(begin + Duration::from_secs(2), Some(later)));
        let lines = screen(&top, 140, 20);
        shows(&lines, &["greenroom 1.2.3", "http://h:1", "ready"]);
        shows(&lines, &["sessions 2 of 9", "1 run, 7 wait"]);
        shows(&lines, &["2.0 turns (0.5 not completed)", "15.0k tokens"]);
        shows(&lines, &["codex", "acp", "no program codex-acp"]);
        shows(&lines, &["echo", "2", "1", "ok"]);
        shows(&lines, &["web:busy", "running", "7", "20.5k", "$0.50", "do it"]);
        shows(&lines, &["quiet", "stored"]);
        let place = |name: &str| lines.iter().position(|line| line.contains(name)).unwrap();
        assert!(place("web:busy") < place("quiet"), "what works comes first");
        // A server that was started anew has no rates, rather than wrong ones.
        top.polled(look(begin + Duration::from_secs(4), Some(Numbers { started: 5.0, ..Numbers::default() })));
        assert_eq!(top.rates(), None);
    }

    #[test]
    fn keys_do_what_the_footer_says() {
        let mut top = Top::new("http://h:1");
        top.polled(look(Instant::now(), None));
        shows(&screen(&top, 100, 16), &["numbers need credentials"]);
        assert_eq!((top.key(Key::Down(10)), top.selected()), (Next::Draw, 1));
        assert_eq!((top.key(Key::Up(3)), top.selected()), (Next::Draw, 0));
        assert_eq!((top.key(Key::BusyOnly), top.wants()), (Next::Look, true));
        shows(&screen(&top, 100, 16), &["b all sessions"]);
        top.key(Key::Sort);
        shows(&screen(&top, 100, 16), &["by queue"]);
        top.key(Key::Pause);
        assert!(top.paused());
        shows(&screen(&top, 100, 16), &["PAUSED"]);
        top.failed("no server answers".into());
        let lines = screen(&top, 100, 16);
        shows(&lines, &["no server answers", "trying again"]);
        shows(&lines, &["web:busy"]);
        assert_eq!(top.key(Key::Quit), Next::Quit);
    }

    #[test]
    fn any_size_of_a_terminal_will_do() {
        let mut top = Top::new("http://h:1");
        top.polled(look(Instant::now(), Some(Numbers::default())));
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 3)] {
            assert_eq!(screen(&top, width, height).len(), usize::from(height));
        }
    }
}
