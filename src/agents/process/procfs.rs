//! What `/proc` tells about processes. Where there is no `/proc`, it tells nothing, and only groups are known.

use std::fs;

use super::MARKER;

/// The boot that start times count from.
pub(super) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// A process, as its `stat` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// True when it has ended and nobody has asked for its status yet.
    pub(super) zombie: bool,
    /// The process that started it, or took it over.
    pub(super) parent: i32,
    /// Its group.
    pub(super) pgid: i32,
    /// Memory that it holds, in pages, shared ones included.
    pub(super) resident_pages: u64,
    /// When it started, in clock ticks since boot.
    pub(super) started_ticks: i64,
}

/// The process of that id, if there is one.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// When the process of that id started, in clock ticks since boot.
pub(super) fn started_ticks(pid: i32) -> Option<i64> {
    stat(pid).map(|stat| stat.started_ticks)
}

/// Fields count from behind the name, which may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    Some(Stat {
        zombie: matches!(state, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        pgid: fields.get(2)?.parse().ok()?,
        resident_pages: fields.get(21)?.parse().ok()?,
        started_ticks: fields.get(19)?.parse().ok()?,
    })
}

pub(super) fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// True when a member of the group has not ended. Zombies do not count: they hold nothing but a number.
pub(super) fn group_lives(pgid: i32) -> bool {
    pids().filter_map(stat).any(|stat| stat.pgid == pgid && !stat.zombie)
}

/// The processes, of whatever group, that carry this marker in their environment. Zombies have none.
pub(super) fn marked(marker: &str) -> Vec<i32> {
    if marker.is_empty() {
        return Vec::new();
    }
    let entry = format!("{MARKER}={marker}");
    carrying(|variable| variable == entry.as_bytes())
}

/// The processes whose marker begins like this.
pub(super) fn marked_from(home: &str) -> Vec<i32> {
    if home.is_empty() {
        return Vec::new();
    }
    let begin = format!("{MARKER}={home}");
    carrying(|variable| variable.starts_with(begin.as_bytes()))
}

/// The processes with such a variable in their environment.
fn carrying(is_it: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let carries = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(&is_it)
    };
    pids().filter(carries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "42 (a ) R 1) S 1 40 40 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 98765 1000 2 3";
        assert_eq!(
            parse_stat(text),
            Some(Stat { zombie: false, parent: 1, pgid: 40, resident_pages: 2, started_ticks: 98765 })
        );
        assert_eq!(parse_stat("42 (a) Z"), None);
    }
}
