//! The documents say what the program does: routes, events, error codes and settings against `docs/`, and the list of
//! reference behaviours in `tests/coverage.toml` against the tests that it names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use greenroom::{
    config::{
        AgentConfig, AgentKind, CallerLimits, Config, PromptBy, Secret, UserBudget, Verify, WebhookConfig,
        WebhookEndpointConfig,
    },
    error::Code,
    protocol::Policy,
};
use serde::Deserialize;

/// A file of the repository.
fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of the rows of all tables in a document; what is in backticks is taken out of them.
fn rows(document: &str) -> Vec<Vec<String>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect()).collect()
}

/// The words between backticks.
fn code_words(document: &str) -> BTreeSet<String> {
    let outside_blocks = document.split("```").step_by(2);
    outside_blocks.flat_map(|part| part.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_error_code_has_its_row() {
    let document = text("docs/api.md");
    let section = document.split("## Error codes").nth(1).unwrap().split("\n## ").next().unwrap();
    let told: BTreeMap<String, (String, String)> =
        rows(section).into_iter().skip(1).map(|row| (row[0].clone(), (row[1].clone(), row[2].clone()))).collect();
    for code in Code::ALL {
        let expected = (code.status().to_string(), code.kind().to_owned());
        assert_eq!(told.get(code.as_str()), Some(&expected), "{}", code.as_str());
    }
    assert_eq!(told.len(), Code::ALL.len(), "the table has codes that there are not: {:?}", told.keys());
}

/// The types that a `type_name` of the protocol can give.
fn type_names(path: &str) -> BTreeSet<String> {
    let source = text(path);
    let body = source.split("fn type_name(").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let names = body.lines().filter_map(|line| line.split_once("=> \"")?.1.split_once('"'));
    names.map(|(name, _)| name.to_owned()).filter(|name| name != "unknown").collect()
}

#[test]
fn every_event_and_control_frame_has_its_row() {
    let document = text("docs/api.md");
    let section = document.split("\n## Events").nth(1).unwrap().split("\n## ").next().unwrap();
    let told: BTreeSet<String> =
        rows(section).into_iter().map(|row| row[0].clone()).filter(|cell| cell != "type").collect();
    let (events, control) = (type_names("src/protocol/event.rs"), type_names("src/protocol/frame.rs"));
    assert!(events.contains("turn.finished") && control.contains("stream.end"), "the sources are not read right");
    let mut all: BTreeSet<String> = events.union(&control).cloned().collect();
    // The one control frame that belongs to a connection and not to a session.
    assert!(greenroom::protocol::frame::ping(greenroom::timestamp::Timestamp(0)).contains(r#""type":"ping""#));
    all.insert("ping".into());
    assert_eq!(told, all);
}

#[test]
fn every_route_has_its_call() {
    let document = text("docs/api.md");
    let words = code_words(&document);
    let mut routes = 0;
    for line in text("src/http/mod.rs").lines().map(str::trim) {
        let (prefix, rest) = match (line.strip_prefix("At::new(\""), line.strip_prefix("session(\"")) {
            (Some(rest), _) => ("", rest),
            (_, Some(rest)) => ("/v1/sessions/{key}", rest),
            _ => continue,
        };
        let (path, handlers) = rest.split_once("\")").unwrap();
        for (call, method) in [
            (".get(", "GET"),
            (".stream(", "GET"),
            (".post(", "POST"),
            (".put(", "PUT"),
            (".patch(", "PATCH"),
            (".delete(", "DELETE"),
        ] {
            if handlers.contains(call) {
                // A pattern, as of a part that may hold slashes, is no part of the path's name.
                let route = format!("{method} {prefix}{}", path.replace(":.+}", "}"));
                assert!(words.contains(&route), "docs/api.md does not have `{route}`");
                routes += 1;
            }
        }
    }
    assert!(routes > 30, "the routes are not read right: {routes}");
}

/// A configuration in which nothing is left out. A new key of an agent must be added here to compile.
fn whole() -> Config {
    let text = || Some(String::from("x"));
    let agent = AgentConfig {
        kind: Some(AgentKind::Openai),
        command: vec!["x".into()],
        env: BTreeMap::from([("X".into(), Secret::new("x"))]),
        pass_env: vec!["X".into()],
        cwd: Some("/x".into()),
        model: text(),
        mode: text(),
        base_url: text(),
        api_key: Some(Secret::new("x")),
        api_key_env: text(),
        system: text(),
        max_retries: 4,
        native_resume: true,
        allow_bypass: false,
        prompt_by: PromptBy::Stdin,
        fallback: text(),
        configured: true,
    };
    let mut config = Config { data_dir: Some("/x".into()), ..Config::default() };
    config.store.url = Some(Secret::new("x"));
    config.pool.max_memory = Some(greenroom::config::Size::mib(1));
    config.session.default_agent = text();
    config.audit.keep = Some(greenroom::config::Duration::secs(1));
    config.agents.insert("NAME".into(), agent);
    let limits = CallerLimits {
        requests_per_second: Some(0),
        burst: Some(0),
        max_turns: Some(0),
        max_streams: Some(0),
        max_sessions: Some(0),
    };
    config.callers.users.insert("NAME".into(), limits);
    config.callers.tokens.insert("ID".into(), limits);
    let endpoint = WebhookEndpointConfig {
        url: "https://x/".into(),
        types: vec!["x".into()],
        sessions: Some(vec!["x".into()]),
        secret: Some(Secret::new("x")),
        secret_env: text(),
        owner: text(),
    };
    config.webhook_endpoints.insert("NAME".into(), endpoint);
    let user = UserBudget {
        session_tokens: Some(0),
        session_cost_usd: Some(0.0),
        user_day_tokens: Some(0),
        user_day_cost_usd: Some(0.0),
    };
    config.budget.users.insert("NAME".into(), user);
    let route = WebhookConfig {
        enabled: true,
        verify: Some(Verify::Secret),
        secret: vec![Secret::new("x")],
        secret_env: vec!["X".into()],
        prefix: text(),
        text: text(),
        session_key: text(),
        when: text(),
        agent: text(),
        policy: Policy::Enqueue,
        owner: text(),
        reply_url: text(),
        reply_secret: Some(Secret::new("x")),
        reply_secret_env: text(),
    };
    config.webhooks.insert("ROUTE".into(), route);
    config
}

/// Keys with their values as the file has them. The environment of an agent is one key.
fn keys(config: &Config) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) if !path.ends_with(".env") => {
                for (name, value) in table {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, found);
                }
            }
            toml::Value::String(text) => drop(found.insert(path.into(), text.clone())),
            other => drop(found.insert(path.into(), other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk("", &toml::Value::Table(toml::Table::try_from(config).unwrap()), &mut found);
    found
}

#[test]
fn every_setting_has_its_row_and_its_default() {
    let told: BTreeMap<String, String> =
        rows(&text("docs/configuration.md")).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = keys(&whole());
    let missing: Vec<&String> = known.keys().filter(|key| !told.contains_key(*key)).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not have {missing:?}");
    let unknown: Vec<&String> = told
        .keys()
        .filter(|key| {
            !["key", "agents", "webhook_endpoints", "callers.users", "callers.tokens", "budget.users"]
                .contains(&key.as_str())
                && !known.contains_key(*key)
        })
        .collect();
    assert!(unknown.is_empty(), "there are no such settings: {unknown:?}");
    for (key, default) in keys(&Config::default()) {
        // It depends on the machine.
        if key != "server.workers" {
            assert_eq!(told[&key], default, "{key}");
        }
    }
}

#[test]
fn the_api_names_settings_and_events_that_there_are() {
    let sections = keys(&Config::default());
    let sections: BTreeSet<&str> = sections.keys().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let mut known: BTreeSet<String> = keys(&whole()).into_keys().collect();
    known.extend(type_names("src/protocol/event.rs"));
    known.extend(type_names("src/protocol/frame.rs"));
    for word in code_words(&text("docs/api.md")) {
        let key = word.split_once('.').filter(|(section, name)| {
            sections.contains(section) && !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
        assert!(key.is_none() || known.contains(&word), "there is no {word}");
    }
}

#[test]
fn the_examples_of_configuration_are_good() {
    let mut blocks = 0;
    for path in ["README.md", "docs/configuration.md", "docs/webhooks.md"] {
        for block in text(path).split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            toml::from_str::<Config>(block).unwrap_or_else(|error| panic!("{path}: {error}\n{block}"));
            blocks += 1;
        }
    }
    assert!(blocks >= 3, "the examples are not found");
}

/// A line of `tests/coverage.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    id: String,
    what: String,
    #[serde(default)]
    tests: Vec<String>,
    open: Option<String>,
    not_applicable: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coverage {
    behaviour: Vec<Behaviour>,
}

fn coverage() -> Vec<Behaviour> {
    toml::from_str::<Coverage>(&text("tests/coverage.toml")).unwrap().behaviour
}

#[test]
fn every_reference_behaviour_is_accounted_for() {
    let mut ids = BTreeSet::new();
    for Behaviour { id, what, tests, open, not_applicable } in coverage() {
        let kinds = [!tests.is_empty(), open.is_some(), not_applicable.is_some()];
        assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{id}: one of tests, open, not_applicable");
        let texts = [Some(what), open, not_applicable];
        assert!(texts.iter().flatten().all(|text| text.len() > 10 && !text.contains('\n')), "{id}: one line of text");
        assert!(ids.insert(id.clone()), "{id} is there twice");
    }
    let families = [("T", 55), ("L", 41), ("P", 18), ("C", 42), ("B", 33), ("I", 42)];
    let all = families.iter().flat_map(|(family, last)| (1..=*last).map(move |number| format!("{family}-{number:02}")));
    let all: BTreeSet<String> = all.collect();
    assert_eq!(ids, all);
}

/// True when the file has a test of that name. Cases of the store run on both databases by a list in its `main.rs`.
fn has_test(path: &str, name: &str) -> bool {
    let source = text(path);
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| line.contains(&format!("fn {name}("))) else { return false };
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
    let is_test = attributes.clone().any(|line| line.contains("test]") || line.contains("test("));
    let case = path.strip_prefix("tests/store/").and_then(|path| path.strip_suffix(".rs"));
    is_test || case.is_some_and(|module| text("tests/store/main.rs").contains(&format!("    {module}::{name},")))
}

#[test]
fn the_tests_that_show_a_behaviour_are_there() {
    let mut wrong = Vec::new();
    for Behaviour { id, tests, .. } in coverage() {
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("{id}: {test} is not path::name"));
            let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists() && has_test(path, name);
            if !there {
                wrong.push(format!("{id}: {test}"));
            }
        }
    }
    assert!(wrong.is_empty(), "no such tests:\n{}", wrong.join("\n"));
}

/// The names in an expression that are metrics of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("greenroom_")).map(str::to_owned).collect()
}

