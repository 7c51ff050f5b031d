//! What `doctor` finds: a list of checks, each with what it saw and what to do. Pure, but for the small looks at the
//! file system and the port.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The server works, something beside it does not.
    Limited,
    /// The server does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, and what to do when it is not good: one line.
    pub detail: String,
}

impl Check {
    /// A check that went like this.
    pub fn new(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict, detail: detail.into() }
    }

    /// Good with the first text, or broken with the second.
    pub fn from_result(name: impl Into<String>, result: Result<String, String>) -> Self {
        match result {
            Ok(detail) => Self::new(name, Verdict::Good, detail),
            Err(detail) => Self::new(name, Verdict::Broken, detail),
        }
    }
}

/// The checks as lines, and what they come to.
pub fn report(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Good => "ok    ",
            Verdict::Limited => "note  ",
            Verdict::Broken => "BROKEN",
        };
        let _ = writeln!(out, "{mark}  {:<width$}  {}", check.name, check.detail);
    }
    let broken = checks.iter().filter(|check| check.verdict == Verdict::Broken).count();
    let sum = if broken == 0 { "Nothing is in the way.".to_owned() } else { format!("{broken} broken.") };
    out + "\n" + &sum + "\n"
}

/// Whether files can be made in `dir`, which is made when it is not there, as the server does.
///
/// # Errors
/// Why not, and what to do.
pub fn writable(dir: &Path) -> Result<String, String> {
    let advice = "make it writable for this user, or choose another with --data-dir";
    let explain = |error: std::io::Error| format!("{}: {error}; {advice}", dir.display());
    std::fs::create_dir_all(dir).map_err(explain)?;
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let written = std::fs::File::create_new(&probe).and_then(|mut file| file.write_all(b"x"));
    // Removed also after a failed write: a full disk leaves an empty file.
    let removed = std::fs::remove_file(&probe);
    written.and(removed).map_err(explain)?;
    Ok(format!("{} can be written", dir.display()))
}

/// Whether nobody listens on `bind`.
///
/// # Errors
/// Who is in the way, and what to do.
pub fn port_free(bind: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(bind) {
        Ok(_) => Ok(format!("{bind} is free")),
        Err(error) => Err(super::serve::cannot_listen(bind, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_its_sum() {
        let mut checks =
            vec![Check::new("port", Verdict::Good, "free"), Check::new("agent x", Verdict::Limited, "none")];
        let good = "ok      port     free\nnote    agent x  none\n\nNothing is in the way.\n";
        assert_eq!(report(&checks), good);
        checks.push(Check::from_result("data dir", Err("full".into())));
        assert!(report(&checks).ends_with("BROKEN  data dir  full\n\n1 broken.\n"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        writable(&dir.path().join("new/deep")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("new/deep")).unwrap().count(), 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(writable(&file).unwrap_err().contains("--data-dir"));
    }

    #[test]
    fn a_port_in_use_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(port_free(address).unwrap_err().contains("--bind"));
        drop(listener);
        port_free(address).unwrap();
    }
}
