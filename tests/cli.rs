//! The program as a person runs it: exit statuses, and errors of one line on stderr.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

/// Runs the program in an empty folder with a cleared environment.
fn greenroom(dir: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).current_dir(dir).env_clear().env("HOME", dir).envs(environment.iter().copied());
    command.output().unwrap()
}

/// The only line of stderr.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "not one line: {text}");
    text.trim_end().to_owned()
}

#[test]
fn a_configuration_mistake_is_one_line_and_status_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[session]\nmax_que = 5\n").unwrap();
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str);
    let cases: [Case<'_>; 7] = [
        (&[], &["--config", "bad.toml"], "bad.toml:2"),
        (&[], &["--config", "none.toml", "serve"], "none.toml"),
        (&[], &["serve", "--bind", "nowhere"], "bind"),
        (&[], &["--bind", "0.0.0.0:0"], "loopback"),
        (&[], &["--log", "loud"], "loud"),
        (&[("GREENROOM_SESSION__MAX_QUEUE", "many")], &[], "max_queue"),
        (&[], &["config", "check", "--default-agent", "nobody"], "nobody"),
    ];
    for (environment, arguments, part) in cases {
        let output = greenroom(dir.path(), environment, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(line(&output).contains(part), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_good_configuration_is_printed_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("greenroom.toml"), "[stream]\nheartbeat = \"3s\"\n").unwrap();
    let environment = [("GREENROOM_DATABASE", "postgres://me:hunter2@127.0.0.1/db")];
    let check = greenroom(dir.path(), &environment, &["config", "check"]);
    assert_eq!((check.status.code(), check.stderr.len()), (Some(0), 0), "{check:?}");
    let print = greenroom(dir.path(), &environment, &["config", "print", "--bind", "127.0.0.1:7"]);
    let text = String::from_utf8(print.stdout).unwrap();
    for part in ["heartbeat = \"3s\"", "bind = \"127.0.0.1:7\"", "postgres://me:***@127.0.0.1/db"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn no_server_is_status_3_and_a_wrong_url_2() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let commands: [&[&str]; 5] =
        [&["send", "k", "hi"], &["send", "k", "hi", "--no-wait"], &["attach", "k"], &["sessions"], &["agents"]];
    for command in commands {
        let output = greenroom(dir.path(), &[("GREENROOM_URL", &url)], command);
        assert_eq!(output.status.code(), Some(3), "{command:?}: {output:?}");
        assert!(line(&output).contains(&url), "{command:?}: {output:?}");
        let output = greenroom(dir.path(), &[], &[command, &["--url", "nowhere"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}: {output:?}");
        assert!(line(&output).contains("nowhere"), "{command:?}: {output:?}");
    }
}

#[test]
fn wrong_arguments_are_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["nonsense"][..], &["send", "a b", "hi"], &["send", "..", "hi"], &["send", "k", " "]] {
        let output = greenroom(dir.path(), &[], arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn doctor_finds_a_taken_port_and_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Something that takes connections and is no Greenroom: it hangs up at once.
    let address = listener.local_addr().unwrap();
    let stranger = std::thread::spawn(move || listener.accept().map(|_| listener));
    let output = greenroom(dir.path(), &[], &["doctor", "--bind", &address.to_string()]);
    drop(stranger.join().unwrap().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let port = text.lines().find(|line| line.contains("port")).unwrap();
    assert!(port.starts_with("BROKEN") && port.contains("--bind"), "{text}");

    std::fs::write(dir.path().join("greenroom.toml"), "nonsense = 1\n").unwrap();
    let output = greenroom(dir.path(), &[], &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("nonsense"));
}
