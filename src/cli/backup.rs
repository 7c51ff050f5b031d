//! `greenroom backup PATH`: a copy of the database, also while the server runs.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{FAILED, complain, inside, terminal};
use crate::config::Config;

/// Arguments of `backup`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The file to make; it must not be there yet
    path: PathBuf,
}

/// Makes the copy and says how large it is.
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    let made = match inside::backup(config, &arguments.path) {
        Ok(made) => made,
        Err(error) => return complain(FAILED, &error),
    };
    let size = bytesize::ByteSize(made.bytes);
    let text = format!(
        "{}: {size} in {} ms\nTo restore: stop the server, then start it with --database sqlite:{}\n",
        arguments.path.display(),
        made.took.as_millis(),
        arguments.path.display(),
    );
    match terminal::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::from(FAILED),
    }
}
