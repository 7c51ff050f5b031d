//! Attached files in the folder where an agent works, for programs that take files only by their path.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use base64::Engine as _;

use crate::{agents::AgentEvent, protocol::Attachment};

/// The folder, inside of the agent's own, that attached files land in.
const INBOX: &str = "input";
/// The longest name of a file, in bytes.
const MAX_NAME: usize = 120;
/// Files of the same name that are told apart by a number.
const MAX_SAME: u32 = 1000;

/// Writes attached files into `input/` of `folder`. Returns the lines for the prompt that name them, empty when there are
/// none, and a fault for each that could not be written.
pub async fn keep_all(folder: &Path, files: Vec<Attachment>) -> (String, Vec<AgentEvent>) {
    if files.is_empty() {
        return (String::new(), Vec::new());
    }
    let folder = folder.to_owned();
    let kept = tokio::task::spawn_blocking(move || {
        files.into_iter().map(|file| (keep(&folder, &file), file.name, file.media_type)).collect::<Vec<_>>()
    });
    let (mut lines, mut faults) = (String::from("\n\nAttached files:"), Vec::new());
    for (kept, name, media_type) in kept.await.unwrap_or_default() {
        match kept {
            Ok(path) => lines.push_str(&format!("\n- {path} ({media_type})")),
            Err(error) => {
                let message = format!("the file `{name}` cannot be put into the working folder: {error}");
                lines.push_str(&format!("\n- [{message}]"));
                faults.push(AgentEvent::Fault { code: "attachment_left_out".into(), message });
            }
        }
    }
    (lines, faults)
}

/// Writes an attached file into `input/` of `folder`, under a name that is safe there and not taken yet. Returns its path
/// from `folder` on. Nothing outside of `folder` is touched, whatever the file is called and whatever links the agent has
/// made there. Blocks.
///
/// # Errors
/// When the content is no base64, `input` is no folder, or the file cannot be written.
fn keep(folder: &Path, file: &Attachment) -> io::Result<String> {
    let content = base64::engine::general_purpose::STANDARD.decode(&file.content_base64).map_err(io::Error::other)?;
    let inbox = folder.join(INBOX);
    match fs::create_dir(&inbox) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if !fs::symlink_metadata(&inbox)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("`{INBOX}` is there and is no folder")));
    }
    let name = safe_name(&file.name);
    for number in 1..MAX_SAME {
        let name = if number == 1 { name.clone() } else { numbered(&name, number) };
        // Follows no link and replaces nothing.
        match OpenOptions::new().write(true).create_new(true).open(inbox.join(&name)) {
            Ok(mut opened) => {
                opened.write_all(&content)?;
                return Ok(format!("{INBOX}/{name}"));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many files of that name"))
}

/// The last piece of a path, without what a file system or a shell could misunderstand.
fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe = |c: char| if c.is_alphanumeric() || "._-+@ ".contains(c) { c } else { '_' };
    let mut name: String = last.chars().map(safe).collect();
    // Neither hidden nor an option.
    if !name.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        name.insert(0, '_');
    }
    let (stem, extension) = split(&name);
    let room = MAX_NAME.saturating_sub(extension.len());
    let stem = stem.get(..stem.floor_char_boundary(room)).unwrap_or_default();
    format!("{stem}{extension}").trim_end().to_owned()
}

/// A name in its stem and its extension with the point; one that is too long is none.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.').filter(|at| *at > 0 && name.len() - at <= 16) {
        Some(at) => name.split_at_checked(at).unwrap_or((name, "")),
        None => (name, ""),
    }
}

fn numbered(name: &str, number: u32) -> String {
    let (stem, extension) = split(name);
    format!("{stem} ({number}){extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Attachment {
        Attachment { name: name.into(), media_type: "text/plain".into(), content_base64: "aGk=".into() }
    }

    #[test]
    fn names_are_made_safe() {
        let cases = [
            ("a b.txt", "a b.txt"),
            ("../../etc/passwd", "passwd"),
            ("c:\\x\\..", "_.."),
            (".bashrc", "_.bashrc"),
            ("-rf", "_-rf"),
            ("", "_"),
            ("a\0b\n;$(x).md", "a_b____x_.md"),
            ("grüße.txt", "grüße.txt"),
        ];
        for (name, expected) in cases {
            assert_eq!(safe_name(name), expected);
        }
        let long = safe_name(&format!("{}.tar", "ü".repeat(300)));
        assert!(long.len() <= MAX_NAME && long.ends_with("ü.tar"), "{long}");
    }

    #[test]
    fn a_file_replaces_nothing_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(keep(folder.path(), &file("a.txt")).unwrap(), "input/a.txt");
        assert_eq!(keep(folder.path(), &file("a.txt")).unwrap(), "input/a (2).txt");
        assert_eq!(fs::read(folder.path().join("input/a (2).txt")).unwrap(), b"hi");
        let outside = folder.path().join("outside");
        std::os::unix::fs::symlink(&outside, folder.path().join("input/link")).unwrap();
        assert_eq!(keep(folder.path(), &file("link")).unwrap(), "input/link (2)");
        assert!(!outside.exists());

        let trapped = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), trapped.path().join("input")).unwrap();
        assert!(keep(trapped.path(), &file("b.txt")).is_err());
        assert!(!folder.path().join("b.txt").exists());
    }
}
