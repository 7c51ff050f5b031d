//! Calls about sessions.

use serde_json::{Value, json};

use super::{document::Document, refusals::CHANGE};
use crate::{
    error::Code,
    gateway::StateView,
    http::{
        body::Nothing,
        list::{List, Whole},
        sessions::Pick,
    },
    ids::SessionId,
    protocol::{AcceptedTurn, Brief, ContinueSession, CreateSession, Feedback, PatchSession, Snapshot, command},
};

/// What a change of the agent's settings can answer.
const SETTINGS: &[Code] = &[Code::UnknownAgent, Code::InvalidPermissionMode];

pub(super) fn describe(doc: &mut Document) {
    let session = |rest: &str| format!("/v1/sessions/{{key}}{rest}");
    doc.topic(
        "Sessions",
        "A session is a named, long-lived conversation with an agent. A send makes it if there is none.",
    );
    let flag = || json!({"type": "boolean"});
    let text = || json!({"type": "string"});

    doc.get("/v1/sessions", "listSessions", "A page of sessions")
        .reads()
        .page::<SessionId>()
        .query("archived", "Only archived ones; without it only the others.", flag())
        .query("agent", "Only those of this agent.", text())
        .query("busy", "Only those in which a turn runs or waits, or only the others.", flag())
        .query("owner", "Only those of this user.", text())
        .query("q", "Only those with this text in title or key, whatever the case of ASCII letters.", text())
        .answers::<List<Snapshot>>(200, "The page.")
        .done();

    doc.post("/v1/sessions", "createSession", "Make a session")
        .writes()
        .once()
        .takes::<CreateSession>(&[
            ("nothing", json!({})),
            ("named", json!({"key": "web:bob", "title": "Plans", "agent": "echo", "metadata": {"room": 7}})),
            ("shared", json!({"key": "web:team", "visibility": "public", "permission_mode": "plan"})),
        ])
        .answers_with_location::<Snapshot>(201, "The session.")
        .leads_to(
            201,
            &[
                "getSession",
                "updateSession",
                "deleteSession",
                "getSessionState",
                "sendMessage",
                "resetSession",
                "putBrief",
            ],
            &[("key", "$response.body#/key")],
        )
        .refuses(SETTINGS)
        .refuses(&[
            Code::InvalidId,
            Code::TitleTooLong,
            Code::MetadataTooLarge,
            Code::SessionExists,
            Code::SessionNotFound,
            Code::TooManySessions,
            Code::AgentError,
        ])
        .done();

    doc.get(&session(""), "getSession", "A session as it is now")
        .about("Wakes no agent and brings nothing into memory.")
        .reads()
        .answers::<Snapshot>(200, "The session.")
        .refuses(&[Code::SessionNotFound])
        .done();

    doc.patch(&session(""), "updateSession", "Change a session")
        .about("What is left out stays. A change that changes nothing is told to nobody.")
        .writes()
        .takes::<PatchSession>(&[
            ("retitle", json!({"title": "Other plans", "metadata": {"room": null}})),
            ("anotherAgent", json!({"agent": "echo", "model": null})),
            ("brief", json!({"brief": {"goal": "Ship it"}})),
            ("budget", json!({"budget": {"tokens": 500_000, "cost_usd": 5}})),
        ])
        .answers::<Snapshot>(200, "The session after it.")
        .refuses(CHANGE)
        .refuses(SETTINGS)
        .refuses(&[Code::TitleTooLong, Code::MetadataTooLarge, Code::SessionBusy])
        .done();

    doc.delete(&session(""), "deleteSession", "Delete a session with its data")
        .about("A key that is made again goes on counting its `seq`.")
        .writes()
        .query("force", "Stop what runs and cancel what waits first.", flag())
        .answers_nothing(204, "It is gone.")
        .refuses(CHANGE)
        .refuses(&[Code::PrimarySession, Code::SessionBusy])
        .done();

    doc.get(&session("/state"), "getSessionState", "All that is needed to draw a session")
        .about("One consistent picture. Draw it, then follow the stream after its `seq`.")
        .reads()
        .query(
            "messages",
            "Messages of the transcript at most, from its end.",
            json!({"type": "integer", "minimum": 0, "maximum": 1000, "default": 50}),
        )
        .answers::<StateView>(200, "The picture.")
        .refuses(&[Code::SessionNotFound, Code::InvalidLimit])
        .done();

    doc.post(&session("/reset"), "resetSession", "Begin a new conversation under the same key")
        .about("Stops the running turn, cancels those that wait. The old transcript stays readable by its `id`.")
        .writes()
        .once()
        .takes_optional::<Nothing>()
        .answers::<Snapshot>(200, "The session after it.")
        .refuses(CHANGE)
        .done();

    doc.post(&session("/reload"), "reloadSession", "Start the agent anew at the next turn")
        .writes()
        .answers::<Snapshot>(200, "The session after it.")
        .refuses(CHANGE)
        .done();

    doc.post(&session("/continue"), "continueSession", "Hand over to another agent or profile")
        .about("After a terminal turn. A `system` message tells of it; the turn with `text` follows.")
        .writes()
        .once()
        .takes::<ContinueSession>(&[("agent", json!({"agent": "echo", "text": "Go on with the tests"}))])
        .answers_with_location::<AcceptedTurn<'_>>(202, "The turn is accepted.")
        .refuses(CHANGE)
        .refuses(&[
            Code::MissingText,
            Code::UnknownAgent,
            Code::SessionBusy,
            Code::SessionArchived,
            Code::ContentTooLarge,
            Code::QueueFull,
            Code::BudgetExceeded,
            Code::TurnNotFound,
        ])
        .done();

    doc.put(&session("/feedback"), "putFeedback", "Say whether it was good")
        .about("About one turn, or about the whole session.")
        .writes()
        .takes::<Feedback>(&[("good", json!({"rating": "up", "comment": "Just what I wanted"}))])
        .answers::<Feedback>(200, "What is stored.")
        .refuses(CHANGE)
        .refuses(&[Code::TurnNotFound, Code::ContentTooLarge])
        .done();

    doc.get(&session("/brief"), "getBrief", "The brief")
        .reads()
        .answers::<Brief>(200, "The brief; what was never set is empty.")
        .refuses(&[Code::SessionNotFound])
        .done();

    let brief = doc.taken_with(command::brief_change);
    doc.put(&session("/brief"), "putBrief", "Replace parts of the brief")
        .about("What is left out, or is no text, stays; `\"\"` clears.")
        .writes()
        .takes_form(brief, &[("parts", json!({"goal": "Ship it", "open": "The tests"}))])
        .answers::<Brief>(200, "The brief after it.")
        .refuses(CHANGE)
        .refuses(&[Code::MetadataTooLarge])
        .done();

    for (what, id, summary) in [
        ("/model", "putModel", "Use another model from the next turn on"),
        ("/mode", "putMode", "Go into another mode from the next turn on"),
    ] {
        doc.put(&session(what), id, summary)
            .writes()
            .takes::<Pick>(&[])
            .answers::<Snapshot>(200, "The session after it.")
            .refuses(CHANGE)
            .refuses(SETTINGS)
            .refuses(&[Code::ModelNotFound])
            .done();
    }

    doc.get(&session("/commands"), "listCommands", "The slash commands that the agent offers now")
        .reads()
        .answers::<Whole<Vec<Value>>>(200, "The commands, as the agent gives them.")
        .refuses(&[Code::SessionNotFound])
        .done();
}
