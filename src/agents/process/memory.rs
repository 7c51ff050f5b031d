//! How much memory the agents take. Where there is no `/proc`, nothing is known, and nothing is counted.

use std::collections::HashMap;

use super::procfs::{self, Stat};

/// The memory of all processes below the server's own, in bytes. Pages that processes share count for each.
#[must_use]
pub fn descendants() -> u64 {
    let own = nix::unistd::getpid().as_raw();
    let all: HashMap<i32, Stat> = procfs::pids().filter_map(|pid| Some((pid, procfs::stat(pid)?))).collect();
    below(own, &all).saturating_mul(page_size())
}

/// Half of the machine's memory, in bytes; none where it is not known.
#[must_use]
pub fn half_of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024) / 2)
}

/// Pages of all processes that have `root` above them.
fn below(root: i32, all: &HashMap<i32, Stat>) -> u64 {
    let is_below = |mut pid: i32| {
        // Bounded, since a picture that was taken while processes come and go may hold a circle.
        for _ in 0..64 {
            match all.get(&pid) {
                Some(stat) if stat.parent == root => return true,
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, _)| is_below(**pid)).map(|(_, stat)| stat.resident_pages).sum()
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_counts_and_nothing_else() {
        let stat = |parent, resident_pages| Stat { zombie: false, parent, pgid: 1, resident_pages, started_ticks: 0 };
        let all = [
            (10, stat(1, 1000)),
            (11, stat(10, 1)),
            (12, stat(11, 2)),
            (20, stat(1, 500)),
            (30, stat(31, 7)),
            (31, stat(30, 7)),
        ];
        assert_eq!(below(10, &all.into()), 3);
    }

    #[test]
    fn a_child_of_this_test_is_counted() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants() > 0, "a process below this one holds memory");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(half_of_machine().is_none_or(|half| half > 0));
    }
}
