//! The configuration: one struct per topic, defaults in code, unknown keys refused.
//!
//! Precedence: flags, then `GREENROOM_*` environment, then `greenroom.toml`, then the defaults here.

mod agents;
mod budget;
mod callers;
mod delivery;
pub mod known;
pub mod live;
mod load;
mod retention;
pub mod shown;
mod units;
mod webhooks;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use agents::{AgentConfig, AgentKind, PromptBy};
pub use budget::{Bounds, BudgetConfig, OnLimit, UserBudget};
pub use callers::{CallerLimits, CallersConfig};
pub use delivery::{DeliveryConfig, WebhookEndpointConfig};
pub use load::{ConfigError, Overrides, load};
pub use retention::{EventsConfig, RetentionConfig, SessionsConfig};
pub use units::{Duration, Secret, Size};
pub use webhooks::{Verify, WebhookConfig};

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where data lives that is not in the database: working folders of sessions, and the default database.
    pub data_dir: Option<PathBuf>,
    /// The HTTP server.
    pub server: ServerConfig,
    /// The database.
    pub store: StoreConfig,
    /// Sessions.
    pub session: SessionConfig,
    /// What is kept of sessions.
    pub sessions: SessionsConfig,
    /// What is kept of the event log.
    pub events: EventsConfig,
    /// When what is too old goes.
    pub retention: RetentionConfig,
    /// Event streams.
    pub stream: StreamConfig,
    /// Questions of agents.
    pub choice: ChoiceConfig,
    /// Time limits of all agents.
    pub agent: AgentLimits,
    /// Agents by name. Built-in and found agents need no entry; an entry overrides.
    pub agents: BTreeMap<String, AgentConfig>,
    /// Sizes and counts.
    pub limits: LimitsConfig,
    /// What each caller may use up.
    pub callers: CallersConfig,
    /// How many tokens and dollars may be used up.
    pub budget: BudgetConfig,
    /// The audit.
    pub audit: AuditConfig,
    /// Outbound webhooks.
    pub delivery: DeliveryConfig,
    /// Endpoints of outbound webhooks by name, beside those that users make.
    pub webhook_endpoints: BTreeMap<String, WebhookEndpointConfig>,
    /// What happens to turns that a crash cut off.
    pub recovery: RecoveryConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// Agent processes that are kept warm.
    pub pool: PoolConfig,
    /// Logging.
    pub log: LogConfig,
    /// Inbound webhooks by route.
    pub webhooks: BTreeMap<String, WebhookConfig>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Values of `Host` that are answered beside the loopback names, without port.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are answered beside the server's own, as in `https://chat.example.org`.
    pub allowed_origins: Vec<String>,
    /// HTTP worker threads.
    pub workers: usize,
    /// Whether `/metrics` is for everybody; else it needs credentials with the scope `admin`, once there are any.
    pub public_metrics: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 4910)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            public_metrics: false,
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `postgres://…`; `sqlite:greenroom.db` in the data dir when left out.
    pub url: Option<Secret>,
    /// What an acknowledgement survives.
    pub durability: Durability,
    /// Connections for reading.
    pub readers: u32,
    /// Writer threads on Postgres, sharded by session; SQLite has one.
    pub writers: u32,
    /// Jobs that may wait for a writer thread.
    pub queue: usize,
    /// How long a read may take, waiting for a connection included.
    pub timeout: Duration,
    /// Bytes that the database may hold before retention removes more than what is too old; 0 is no limit.
    pub max_size: Size,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: None,
            durability: Durability::Full,
            readers: 4,
            writers: 2,
            queue: 4096,
            timeout: Duration::secs(10),
            max_size: Size(0),
        }
    }
}

/// What an acknowledgement survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Power loss.
    #[default]
    Full,
    /// `kill -9` of the server; power loss may take the last moments.
    Normal,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// The agent of sessions that ask for none; `echo` when left out.
    pub default_agent: Option<String>,
    /// The key of the session that always exists.
    pub primary: String,
    /// Turns that may wait in one session.
    pub max_queue: usize,
    /// How long a session must be idle to leave memory.
    pub idle_timeout: Duration,
    /// How often idle sessions are looked for.
    pub sweep_interval: Duration,
    /// Sessions in memory at once.
    pub max_live: usize,
    /// How long a call waits for a session's actor before it answers `overloaded`.
    pub call_timeout: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            default_agent: None,
            primary: "main".into(),
            max_queue: 100,
            idle_timeout: Duration::mins(30),
            sweep_interval: Duration::secs(60),
            max_live: 100_000,
            call_timeout: Duration::secs(30),
        }
    }
}

