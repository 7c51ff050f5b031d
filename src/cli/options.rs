//! Options that several commands share, and how they become a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Config, ConfigError, Overrides, Secret};

/// Settings that can be given on the command line; they win over environment and file.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Configuration file [default: greenroom.toml in this folder, where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "GREENROOM_CONFIG", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Where the server listens [default: 127.0.0.1:4910]
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = "Settings")]
    pub bind: Option<String>,
    /// sqlite:PATH or postgres://… [default: sqlite:greenroom.db in the data dir]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    pub database: Option<String>,
    /// Where data lives [default: $XDG_DATA_HOME/greenroom]
    #[arg(long, global = true, value_name = "FOLDER", help_heading = "Settings")]
    pub data_dir: Option<String>,
    /// error, warn, info, debug, trace, or target=level,… [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Settings")]
    pub log: Option<String>,
    /// The agent of sessions that ask for none [default: echo]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Settings")]
    pub default_agent: Option<String>,
}

impl Common {
    /// The settings by their keys in the configuration.
    pub fn overrides(&self) -> Overrides {
        let settings = [
            ("server.bind", &self.bind),
            ("store.url", &self.database),
            ("data_dir", &self.data_dir),
            ("log.level", &self.log),
            ("session.default_agent", &self.default_agent),
        ];
        // Quoted, because a folder called `7` or an agent called `true` is still a text.
        let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
        let given = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), quoted(value.as_ref()?))));
        Overrides { file: self.config.clone(), values: given.collect() }
    }
}

/// Where the server is that a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// Address of the server
    #[arg(long, value_name = "URL", env = "GREENROOM_URL", default_value = "http://127.0.0.1:4910")]
    pub url: String,
    /// File with the token to call with; else $GREENROOM_TOKEN
    #[arg(long, value_name = "FILE", env = "GREENROOM_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl Remote {
    /// The token to call with: of the file, else of the environment; none where neither is given. It is no option, since
    /// the arguments of a process are for everybody to see.
    ///
    /// # Errors
    /// One line: why the file cannot be read.
    pub fn token(&self) -> Result<Option<Secret>, String> {
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
            None => std::env::var("GREENROOM_TOKEN").unwrap_or_default(),
        };
        Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Secret::new))
    }
}

/// The effective configuration of this process.
///
/// # Errors
/// One line that says which setting is wrong and why.
pub fn load(common: &Common) -> Result<Config, ConfigError> {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let config = config::load(&common.overrides(), environment)?;
    super::logging::directives(&config.log.level).map_err(ConfigError)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(common: &Common) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        load(&Common { config: Some(file.path().into()), ..common.clone() }).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_reach_their_settings_as_texts() {
        let common =
            Common { data_dir: Some("7".into()), database: Some("sqlite:a \"b\".db".into()), ..Common::default() };
        let config = loaded(&common).unwrap();
        assert_eq!(config.data_dir(), PathBuf::from("7"));
        assert_eq!(config.database_url().expose(), "sqlite:a \"b\".db");
    }

    #[test]
    fn mistakes_are_one_line() {
        let bind = |text: &str| loaded(&Common { bind: Some(text.into()), ..Common::default() }).unwrap_err();
        let log = loaded(&Common { log: Some("inof".into()), ..Common::default() }).unwrap_err();
        let agent = loaded(&Common { default_agent: Some("nobody".into()), ..Common::default() }).unwrap_err();
        for (line, part) in [(bind("nowhere"), "bind"), (log, "inof"), (agent, "nobody")] {
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }
}
