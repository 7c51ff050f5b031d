//! The command that a person would recognise: Codex wraps each in a shell, as in `/bin/bash -lc 'touch a'`. Pure.

const SHELLS: [&str; 5] = ["bash", "sh", "zsh", "dash", "ksh"];

/// What the shell was given to run; the whole text where it is no such call.
pub(super) fn unwrapped(command: &str) -> String {
    let is_shell = |path: &str| SHELLS.contains(&path.rsplit('/').next().unwrap_or(path));
    match words(command).as_deref() {
        Some([shell, flag, script]) if is_shell(shell) && flag.starts_with('-') && flag.ends_with('c') => {
            script.clone()
        }
        _ => command.to_owned(),
    }
}

/// The words of a command line, with quotes removed as a POSIX shell does it; none when a quote is left open.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        inside => word.push(inside),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            '\n' => {}
                            other => word.extend(['\\', other]),
                        },
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::unwrapped;

    #[test]
    fn the_shell_around_a_command_is_left_out() {
        assert_eq!(unwrapped("/bin/bash -lc 'touch a; echo hi'"), "touch a; echo hi");
        assert_eq!(unwrapped(r#"bash -c "echo \"a b\" 'c'""#), r#"echo "a b" 'c'"#);
        assert_eq!(unwrapped(r"/usr/bin/zsh -lc 'it'\''s'"), "it's");
        assert_eq!(unwrapped("bash -lc ls"), "ls");
        for whole in ["ls -l a", "bash -lc 'a' 'b'", "bash -lc 'open", "python3 -c 'print(1)'", ""] {
            assert_eq!(unwrapped(whole), whole);
        }
    }
}