/// `[stream]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// How long later deltas of a message part are gathered; 0 sends each at once.
    pub flush_interval: Duration,
    /// How often an idle stream shows a sign of life.
    pub heartbeat: Duration,
    /// A WebSocket that was silent for so long is dead.
    pub dead_after: Duration,
    /// Bytes that may wait for a subscriber, over what the kernel buffers, before it is cut.
    pub max_lag_bytes: Size,
    /// How long bytes may wait for a subscriber before it is cut.
    pub max_lag: Duration,
    /// Streams per session.
    pub max_subscribers: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            flush_interval: Duration::millis(25),
            heartbeat: Duration::secs(15),
            dead_after: Duration::secs(45),
            max_lag_bytes: Size::mib(1),
            max_lag: Duration::secs(30),
            max_subscribers: 20_000,
        }
    }
}

/// `[choice]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceConfig {
    /// How long an agent waits for an answer.
    pub timeout: Duration,
    /// What it gets then.
    pub on_timeout: TimeoutOutcome,
}

impl Default for ChoiceConfig {
    fn default() -> Self {
        Self { timeout: Duration::mins(10), on_timeout: TimeoutOutcome::Reject }
    }
}

/// What an agent gets when nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutOutcome {
    /// No.
    #[default]
    Reject,
    /// Yes, this time.
    Allow,
}

/// `[agent]`: time limits of all agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// How long an agent may take to start.
    pub open_timeout: Duration,
    /// How long an agent may take to stop a turn before it is killed.
    pub cancel_timeout: Duration,
    /// How long a process group may take to end after SIGTERM before SIGKILL.
    pub kill_grace: Duration,
    /// How long an agent that works may say nothing before its turn fails.
    pub stall_timeout: Duration,
    /// The longest line that an agent may write.
    pub max_line: Size,
    /// How much of an agent's stderr is kept for error messages.
    pub stderr_tail: Size,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            open_timeout: Duration::secs(60),
            cancel_timeout: Duration::secs(5),
            kill_grace: Duration::secs(2),
            stall_timeout: Duration::mins(10),
            max_line: Size::mib(16),
            stderr_tail: Size::kib(64),
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The largest body.
    pub max_body: Size,
    /// The largest body of a message with attachments.
    pub max_upload: Size,
    /// The largest WebSocket frame from a client.
    pub max_frame: Size,
    /// Connections at once.
    pub max_connections: usize,
    /// How long a client may take to send its request's head, and pause within a body.
    pub head_timeout: Duration,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_body: Size::mib(8),
            max_upload: Size::mib(50),
            max_frame: Size::mib(1),
            max_connections: 25_000,
            head_timeout: Duration::secs(10),
            body_timeout: Duration::mins(5),
        }
    }
}

/// `[audit]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// How long entries are kept; for ever when left out.
    pub keep: Option<Duration>,
}

/// `[recovery]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecoveryConfig {
    /// How many times a turn that a crash cut off is run again, as a new turn.
    pub retry_interrupted: u32,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long running turns may go on.
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::secs(10) }
    }
}

/// `[pool]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Agent processes at once; the least recently used idle one goes first, then turns wait in line.
    pub max_processes: usize,
    /// Turns that run at once, over all sessions; the others wait in line.
    pub max_running: usize,
    /// Memory that agent processes may take together before the least recently used idle one is let go; half of the
    /// machine's when left out.
    pub max_memory: Option<Size>,
    /// How long a turn waits for one of these before it fails.
    pub max_wait: Duration,
    /// How long a warm agent is kept after its last turn.
    pub idle_timeout: Duration,
    /// Whether a session's agent is started as soon as somebody follows the session, ahead of the next message.
    pub prewarm: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_processes: 32,
            max_running: 1000,
            max_memory: None,
            max_wait: Duration::mins(30),
            idle_timeout: Duration::mins(10),
            prewarm: false,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or env_logger directives such as `greenroom::ws=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Config {
    /// The data dir: configured, or `$XDG_DATA_HOME/greenroom`, or `~/.local/share/greenroom`, or `./greenroom-data`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        if let Some(dir) = &self.data_dir {
            return dir.clone();
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let share = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        share.map_or_else(|| PathBuf::from("greenroom-data"), |share| share.join("greenroom"))
    }

    /// The database: configured, or `sqlite:` and `greenroom.db` in the data dir.
    #[must_use]
    pub fn database_url(&self) -> Secret {
        let default = || Secret::new(format!("sqlite:{}", self.data_dir().join("greenroom.db").display()));
        self.store.url.clone().unwrap_or_else(default)
    }

    /// The agent of sessions that ask for none.
    #[must_use]
    pub fn default_agent(&self) -> &str {
        self.session.default_agent.as_deref().unwrap_or("echo")
    }
}
