//! `greenroom vacuum`: makes the database file as small as what is in it, with the server stopped.

use std::process::ExitCode;

use super::{FAILED, complain, inside, terminal};
use crate::config::Config;

/// Does it and says what it brought.
pub fn run(config: Config) -> ExitCode {
    let done = match inside::vacuum(&config) {
        Ok(done) => done,
        Err(error) => return complain(FAILED, &error),
    };
    let of = bytesize::ByteSize;
    match terminal::print(&format!("{} before, {} now\n", of(done.before), of(done.after))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::from(FAILED),
    }
}
