//! What the audit says of a command. It is committed with what it reports, so neither is there without the other.

use serde_json::{Value, json};

use super::{
    command::{Command, Done},
    draft::Draft,
};
use crate::protocol::PatchSession;

/// What was done, as the audit names it, and its detail: ids, names of fields, counts, and never the text of a message.
/// None for what makes no change, and for a call that was made before.
#[must_use]
pub fn deed(command: &Command, done: &Done, draft: &Draft) -> Option<(&'static str, Value)> {
    let snapshot = draft.state.as_ref().map(|state| &state.record.snapshot);
    let deed = match (command, done) {
        (_, Done::Duplicate(_)) | (Command::Ensure { .. }, _) => return None,
        (Command::Create { .. }, _) => {
            let made = snapshot?;
            ("session.create", json!({"id": made.id, "agent": made.agent, "visibility": made.visibility}))
        }
        (Command::Enqueue(message), Done::Accepted(accepted)) => {
            let action = if message.continued_from.is_some() { "turn.retry" } else { "turn.send" };
            (action, json!({"turn": accepted.turn.id, "steered": accepted.steered}))
        }
        (Command::HandOver(hand_over), Done::Accepted(accepted)) => {
            let detail = json!({"turn": accepted.turn.id, "agent": hand_over.agent, "profile": hand_over.profile});
            ("session.continue", detail)
        }
        // The other answers of these are no acceptance.
        (Command::Enqueue(_) | Command::HandOver(_), _) => return None,
        (Command::Cancel(id), _) => ("turn.cancel", json!({"turn": id})),
        (Command::Edit(id, _), _) => ("turn.edit", json!({"turn": id})),
        (Command::Move(id, before), _) => ("turn.move", json!({"turn": id, "before": before})),
        (Command::Abort, Done::Stopping(Some(id))) => ("session.abort", json!({"turn": id})),
        // Nothing ran.
        (Command::Abort, _) => return None,
        (Command::ClearQueue, done) => {
            let count = if let Done::Count(count) = done { *count } else { 0 };
            ("queue.clear", json!({"cancelled": count}))
        }
        (Command::Answer(id, ..), _) => ("choice.answer", json!({"choice": id})),
        (Command::Patch(body), _) => {
            let mut detail = json!({"fields": changed_fields(body)});
            if let (Some(now), Some(detail)) = (snapshot, detail.as_object_mut()) {
                if body.visibility.is_some() || body.org_id.is_some() {
                    detail.insert("visibility".into(), json!(now.visibility));
                    detail.insert("org_id".into(), json!(now.org_id));
                }
                if body.budget.is_some() {
                    detail.insert("budget".into(), json!(now.budget));
                }
            }
            ("session.update", detail)
        }
        (Command::Brief(fields), _) => ("session.brief", json!({"fields": fields.keys().collect::<Vec<_>>()})),
        (Command::Feedback(about, _), _) => ("session.feedback", json!({"about": about})),
        // Both are noted when they are asked for: what runs is stopped first, and may take its time.
        (Command::Reset(_), _) => ("session.reset", json!({})),
        (Command::Delete { untouched_since: Some(since), .. }, _) => {
            ("session.delete", json!({"reason": "retention", "untouched_since": since}))
        }
        (Command::Delete { force, .. }, _) => ("session.delete", json!({"force": force})),
        (Command::Reload, _) => ("session.reload", json!({})),
    };
    Some(deed)
}

fn changed_fields(body: &PatchSession) -> Vec<&'static str> {
    let fields = [
        ("title", body.title.is_some()),
        ("metadata", body.metadata.is_some()),
        ("visibility", body.visibility.is_some()),
        ("org_id", body.org_id.is_some()),
        ("archived", body.archived.is_some()),
        ("agent", body.agent.is_some()),
        ("model", body.model.is_some()),
        ("mode", body.mode.is_some()),
        ("permission_mode", body.permission_mode.is_some()),
        ("brief", body.brief.is_some()),
        ("budget", body.budget.is_some()),
    ];
    fields.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}
