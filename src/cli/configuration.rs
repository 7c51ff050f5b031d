//! `greenroom config check|print`.

use std::process::ExitCode;

use clap::Subcommand;

use super::{
    FAILED, USAGE, complain, inside,
    options::{self, Common},
    terminal,
};
use crate::config::{Config, shown};

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Say whether the configuration is good; exit status 2 when it is not
    Check,
    /// Print the effective configuration as TOML, secrets as ***
    Print,
}

/// Loads the configuration and says what came of it.
pub fn run(command: &Command, common: &Common) -> ExitCode {
    let config = match options::load(common) {
        Ok(config) => config,
        Err(error) => return complain(USAGE, &error.to_string()),
    };
    let text = match command {
        Command::Check => match inside::webhook_routes(&config) {
            Ok(_) => Ok("the configuration is good\n".to_owned()),
            Err(line) => return complain(USAGE, &format!("configuration: {line}")),
        },
        Command::Print => effective(&config),
    };
    match text {
        Ok(text) => terminal::print(&text).map_or(ExitCode::from(FAILED), |()| ExitCode::SUCCESS),
        Err(error) => complain(FAILED, &error),
    }
}

/// The configuration as TOML, with what defaults resolve to. A database URL is shown without its password.
fn effective(config: &Config) -> Result<String, String> {
    let mut config = config.clone();
    let database = shown::database(config.database_url().expose());
    config.data_dir = Some(config.data_dir());
    config.session.default_agent = Some(config.default_agent().to_owned());
    let mut table = toml::Table::try_from(&config).map_err(|error| error.to_string())?;
    if let Some(store) = table.get_mut("store").and_then(toml::Value::as_table_mut) {
        store.insert("url".into(), database.into());
    }
    toml::to_string_pretty(&table).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read_again_and_holds_no_secret() {
        let text = "data_dir = \"/srv/g\"\n[store]\nurl = \"postgres://a:hunter2@h/db\"\n\
                    [agents.local]\nkind = \"openai\"\nbase_url = \"http://hunter2:hunter2@127.0.0.1:1/v1?key=hunter2\"\napi_key = \"hunter2\"\n\
                    env = { KEY = \"hunter2\" }\n[stream]\nflush_interval = \"7ms\"\n";
        let config: Config = toml::from_str(text).unwrap();
        let printed = effective(&config).unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        let again: Config = toml::from_str(&printed).unwrap();
        assert_eq!(again.stream, config.stream);
        assert_eq!(again.limits, config.limits);
        assert_eq!(again.database_url().expose(), "postgres://a:***@h/db");
        assert_eq!(again.default_agent(), "echo");
    }
}
