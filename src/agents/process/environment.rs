//! The environment of agents: cleared, then an allow list. Also finds programs on the child's own `PATH`.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::absolute;
use crate::config::Secret;

/// The one variable of ours that an agent gets: a value that only its processes carry.
pub const MARKER: &str = "GREENROOM_AGENT_GROUP";

/// What the server's own variables begin with; they hold its secrets and are never passed on.
const OURS: &str = "GREENROOM_";
const ALLOWED: [&str; 7] = ["PATH", "HOME", "LANG", "TERM", "TMPDIR", "USER", "SHELL"];

/// Makes the environment of an agent out of the server's own: the allow list, `LC_*`, the names in `pass_env`, and on
/// top of them `added`. Nothing that begins with `GREENROOM_` gets through, wherever it comes from; nor does a
/// variable that is not UTF-8.
#[must_use]
pub fn environment(pass_env: &[String], added: &BTreeMap<String, Secret>) -> BTreeMap<String, String> {
    let own =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    filter(own, pass_env, added)
}

fn filter(
    own: impl Iterator<Item = (String, String)>,
    pass_env: &[String],
    added: &BTreeMap<String, Secret>,
) -> BTreeMap<String, String> {
    let allowed =
        |name: &str| ALLOWED.contains(&name) || name.starts_with("LC_") || pass_env.iter().any(|passed| passed == name);
    let passed = own.filter(|(name, _)| allowed(name));
    let added = added.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    passed.chain(added).filter(|(name, _)| !name.starts_with(OURS)).collect()
}

/// The file that a program name means: a name without `/` is looked up on the `PATH` of `env`, a path is taken as it
/// is. None when there is no such file, or it cannot be executed.
#[must_use]
pub fn find_program(program: &str, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    if program.is_empty() {
        return None;
    }
    if program.contains('/') {
        return Some(absolute(Path::new(program))).filter(|path| is_executable(path));
    }
    let path = env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    std::env::split_paths(path).map(|folder| absolute(&folder.join(program))).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allow_list_gets_through_and_never_our_own() {
        let own = ["PATH", "LC_ALL", "LCX", "AWS_SECRET", "MY_KEY", "GREENROOM_TOKEN", "HOME"];
        let own = own.map(|name| (name.to_owned(), "server".to_owned()));
        let pass = ["MY_KEY".to_owned(), "GREENROOM_TOKEN".to_owned()];
        let added = ["HOME", "EXTRA", "GREENROOM_DATABASE", MARKER].map(|name| (name.to_owned(), Secret::new("added")));
        let env = filter(own.into_iter(), &pass, &added.into());
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("EXTRA", "added"), ("HOME", "added"), ("LC_ALL", "server"), ("MY_KEY", "server"), ("PATH", "server")];
        assert_eq!(env, expected);
    }

    #[test]
    fn programs_are_found_on_the_childs_path() {
        let env = |path: &str| BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
        assert_eq!(find_program("sh", &env("/nowhere:/bin")), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program("sh", &env("/nowhere")), None);
        assert_eq!(find_program("/bin/sh", &env("")), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program("/etc/passwd", &env("")), None);
        assert_eq!(find_program("/bin", &env("")), None);
        assert_eq!(find_program("", &env("/bin")), None);
    }
}
