//! Calls for operators: numbers, settings, the log, the channels.

use serde_json::{Map, Value, json};

use super::document::Document;
use crate::{
    config::{Config, live::MUTABLE},
    error::Code,
    gateway::SettingsView,
    http::{list::Whole, operate::Channels},
    logs::{Line, MAX_LINES},
};

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Operators", "What happens inside: numbers, settings in force, the log, the ways in and out.");

    doc.get("/metrics", "getMetrics", "Numbers for Prometheus")
        .about("With `server.public_metrics` no credentials are needed.")
        .admin()
        .answers_as(
            200,
            "The classic text format.",
            "text/plain; version=0.0.4; charset=utf-8",
            json!({"schema": {"type": "string"}}),
        )
        .done();

    doc.get("/v1/config", "getConfig", "The settings in force")
        .about("Secrets are shown as `***`.")
        .admin()
        .answers::<SettingsView>(200, "The settings.")
        .done();

    doc.patch("/v1/config", "updateConfig", "Change settings until the server stops")
        .about("Only those that are listed as `mutable`; all of them, or none. The audit has each old and new value.")
        .admin()
        .takes_form(
            settings(),
            &[
                ("queue", json!({"session": {"max_queue": 50}, "choice": {"timeout": "5m"}})),
                ("back", json!({"session": {"max_queue": null}})),
            ],
        )
        .may_be_empty()
        .answers::<SettingsView>(200, "The settings after it.")
        .refuses(&[Code::SettingNotMutable])
        .done();

    let line = doc.sent::<Line>();
    doc.get("/v1/logs", "listLogs", "The newest lines of the log, and its live tail")
        .about(
            "With `Accept: text/event-stream` a stream: those lines and all that follow, each an event `logs.line` with \
             the `id` of the line. Lines that were lost in between are told by `stream.gap` (`lines`, `reason`), the end \
             by `stream.end`. Numbers begin anew when the server starts.",
        )
        .admin()
        .query(
            "limit",
            "Lines at most, the newest.",
            json!({"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": 200}),
        )
        .query(
            "level",
            "Only those that are at least so grave.",
            json!({"type": "string", "enum": ["error", "warn", "info", "debug", "trace"], "default": "trace"}),
        )
        .header("last-event-id", "Streams only: the `id` of a line to go on behind.", json!({"type": "string"}))
        .answers::<Whole<Vec<Line>>>(200, "The lines, oldest first; or the stream.")
        .answers_as(
            200,
            "The lines, oldest first; or the stream.",
            "text/event-stream",
            json!({"schema": {"type": "string"}, "x-event-schema": line}),
        )
        .refuses(&[Code::InvalidLimit, Code::InvalidCursor])
        .done();

    doc.get("/v1/channels/status", "getChannels", "How the ways in and out do")
        .admin()
        .answers::<Channels>(200, "What each went through since the start.")
        .done();
}

/// The settings that may change, by topic and name. A setting without a value is a text.
fn settings() -> Value {
    let now = json!(Config::default());
    let mut topics: Map<String, Value> = Map::new();
    for (topic, name) in MUTABLE.iter().filter_map(|key| key.split_once('.')) {
        let form = match now.pointer(&format!("/{topic}/{name}")) {
            Some(Value::Number(number)) if number.is_f64() => {
                // Parts of a bound are more than nothing; amounts may be 0, which is no bound.
                let least = if name == "warn_at" || name == "step" { "exclusiveMinimum" } else { "minimum" };
                let mut form = json!({"type": ["number", "null"], least: 0});
                if let (true, Some(form)) = (name == "warn_at", form.as_object_mut()) {
                    form.insert("maximum".into(), 1.into());
                }
                form
            }
            Some(Value::Number(_)) => json!({"type": ["integer", "null"]}),
            Some(Value::Bool(_)) => json!({"type": ["boolean", "null"]}),
            Some(Value::String(text)) if text.starts_with(|first: char| first.is_ascii_digit()) => {
                json!({"type": ["string", "integer", "null"], "description": "A text with a unit; some take 0 without one."})
            }
            _ => json!({"type": ["string", "null"]}),
        };
        let empty = || json!({"type": "object", "additionalProperties": false, "properties": {}});
        let topic = topics.entry(topic).or_insert_with(empty);
        if let Some(Value::Object(names)) = topic.get_mut("properties") {
            names.insert(name.to_owned(), form);
        }
    }
    json!({
        "description": "Settings by topic and name, as in the configuration. Null gives one its configured value back.",
        "type": "object", "additionalProperties": false, "properties": topics,
    })
}
