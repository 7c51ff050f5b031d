//! `greenroom doctor`: looks for what would keep the server from working, and says what to do.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use serde_json::Value;

use super::{
    FAILED,
    checks::{Check, Verdict, port_free, report, writable},
    inside,
    options::{self, Common},
    terminal,
};
use crate::{agents::Probe, config::Config};

/// How long a server may take to say that it is there.
const ASK: Duration = Duration::from_secs(2);
/// How long a server may take to look for its agents, and how often it is asked.
const PROBED: Duration = Duration::from_secs(12);
const AGAIN: Duration = Duration::from_millis(200);

/// Runs all checks; status 1 when something is broken.
pub fn run(common: &Common) -> ExitCode {
    let checks = match options::load(common) {
        Ok(config) => look(&config),
        Err(error) => vec![Check::new("configuration", Verdict::Broken, error.to_string())],
    };
    let broken = checks.iter().any(|check| check.verdict == Verdict::Broken);
    match terminal::print(&report(&checks)) {
        Ok(()) if !broken => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

fn look(config: &Config) -> Vec<Check> {
    let routes = inside::webhook_routes(config).map(|_| "is good".to_owned());
    let mut checks = vec![Check::from_result("configuration", routes)];
    checks.push(Check::from_result("data dir", writable(&config.data_dir())));
    match ready(config.server.bind) {
        // A running server has the database open and knows its agents: ask it instead of getting in its way.
        Some(answer) => checks.extend(of_server(config.server.bind, &answer)),
        None => {
            checks.push(Check::from_result("port", port_free(config.server.bind)));
            let database = crate::config::shown::database(config.database_url().expose());
            checks.push(Check::from_result(
                "database",
                inside::open_database(config).map(|()| format!("{database} opens")),
            ));
            match inside::probe_agents(config) {
                Ok(probes) => checks.extend(of_probes(config.default_agent(), &probes)),
                Err(error) => checks.push(Check::new("agents", Verdict::Broken, error)),
            }
        }
    }
    checks
}

/// What a server on `bind` says about itself; none when there is none, or something else.
fn ready(bind: SocketAddr) -> Option<Value> {
    if bind.port() == 0 {
        return None;
    }
    crate::tls::install_crypto_provider();
    let ask = async {
        let http = reqwest::Client::builder().no_proxy().timeout(ASK).build().ok()?;
        let deadline = tokio::time::Instant::now() + PROBED;
        loop {
            let response = http.get(format!("http://{bind}/ready")).send().await.ok()?;
            let answer: Value = response.json().await.ok()?;
            answer.get("store")?;
            // A server that has just started still looks for its agents.
            if !probes(&answer) || tokio::time::Instant::now() > deadline {
                return Some(answer);
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?.block_on(ask)
}

/// True while a server looks for its agents.
fn probes(answer: &Value) -> bool {
    let agents = answer.get("agents").and_then(Value::as_object);
    agents.is_some_and(|agents| agents.values().any(|state| state == "probing"))
}

fn of_server(bind: SocketAddr, answer: &Value) -> Vec<Check> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let server = match answer.get("ready").and_then(Value::as_bool) {
        Some(true) => Check::new("server", Verdict::Good, format!("runs on {bind} and takes work")),
        _ => Check::new("server", Verdict::Broken, format!("runs on {bind} and takes no work: {}", text("reason"))),
    };
    let store = text("store");
    let store = if store == "ok" { Ok("the server says ok".into()) } else { Err(format!("the server says: {store}")) };
    let mut checks = vec![server, Check::from_result("database", store)];
    for (name, state) in answer.get("agents").and_then(Value::as_object).into_iter().flatten() {
        let state = state.as_str().map_or_else(|| state.to_string(), str::to_owned);
        let verdict = if state == "ok" { Verdict::Good } else { Verdict::Limited };
        checks.push(Check::new(format!("agent {name}"), verdict, state));
    }
    checks
}

/// The default agent must be able to run; the others may be missing.
fn of_probes(default: &str, probes: &[(String, Probe)]) -> Vec<Check> {
    let check = |(name, probe): &(String, Probe)| {
        let verdict = match (probe.available, name == default) {
            (true, _) => Verdict::Good,
            (false, false) => Verdict::Limited,
            (false, true) => Verdict::Broken,
        };
        let found =
            probe.version.as_ref().map_or_else(|| "can run".to_owned(), |version| format!("can run, {version}"));
        let missing = || probe.reason.clone().unwrap_or_else(|| "cannot run".into());
        let found = match &probe.login {
            Some(login) => format!("{found}; no credentials seen: {login}"),
            None => found,
        };
        let detail = if probe.available { found } else { missing() };
        Check::new(format!("agent {name}"), verdict, terminal::first_line(&detail, 300))
    };
    probes.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_running_server_speaks_for_itself() {
        let bind = "127.0.0.1:1".parse().unwrap();
        let agents = json!({"echo": "ok", "codex": "not found: npm install"});
        let good = of_server(bind, &json!({"ready": true, "sessions": 1, "store": "ok", "agents": agents}));
        let mut verdicts: Vec<_> = good.iter().map(|check| (check.name.as_str(), check.verdict)).collect();
        let expected = [
            ("agent codex", Verdict::Limited),
            ("agent echo", Verdict::Good),
            ("database", Verdict::Good),
            ("server", Verdict::Good),
        ];
        verdicts.sort_by_key(|(name, _)| *name);
        assert_eq!(verdicts, expected);
        let bad = of_server(bind, &json!({"ready": false, "store": "disk full", "reason": "the store"}));
        assert!(bad.iter().all(|check| check.verdict == Verdict::Broken));
    }

    #[test]
    fn only_the_default_agent_must_run() {
        let missing = Probe { reason: Some("install it".into()), ..Probe::default() };
        let probes = [("a".to_owned(), missing.clone()), ("b".to_owned(), missing)];
        let checks = of_probes("b", &probes);
        assert_eq!((checks[0].verdict, checks[1].verdict), (Verdict::Limited, Verdict::Broken));
        assert_eq!(checks[1].detail, "install it");
    }
}
