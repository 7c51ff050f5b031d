//! The command line: arguments in, exit status out.
//!
//! `serve` runs the server in this process. `token`, `user` and `org` change accounts in its database. Every other
//! command but `backup`, `vacuum`, `doctor` and `config` is a client: it knows a running server by its URL and uses nothing but the
//! wire.
//!
//! Exit status: 0 done, 1 it failed, 2 wrong arguments or configuration, 3 no server there.

mod accounts;
mod agents;
mod answer;
mod attach;
mod backup;
pub mod banner;
mod checks;
mod client;
mod configuration;
mod doctor;
mod follow;
mod inside;
mod logging;
mod options;
mod prompt;
mod render;
mod send;
pub mod serve;
mod sessions;
mod sse;
mod table;
mod terminal;
mod top;
mod vacuum;
mod webhook;

#[cfg(test)]
mod test_server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::{Client, ClientError};
use options::{Common, Remote};

/// The command ran and what it was about failed.
pub(crate) const FAILED: u8 = 1;
/// The arguments or the configuration are wrong.
pub(crate) const USAGE: u8 = 2;
/// No server answers.
pub(crate) const UNREACHABLE: u8 = 3;

/// A gateway that hosts many long-lived sessions with AI agents.
#[derive(Debug, Parser)]
#[command(name = "greenroom", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (also what happens without a command)
    Serve,
    /// Send a message and print the answer as it comes
    Send(send::Arguments),
    /// Follow a session in the terminal; lines that you type are sent
    Attach(attach::Arguments),
    /// List sessions
    Sessions(sessions::Arguments),
    /// Watch sessions, queues, agents and rates in the terminal
    Top(top::Arguments),
    /// List agents
    Agents(agents::Arguments),
    /// Make, list and revoke tokens, straight in the database
    #[command(subcommand)]
    Token(accounts::TokenCommand),
    /// Make, list, disable and enable users, straight in the database
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Organisations and their members, straight in the database
    #[command(subcommand)]
    Org(accounts::OrgCommand),
    /// Try the routes for inbound webhooks
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Copy the database to a file, also while the server runs
    Backup(backup::Arguments),
    /// Give back what the database file does not use, with the server stopped
    Vacuum,
    /// Look for what would keep the server from working, and say what to do
    Doctor,
    /// Print the OpenAPI description of the API
    Openapi,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(configuration::Command),
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that belong on stdout with status 0: clap knows which.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => with_config(&cli.common, serve::run),
        Command::Config(command) => configuration::run(&command, &cli.common),
        Command::Openapi => {
            terminal::print(crate::http::openapi::text()).map_or(ExitCode::from(FAILED), |()| ExitCode::SUCCESS)
        }
        Command::Token(command) => on_accounts(&cli.common, accounts::Command::Token(command)),
        Command::User(command) => on_accounts(&cli.common, accounts::Command::User(command)),
        Command::Org(command) => on_accounts(&cli.common, accounts::Command::Org(command)),
        Command::Webhook(command) => with_config(&cli.common, |config| webhook::run(&config, command)),
        Command::Backup(arguments) => with_config(&cli.common, |config| backup::run(&config, &arguments)),
        Command::Vacuum => with_config(&cli.common, vacuum::run),
        Command::Doctor => doctor::run(&cli.common),
        Command::Send(arguments) => remote(&arguments.remote.clone(), |client| send::run(client, arguments)),
        Command::Attach(arguments) => remote(&arguments.remote.clone(), |client| attach::run(client, arguments)),
        Command::Sessions(arguments) => remote(&arguments.remote.clone(), |client| sessions::run(client, arguments)),
        Command::Top(arguments) => remote(&arguments.remote.clone(), |client| top::run(client, arguments)),
        Command::Agents(arguments) => remote(&arguments.remote.clone(), |client| agents::run(client, arguments)),
    }
}

/// Runs `what` with the effective configuration; a mistake in it is one line and status 2.
fn with_config(common: &Common, what: impl FnOnce(crate::config::Config) -> ExitCode) -> ExitCode {
    match options::load(common) {
        Ok(config) => what(config),
        Err(error) => complain(USAGE, &error.to_string()),
    }
}

fn on_accounts(common: &Common, command: accounts::Command) -> ExitCode {
    with_config(common, |config| accounts::run(&config, command))
}

/// Runs a client command to its end.
fn remote<F: Future<Output = Result<ExitCode, ClientError>>>(
    remote: &Remote,
    command: impl FnOnce(Client) -> F,
) -> ExitCode {
    let client = remote.token().map_err(ClientError::Usage).and_then(|token| Client::new(&remote.url, token.as_ref()));
    match client {
        Ok(client) => to_its_end(command(client)),
        Err(error) => complain(error.exit_status(), &error.to_string()),
    }
}

/// Runs what a client does to its end.
fn to_its_end(command: impl Future<Output = Result<ExitCode, ClientError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &format!("cannot start: {error}")),
    };
    let result = runtime.block_on(command);
    // A thread that waits for a line of the terminal cannot be woken: do not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(status) => status,
        // Whoever read our output went away: nothing to say, and nobody to say it to.
        Err(ClientError::OutputClosed) => ExitCode::from(FAILED),
        Err(error) => complain(error.exit_status(), &error.to_string()),
    }
}

/// One line on stderr and an exit status.
pub(crate) fn complain(status: u8, what: &str) -> ExitCode {
    terminal::note(&format!("greenroom: {what}"));
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("greenroom").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_and_common_options_stand_anywhere() {
        assert!(parse(&[]).unwrap().command.is_none());
        let before = parse(&["--bind", "127.0.0.1:1", "serve"]).unwrap();
        let after = parse(&["serve", "--bind", "127.0.0.1:1"]).unwrap();
        assert_eq!(before.common.overrides().values, after.common.overrides().values);
        assert_eq!(before.common.overrides().values, [("server.bind".into(), "\"127.0.0.1:1\"".into())]);
    }

    #[test]
    fn wrong_arguments_are_status_2_and_help_is_0() {
        for wrong in
            [&["nonsense"][..], &["send", "key"], &["send", "a b", "text"], &["--bind"], &["sessions", "--limit", "0"]]
        {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
        assert_eq!(parse(&["send", "--help"]).unwrap_err().exit_code(), 0);
    }
}