/// The rows of the tables of bounds.
fn bounds() -> Vec<Vec<String>> {
    let document = text("docs/bounds.md");
    let tables = document.split("\n## Retention").next().unwrap();
    rows(tables).into_iter().filter(|row| row.len() == 6 && row[0] != "bound" && !row[0].starts_with("---")).collect()
}

#[test]
fn every_bound_has_a_setting_a_number_and_a_test_that_there_are() {
    greenroom::metrics::install().unwrap();
    let known: BTreeSet<String> = greenroom::metrics::get().unwrap().names().into_iter().map(str::to_owned).collect();
    let (settings, defaults) = (keys(&whole()), keys(&Config::default()));
    let (mut wrong, mut untested) = (Vec::new(), 0);
    let bounds = bounds();
    for row in &bounds {
        let [bound, default, key, outcome, metric, test] = &row[..] else { unreachable!() };
        if key != "fixed" && !settings.contains_key(key) {
            wrong.push(format!("{bound}: there is no setting {key}"));
        }
        if key != "delivery.schedule" && defaults.get(key).is_some_and(|known| known.trim_end_matches(".0") != default)
        {
            wrong.push(format!("{bound}: {key} is {}", defaults[key]));
        }
        if outcome.is_empty() {
            wrong.push(format!("{bound}: what happens?"));
        }
        if metric != "—" && !known.contains(metric) {
            wrong.push(format!("{bound}: there is no metric {metric}"));
        }
        match test.split_once("::") {
            Some((path, name)) if Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists() && has_test(path, name) => {
            }
            None if test == "—" => untested += 1,
            _ => wrong.push(format!("{bound}: there is no test {test}")),
        }
    }
    assert!(wrong.is_empty(), "docs/bounds.md:\n{}", wrong.join("\n"));
    assert!(bounds.len() > 60 && untested < 3, "{} bounds, {untested} without a test", bounds.len());
}

