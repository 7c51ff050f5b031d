//! Calls about turns.

use serde_json::json;

use super::{document::Document, messages::TURN_CALLS, refusals::CHANGE};
use crate::{
    error::Code,
    http::{
        body::Nothing,
        list::List,
        turns::{Edit, Move},
    },
    ids::TurnId,
    protocol::{Aborted, AcceptedTurn, Cleared, StoppedTurn, Turn, TurnState},
};

pub(super) fn describe(doc: &mut Document) {
    let session = |rest: &str| format!("/v1/sessions/{{key}}{rest}");
    doc.topic("Turns", "A turn is one accepted message and all the work the agent does for it.");

    let state = doc.taken::<TurnState>();
    doc.get(&session("/turns"), "listTurns", "A page of turns")
        .reads()
        .page::<TurnId>()
        .query("state", "Only those in this state.", state)
        .answers::<List<Turn>>(200, "The page.")
        .leads_to(200, TURN_CALLS, &[("id", "$response.body#/data/0/id")])
        .refuses(&[Code::SessionNotFound])
        .done();

    doc.get(&session("/turns/{id}"), "getTurn", "A turn as it is now")
        .reads()
        .id::<TurnId>("The turn.", Code::TurnNotFound)
        .answers::<Turn>(200, "The turn.")
        .refuses(&[Code::SessionNotFound])
        .done();

    doc.patch(&session("/turns/{id}"), "editTurn", "Change the text of a turn that waits")
        .writes()
        .id::<TurnId>("The turn.", Code::TurnNotFound)
        .takes::<Edit>(&[("text", json!({"text": "What is in the other folder?"}))])
        .answers::<Turn>(200, "The turn after it.")
        .refuses(CHANGE)
        .refuses(&[Code::MissingText, Code::ContentTooLarge, Code::TurnNotQueued])
        .done();

    doc.post(&session("/turns/{id}/cancel"), "cancelTurn", "Stop a turn")
        .about("`cancelled` is told only once the agent has stopped: it is asked first, and killed when that does not help.")
        .writes()
        .id::<TurnId>("The turn.", Code::TurnNotFound)
        .answers::<StoppedTurn<'_>>(200, "It is over.")
        .answers::<StoppedTurn<'_>>(202, "It is being stopped; `turn.finished` tells when it has.")
        .refuses(CHANGE)
        .refuses(&[Code::TurnNotCancellable])
        .done();

    doc.post(&session("/turns/{id}/move"), "moveTurn", "Put a turn that waits before another, or last")
        .writes()
        .id::<TurnId>("The turn.", Code::TurnNotFound)
        .takes::<Move>(&[("last", json!({"before": null}))])
        .answers::<Turn>(200, "The turn after it.")
        .refuses(CHANGE)
        .refuses(&[Code::TurnNotQueued])
        .done();

    doc.post(&session("/turns/{id}/retry"), "retryTurn", "Run a failed, cancelled or interrupted turn again")
        .about("It becomes a new turn, with `continued_from` and the next `attempt`.")
        .writes()
        .id::<TurnId>("The turn.", Code::TurnNotFound)
        .once()
        .takes_optional::<Nothing>()
        .answers_with_location::<AcceptedTurn<'_>>(202, "The new turn is accepted.")
        .leads_to(202, TURN_CALLS, &[("id", "$response.body#/turn/id")])
        .refuses(CHANGE)
        .refuses(&[
            Code::TurnNotRetryable,
            Code::SessionArchived,
            Code::QueueFull,
            Code::BudgetExceeded,
            Code::UnknownAgent,
        ])
        .done();

    doc.post(&session("/abort"), "abortTurn", "Stop the turn that runs")
        .writes()
        .answers::<Aborted>(200, "What is being stopped, if anything runs.")
        .refuses(CHANGE)
        .done();

    doc.delete(&session("/queue"), "clearQueue", "Cancel all turns that wait")
        .writes()
        .answers::<Cleared>(200, "How many.")
        .refuses(CHANGE)
        .done();
}
