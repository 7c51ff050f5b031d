//! Logging of the server: `log` records with their key-values on stderr.

use std::io::Write as _;

use env_logger::{Builder, Logger, Target};
use log::LevelFilter;
use serde_json::Value;

use crate::{
    config::{LogConfig, LogFormat},
    logs::{self, Line},
};

/// Reads `log.level`: a level, or directives such as `info,greenroom::ws=debug`.
///
/// # Errors
/// One line. A bare word that is no level is an error: env_logger would take it for a module and log nothing else.
pub fn directives(text: &str) -> Result<Vec<(Option<String>, LevelFilter)>, String> {
    let one = |directive: &str| {
        let (module, level) = match directive.split_once('=') {
            Some((module, level)) => (Some(module.trim().to_owned()), level.trim()),
            None => (None, directive.trim()),
        };
        let level = level.parse::<LevelFilter>();
        level.map(|level| (module, level)).map_err(|_unknown| {
            format!(
                "configuration: log.level: {directive:?} is none of off, error, warn, info, debug, trace, MODULE=LEVEL"
            )
        })
    };
    text.split(',').map(one).collect()
}

/// Sends all log records of this process to stderr, and keeps the newest in memory.
///
/// # Errors
/// What is wrong with the level.
pub fn init(config: &LogConfig) -> Result<(), String> {
    logs::install(logger, &config.level, config.format)
}

/// What writes to stderr, with milliseconds.
fn logger(level: &str, format: LogFormat) -> Result<Logger, String> {
    let mut builder = Builder::new();
    // It tells at `info` what the block at the start tells already, and each worker that stops.
    builder.filter_module("actix_server", LevelFilter::Warn);
    // It tells at `error` that a client sent what is no HTTP, which is the client's fault and can be had at any rate.
    builder.filter_module("actix_http::h1::dispatcher", LevelFilter::Off);
    for (module, level) in directives(level)? {
        builder.filter(module.as_deref(), level);
    }
    builder.format_timestamp_millis().target(Target::Stderr);
    if format == LogFormat::Json {
        builder.format(|out, record| writeln!(out, "{}", json_line(&Line::of(record))));
    }
    Ok(builder.build())
}

/// One object, its fields beside the rest: what a log collector expects. Ours win over a field of the same name.
fn json_line(line: &Line) -> Value {
    let mut object = line.fields.clone();
    object.insert("at".into(), line.at.to_rfc3339().into());
    object.insert("level".into(), line.level.into());
    object.insert("target".into(), line.target.as_str().into());
    object.insert("message".into(), line.message.as_str().into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_read() {
        assert_eq!(directives("warn").unwrap(), [(None, LevelFilter::Warn)]);
        let both = directives("info, greenroom::ws=debug").unwrap();
        assert_eq!(both, [(None, LevelFilter::Info), (Some("greenroom::ws".into()), LevelFilter::Debug)]);
        for wrong in ["", "inof", "info,", "a=b", "info;debug"] {
            assert!(directives(wrong).is_err(), "{wrong}");
        }
    }
}
