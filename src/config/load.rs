//! Reading the configuration: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;

/// Settings from the command line; each wins over environment and file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: the file; without it `greenroom.toml` in the current folder is read where there is one.
    pub file: Option<PathBuf>,
    /// `key.path` → value as TOML text, or a plain text.
    pub values: Vec<(String, String)>,
}

/// Why there is no configuration: one clear line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Environment variables that stand for a key whose name is not the variable's.
const SHORT: &[(&str, &str)] = &[
    ("GREENROOM_BIND", "server.bind"),
    ("GREENROOM_DATABASE", "store.url"),
    ("GREENROOM_DATA_DIR", "data_dir"),
    ("GREENROOM_LOG", "log.level"),
];

/// Variables that are ours and no setting.
const RESERVED: &[&str] = &["GREENROOM_CONFIG", "GREENROOM_URL", "GREENROOM_TOKEN", "GREENROOM_TOKEN_FILE"];

/// Loads and checks the configuration. `environment` is usually [`std::env::vars`].
///
/// `GREENROOM_SESSION__MAX_QUEUE=5` sets `session.max_queue`; the short names of the flags work too.
///
/// # Errors
/// One line that names the file, variable or flag, the key, and what is wrong with it.
pub fn load(
    overrides: &Overrides,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut table = read_file(overrides.file.as_deref())?;
    for (name, value) in environment {
        if !name.starts_with("GREENROOM_") || RESERVED.contains(&name.as_str()) {
            continue;
        }
        let short = SHORT.iter().find(|(short, _)| *short == name).map(|(_, path)| (*path).to_owned());
        let nested = || name.trim_start_matches("GREENROOM_").to_ascii_lowercase().replace("__", ".");
        set(&mut table, &short.unwrap_or_else(nested), &value)
            .map_err(|error| ConfigError(format!("{name}: {error}")))?;
    }
    for (path, value) in &overrides.values {
        set(&mut table, path, value).map_err(|error| ConfigError(format!("--{path}: {error}")))?;
    }
    let mut config: Config = Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError(format!("configuration: {}", one_line(&error.to_string()))))?;
    config.add_known();
    validate(&config)?;
    Ok(config)
}

fn read_file(file: Option<&Path>) -> Result<Table, ConfigError> {
    let path = file.unwrap_or_else(|| Path::new("greenroom.toml"));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => return Ok(Table::new()),
        Err(error) => return Err(ConfigError(format!("{}: {error}", path.display()))),
    };
    // Checked as a whole first, so that a mistake in the file is reported with its place.
    if let Err(error) = toml::from_str::<Config>(&text) {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let place = line.map(|line| format!(":{line}")).unwrap_or_default();
        return Err(ConfigError(format!("{}{place}: {}", path.display(), one_line(error.message()))));
    }
    text.parse::<Table>().map_err(|error| ConfigError(format!("{}: {}", path.display(), one_line(&error.to_string()))))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Sets `path` to `value`, read as TOML where that works and as a plain text otherwise.
fn set(table: &mut Table, path: &str, value: &str) -> Result<(), String> {
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    let parsed = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut here = table;
    let mut names: Vec<&str> = path.split('.').collect();
    let last = names.pop().unwrap_or_default();
    for name in names {
        let entry = here.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        here = entry.as_table_mut().ok_or_else(|| format!("{name} is no section"))?;
    }
    here.insert(last.to_owned(), parsed);
    Ok(())
}

pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    let bad = |key: &str, what: &str| Err(ConfigError(format!("configuration: {key}: {what}")));
    if config.session.primary.parse::<crate::ids::SessionKey>().is_err() {
        return bad("session.primary", &crate::ids::InvalidKey.to_string());
    }
    let counts = [
        ("session.max_queue", config.session.max_queue),
        ("session.max_live", config.session.max_live),
        ("stream.max_subscribers", config.stream.max_subscribers),
        ("server.workers", config.server.workers),
        ("store.queue", config.store.queue),
        ("pool.max_processes", config.pool.max_processes),
        ("pool.max_running", config.pool.max_running),
        ("limits.max_connections", config.limits.max_connections),
    ];
    for (key, count) in counts {
        if count == 0 {
            return bad(key, "must be at least 1");
        }
    }
    if config.store.readers == 0 || config.store.writers == 0 {
        return bad("store.readers and store.writers", "must be at least 1");
    }
    let waits = [
        ("session.sweep_interval", config.session.sweep_interval),
        ("session.call_timeout", config.session.call_timeout),
        ("retention.interval", config.retention.interval),
        ("stream.heartbeat", config.stream.heartbeat),
        ("stream.dead_after", config.stream.dead_after),
        ("stream.max_lag", config.stream.max_lag),
        ("choice.timeout", config.choice.timeout),
        ("limits.head_timeout", config.limits.head_timeout),
        ("limits.body_timeout", config.limits.body_timeout),
        ("callers.login_lifetime", config.callers.login_lifetime),
        ("agent.open_timeout", config.agent.open_timeout),
        ("agent.stall_timeout", config.agent.stall_timeout),
        ("store.timeout", config.store.timeout),
        ("pool.max_wait", config.pool.max_wait),
    ];
    for (key, wait) in waits {
        if wait.0.is_zero() {
            return bad(key, "must be more than 0");
        }
    }
    if config.audit.keep.is_some_and(|keep| keep.0.is_zero()) {
        return bad("audit.keep", "must be more than 0; leave it out to keep all");
    }
    for origin in &config.server.allowed_origins {
        // A wildcard would let every page on the web in; a browser sends nothing else than this form.
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let host = host.map(|host| host.trim_end_matches('/')).unwrap_or_default();
        if host.is_empty() || host.contains(['*', '/', '?', '#', '@', ' ']) {
            return bad(
                "server.allowed_origins",
                &format!("{origin:?} is no origin; write https://HOST or http://HOST:PORT"),
            );
        }
    }
    if let Some((key, what)) = config.budget.mistake() {
        return bad(&key, what);
    }
    for name in config.callers.users.keys().chain(config.budget.users.keys()) {
        if !crate::protocol::account::is_account_name(name) {
            return bad("callers.users", &format!("{name:?} cannot be the name of a user"));
        }
    }
    for id in config.callers.tokens.keys() {
        if id.parse::<crate::ids::TokenId>().is_err() {
            return bad("callers.tokens", &format!("{id:?} is no id of a token; `greenroom token list` shows them"));
        }
    }
    if let Some((key, what)) = config.delivery.mistake() {
        return bad(key, what);
    }
    for (name, endpoint) in &config.webhook_endpoints {
        endpoint.validate(name).or_else(|what| bad(&format!("webhook_endpoints.{name}"), &what))?;
    }
    for (name, agent) in &config.agents {
        agent.validate(name).or_else(|what| bad(&format!("agents.{name}"), &what))?;
    }
    let exists = |name: &str| name == "echo" || config.agents.contains_key(name);
    let missing = |name: &str| {
        let known: Vec<&str> = config.agents.keys().map(String::as_str).collect();
        format!("no agent {name:?}; there are: echo {}", known.join(" "))
    };
    if !exists(config.default_agent()) {
        return bad("session.default_agent", &missing(config.default_agent()));
    }
    for (name, agent) in &config.agents {
        if let Some(fallback) = agent.fallback.as_deref().filter(|fallback| !exists(fallback)) {
            return bad(&format!("agents.{name}.fallback"), &missing(fallback));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        load(&Overrides { file: Some(file.path().into()), values: own(flags) }, own(environment))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = "[session]\nmax_queue = 5\nidle_timeout = \"1m\"\n[server]\nbind = \"127.0.0.1:1\"\n";
        let environment = [("GREENROOM_SESSION__MAX_QUEUE", "6"), ("GREENROOM_BIND", "127.0.0.1:2"), ("OTHER", "x")];
        let config = with(file, &environment, &[("server.bind", "127.0.0.1:3")]).unwrap();
        assert_eq!(config.session.max_queue, 6);
        assert_eq!(config.server.bind.port(), 3);
        assert_eq!(config.session.idle_timeout, super::super::Duration::mins(1));
        assert_eq!(config.stream, super::super::StreamConfig::default());
    }

    #[test]
    fn mistakes_are_one_line_with_a_place() {
        let line = |result: Result<Config, ConfigError>| result.unwrap_err().to_string();
        let unknown = line(with("[session]\nmax_que = 5\n", &[], &[]));
        assert!(unknown.contains(":2: ") && unknown.contains("max_que"), "{unknown}");
        let duration = line(with("[choice]\ntimeout = \"soon\"\n", &[], &[]));
        assert!(duration.contains(":2: ") && !duration.contains('\n'), "{duration}");
        assert!(line(with("", &[("GREENROOM_NOPE", "1")], &[])).contains("nope"));
        assert!(line(with("[agents.x]\nkind = \"acp\"\n", &[], &[])).contains("agents.x"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let cwd = format!("cwd = {:?}", file.path());
        let unfit = [
            ("env = {\"A=B\" = \"x\"}", "A=B"),
            ("env = {\"\" = \"x\"}", "env"),
            ("env = {A = \"\\u0000\"}", "env.A"),
            ("command = [\" \"]", "command"),
            (cwd.as_str(), "cwd"),
        ];
        for (setting, named) in unfit {
            let mistake = line(with(&format!("[agents.claude]\n{setting}\n"), &[], &[]));
            assert!(mistake.contains("agents.claude") && mistake.contains(named), "{mistake}");
        }
        assert!(line(with("[session]\nmax_queue = 0\n", &[], &[])).contains("session.max_queue"));
        for origin in ["*", "https://*", "null", "chat.example.org", "https://a/b"] {
            let bad = with(&format!("[server]\nallowed_origins = [{origin:?}]\n"), &[], &[]);
            assert!(line(bad).contains("server.allowed_origins"), "{origin}");
        }
        assert!(line(with("[callers.tokens.tok_x]\nburst = 1\n", &[], &[])).contains("callers.tokens"));
    }
}