/// Settings that say what happens at them and are no bound: they choose, or place.
const CHOICES: [&str; 13] = [
    "server.bind",
    "server.allowed_hosts",
    "server.allowed_origins",
    "store.url",
    "session.default_agent",
    "callers.burst",
    "budget.session_cost_usd",
    "budget.user_day_tokens",
    "budget.user_day_cost_usd",
    "budget.warn_at",
    "budget.on_limit",
    "recovery.retry_interrupted",
    "delivery.allow_addresses",
];

#[test]
fn every_setting_with_an_end_is_a_bound() {
    let document = text("docs/configuration.md");
    let table = document.split("\n## Keys").nth(1).unwrap().split("\n## ").next().unwrap();
    let known: BTreeSet<String> = bounds().into_iter().map(|row| row[2].clone()).collect();
    let retention = ["sessions.keep", "events.keep_deltas", "audit.keep"];
    let missing: Vec<String> = rows(table)
        .into_iter()
        .filter(|row| row.len() == 4 && row[0] != "key" && !row[0].starts_with("---"))
        .map(|row| row[0].clone())
        .filter(|key| !known.contains(key) && !CHOICES.contains(&key.as_str()) && !retention.contains(&key.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/bounds.md does not have {missing:?}");
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_document_exists() {
    greenroom::metrics::install().unwrap();
    let known: BTreeSet<String> = greenroom::metrics::get().unwrap().names().into_iter().map(str::to_owned).collect();
    let base = |name: &str| {
        let suffix = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
        suffix.filter(|base| known.contains(*base)).unwrap_or(name).to_owned()
    };
    let dashboard: serde_json::Value = serde_json::from_str(&text("docs/grafana.json")).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let used = metrics_in(target["expr"].as_str().unwrap());
            assert!(!used.is_empty(), "{}: shows nothing of ours", panel["title"]);
            shown.extend(used.iter().map(|name| base(name)));
        }
    }
    let unknown: Vec<_> = shown.difference(&known).collect();
    assert!(unknown.is_empty() && shown.len() > 20, "the dashboard has metrics that there are not: {unknown:?}");
    let told = metrics_in(&text("docs/api.md"));
    assert_eq!(told, known, "docs/api.md lists the metrics");
}
