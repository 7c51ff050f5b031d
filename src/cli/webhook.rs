//! `greenroom webhook test ROUTE FILE`: sends a file to a route as its sender would, with the right signature.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    FAILED, USAGE,
    client::{Client, ClientError},
    complain, inside, terminal, to_its_end,
};
use crate::{
    config::Config,
    timestamp::Timestamp,
    webhooks::inbound::{Ask, Headers, Route},
};

/// What to do with routes.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Sign a file as the sender of a route would and send it to the running server
    Test(Arguments),
}

/// Arguments of `webhook test`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The route, as in [webhooks.ROUTE] of the configuration, which also has its secret
    route: String,
    /// The body to send; - is the standard input
    file: PathBuf,
    /// Address of the server
    #[arg(long, value_name = "URL", env = "GREENROOM_URL", default_value = "http://127.0.0.1:4910")]
    url: String,
    /// Another header, as in x-github-event:issue_comment; may be given several times
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Seconds to wait for the end of the turn
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
    /// Send nothing: say what would come of it
    #[arg(long)]
    dry_run: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { Err("write NAME:VALUE".into()) } else { Ok((name, value.trim().to_owned())) }
}

/// Runs the command: 0 when the server took it, 1 when it refused.
pub fn run(config: &Config, Command::Test(arguments): Command) -> ExitCode {
    let route = match inside::webhook_route(config, &arguments.route) {
        Ok(route) => route,
        Err(line) => return complain(USAGE, &line),
    };
    let body = match read(&arguments.file) {
        Ok(body) => body,
        Err(error) => return complain(USAGE, &format!("{}: {error}", arguments.file.display())),
    };
    let headers = signed(&route, &arguments.header, &body);
    if arguments.dry_run {
        return match would(&route, &headers, &body) {
            Ok(text) => terminal::print(&text).map_or(ExitCode::from(FAILED), |()| ExitCode::SUCCESS),
            Err(line) => complain(FAILED, &line),
        };
    }
    to_its_end(send(arguments, headers, body))
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return std::fs::read(file);
    }
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    Ok(body)
}

/// The headers of a request with that body, the given ones first.
fn signed(route: &Route, given: &[(String, String)], body: &[u8]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in given {
        headers.set(name, value);
    }
    if headers.get("content-type").is_none() {
        headers.set("content-type", "application/json");
    }
    route.check.sign(&mut headers, body, Timestamp::now().0.div_euclid(1_000_000));
    headers
}

/// What the route would make of a request.
fn would(route: &Route, headers: &Headers, body: &[u8]) -> Result<String, String> {
    let now = Timestamp::now().0.div_euclid(1_000_000);
    let here = Some(std::net::Ipv4Addr::LOCALHOST.into());
    let verified = route.check.verify(headers, body, now, here).map_err(|error| error.to_string())?;
    match route.read(headers, body, verified).map_err(|error| error.to_string())? {
        Ask::Challenge(challenge) => Ok(format!("would answer the challenge {challenge}\n")),
        Ask::Ignored(reason) => Ok(format!("would be ignored: {reason}\n")),
        Ask::Message(message) => {
            let text = message.send.text.unwrap_or_default();
            if text.trim().is_empty() {
                return Err("missing_text: the message would be empty".into());
            }
            Ok(format!("session  {}\nowner    {}\n\n{}\n", message.key, route.owner, text.trim()))
        }
    }
}

async fn send(arguments: Arguments, headers: Headers, body: Vec<u8>) -> Result<ExitCode, ClientError> {
    let client = Client::new(&arguments.url, None)?;
    let wait = arguments.wait.map(|seconds| format!("?wait={seconds}")).unwrap_or_default();
    let path = format!("/webhooks/{}{wait}", arguments.route);
    let (status, text) = client.post_as_is(&path, headers.iter(), body).await?;
    let shown = serde_json::from_str::<Value>(&text).map_or(text, |answer| format!("{answer:#}"));
    terminal::print(&format!("{status}\n{shown}\n"))?;
    Ok(if (200..300).contains(&status) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(route: &str, given: &[&str], body: &str) -> Result<String, String> {
        let config: Config = toml::from_str(&format!("[webhooks.ci]\n{route}")).unwrap();
        let route = inside::webhook_route(&config, "ci").unwrap();
        let given: Vec<_> = given.iter().map(|text| header(text).unwrap()).collect();
        would(&route, &signed(&route, &given, body.as_bytes()), body.as_bytes())
    }

    #[test]
    fn a_dry_run_says_what_would_come_of_it() {
        let github = "verify = 'github'\nsecret = 'x'\ntext = '{{ action }}!'\nwhen = \"action == 'opened'\"";
        let opened = said(github, &["X-GitHub-Event: issues"], r#"{"action":"opened"}"#).unwrap();
        assert_eq!(opened, "session  webhook:ci:default\nowner    local\n\nopened!\n");
        assert_eq!(said(github, &[], r#"{"action":"closed"}"#).unwrap(), "would be ignored: when\n");
        assert_eq!(said(github, &["x-github-event:ping"], "{}").unwrap(), "would be ignored: ping\n");
        let slack = said("verify = 'slack'\nsecret = 'x'", &[], r#"{"type":"url_verification","challenge":"c"}"#);
        assert_eq!(slack.unwrap(), "would answer the challenge c\n");
        assert!(said("verify = 'none'", &[], "{}").unwrap_err().starts_with("missing_text"));
        assert!(said("verify = 'none'", &["content-type: text/plain"], "x").unwrap_err().contains("media"));
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(header("X-A:b:c"), Ok(("x-a".into(), "b:c".into())));
        assert!(header("x").is_err() && header(":x").is_err());
    }
}
