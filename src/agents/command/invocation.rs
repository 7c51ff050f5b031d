//! How a program is called for a turn: its arguments, its environment and its stdin. Pure.
//!
//! `{prompt}`, `{model}` and `{session}` in the arguments stand for the turn's own, the latter two also in the values of
//! `env`. The prompt is put only where it is an argument, or an option's value, of its own: text of users must not become
//! part of a shell's script.

use std::collections::BTreeMap;

use crate::{agents::Outcome, config::PromptBy};

/// The longest argument that Linux takes, in bytes.
pub(super) const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// What a turn fills in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) agent: &'a str,
    pub(super) session: &'a str,
    pub(super) prompt: &'a str,
    /// The model for this turn, where one was asked for or configured.
    pub(super) model: Option<&'a str>,
    pub(super) prompt_by: PromptBy,
}

/// A call of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// What is written to its stdin before that is closed.
    pub(super) stdin: String,
}

/// True when the prompt goes by an argument: so configured, or its place is marked.
pub(super) fn by_argument(args: &[String], prompt_by: PromptBy) -> bool {
    prompt_by == PromptBy::Argument || args.iter().any(|arg| takes_prompt(arg).is_some())
}

/// Fills in a configured call.
///
/// # Errors
/// The end of the turn: the prompt is too long for an argument, or a model is missing, or was asked for and has no place.
pub(super) fn invocation(
    args: &[String],
    env: BTreeMap<String, String>,
    turn: Turn<'_>,
) -> Result<Invocation, Outcome> {
    let Turn { agent, session, prompt, model, prompt_by } = turn;
    let wants = |text: &String| text.contains("{model}");
    match (args.iter().chain(env.values()).any(wants), model) {
        (true, None) => {
            let message = format!("agent `{agent}` needs a model: ask for one, or set agents.{agent}.model");
            return Err(Outcome::failed("model_not_found", message));
        }
        (false, Some(model)) => {
            let message = format!(
                "model `{model}` was asked for, and agent `{agent}` takes none; put {{model}} into agents.{agent}.command \
                 or env where its program takes it"
            );
            return Err(Outcome::failed("model_not_found", message));
        }
        _ => {}
    }
    let fill = |text: &str| text.replace("{model}", model.unwrap_or_default()).replace("{session}", session);
    let env = env.into_iter().map(|(name, value)| (name, fill(&value))).collect();
    if !by_argument(args, prompt_by) {
        let args = args.iter().map(|arg| fill(arg)).collect();
        return Ok(Invocation { args, env, stdin: prompt.to_owned() });
    }
    if prompt.len() > MAX_ARGUMENT {
        let message = format!(
            "a prompt of {} bytes is too long for an argument of agent `{agent}`, which has {MAX_ARGUMENT} at most; set \
             agents.{agent}.prompt_by to \"stdin\" if its program reads that",
            prompt.len()
        );
        return Err(Outcome::failed("agent_error", message));
    }
    // An argument cannot hold this character at all.
    let prompt = prompt.replace('\0', "\u{fffd}");
    // What a user writes must not be taken for an option.
    let alone = if prompt.starts_with('-') { format!(" {prompt}") } else { prompt.clone() };
    let place = |arg: &String| match takes_prompt(arg) {
        Some("") => alone.clone(),
        Some(option) => format!("{}{prompt}", fill(option)),
        None => fill(arg),
    };
    let mut filled: Vec<String> = args.iter().map(place).collect();
    if !args.iter().any(|arg| takes_prompt(arg).is_some()) {
        filled.push(alone);
    }
    Ok(Invocation { args: filled, env, stdin: String::new() })
}

/// What stands before the prompt in an argument that takes it: nothing, or an option with `=`.
fn takes_prompt(arg: &str) -> Option<&str> {
    let before = arg.strip_suffix("{prompt}")?;
    (before.is_empty() || (before.starts_with('-') && before.ends_with('='))).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: &[&str], prompt: &str, model: Option<&str>, prompt_by: PromptBy) -> Result<Invocation, Outcome> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = BTreeMap::from([("X".to_owned(), "at {session}".to_owned())]);
        invocation(&args, env, Turn { agent: "a", session: "s:1", prompt, model, prompt_by })
    }

    fn args(given: &[&str], prompt: &str, prompt_by: PromptBy) -> Vec<String> {
        let call = call(given, prompt, None, prompt_by).unwrap();
        assert!(call.stdin.is_empty());
        call.args
    }

    #[test]
    fn the_prompt_goes_where_it_belongs_and_nowhere_else() {
        let stdin = call(&["-p"], "hi", None, PromptBy::Stdin).unwrap();
        assert_eq!((stdin.args, stdin.stdin.as_str(), stdin.env["X"].as_str()), (vec!["-p".into()], "hi", "at s:1"));
        assert_eq!(args(&["-p"], "hi", PromptBy::Argument), ["-p", "hi"]);
        assert_eq!(args(&["{prompt}", "-v"], "hi", PromptBy::Stdin), ["hi", "-v"]);
        assert_eq!(args(&["--text={prompt}"], "-x", PromptBy::Stdin), ["--text=-x"]);
        assert_eq!(args(&["-p"], "--dangerous", PromptBy::Argument), ["-p", " --dangerous"]);
        // A shell's script is left as it is.
        assert_eq!(args(&["-c", "echo {prompt}"], "; rm x", PromptBy::Argument), ["-c", "echo {prompt}", "; rm x"]);
        // What users write is not looked at again.
        assert_eq!(args(&["{prompt}"], "{session}{prompt}\0", PromptBy::Stdin), ["{session}{prompt}\u{fffd}"]);
        let long = call(&[], &"x".repeat(MAX_ARGUMENT + 1), None, PromptBy::Argument);
        assert!(matches!(long, Err(Outcome::Failed(error)) if error.message.contains("prompt_by")));
    }

    #[test]
    fn a_model_needs_a_place_and_a_place_a_model() {
        let filled = call(&["-m", "{model}"], "hi", Some("m1"), PromptBy::Stdin).unwrap();
        assert_eq!(filled.args, ["-m", "m1"]);
        for (args, model) in [(&["{model}"][..], None), (&["-p"][..], Some("m1"))] {
            let failed = call(args, "hi", model, PromptBy::Stdin);
            assert!(matches!(failed, Err(Outcome::Failed(error)) if error.code == "model_not_found"), "{args:?}");
        }
    }
}
