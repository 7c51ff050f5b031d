//! Permission modes of agents that ask for no permission. Pure.

use crate::agents::{AgentEvent, Outcome};

/// Whether an agent that never asks may run in a permission mode: with nothing to say, with a fault that says what it
/// means, or not at all.
///
/// # Errors
/// The end of the turn: `plan` would be broken, `bypass` is not allowed by the configuration.
pub fn without_permissions(agent: &str, allow_bypass: bool, mode: &str) -> Result<Option<AgentEvent>, Outcome> {
    let invalid = |message| Err(Outcome::failed("invalid_permission_mode", message));
    match mode {
        "default" => Ok(None),
        "bypass" if allow_bypass => Ok(None),
        "bypass" => invalid(format!("agent `{agent}`: permission mode `bypass` needs agents.{agent}.allow_bypass")),
        "plan" => invalid(format!("agent `{agent}` asks for no permission, so it cannot be held to `plan`")),
        mode => {
            let message = format!("agent `{agent}` asks for no permission; permission mode `{mode}` changes nothing");
            Ok(Some(AgentEvent::Fault { code: "invalid_permission_mode".into(), message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_is_said_or_refused() {
        let with = |allow, mode| without_permissions("a", allow, mode);
        assert_eq!((with(false, "default"), with(true, "bypass")), (Ok(None), Ok(None)));
        assert!(matches!(with(false, "accept_edits"), Ok(Some(AgentEvent::Fault { .. }))));
        for (allow, mode) in [(false, "bypass"), (true, "plan")] {
            let Err(Outcome::Failed(error)) = with(allow, mode) else { panic!("{mode} must fail") };
            assert_eq!(error.code, "invalid_permission_mode");
        }
    }
}
