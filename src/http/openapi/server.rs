//! Calls about the server itself.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{document::Document, refusals};
use crate::{
    agents::{Capabilities, Mode},
    error::Code,
    gateway::Readiness,
    http::{list::Whole, server::Me},
    protocol::Health,
};

/// Something that can run turns, as the last look found it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Agent {
    /// Its name in the configuration.
    id: String,
    /// The same.
    name: String,
    /// The sort of adapter, such as `echo`, `openai`, `acp`.
    kind: String,
    /// True when a turn could run.
    available: bool,
    /// Its version, where it tells.
    version: Option<String>,
    /// Its models, where it lists them without being started.
    models: Vec<Model>,
    /// Its modes: those that it always has, else those that it has told while it ran; null where they are not known yet.
    modes: Option<Vec<Mode>>,
    /// What it can do.
    capabilities: Capabilities,
    /// What is missing and what to do; null when all is well.
    reason: Option<String>,
    /// How to log in with its provider, where it tells; null otherwise.
    login: Option<String>,
}

/// A model of an agent, with whatever else the agent tells of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Model {
    /// What `model` of a session or turn takes.
    id: String,
    /// What a person reads.
    name: Option<String>,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Server", "The server itself: is it up, is it ready, who am I to it, and what is it like.");

    doc.get("/health", "getHealth", "Is the process up?").open().answers::<Health>(200, "It is.").done();

    let readiness = doc.sent::<Readiness>();
    let not_ready = refusals::envelope(&[Code::StoreUnavailable, Code::ShuttingDown, Code::Overloaded]);
    doc.get("/ready", "getReadiness", "Does it take work?")
        .open()
        .answers::<Readiness>(200, "It takes work.")
        .answers_whole(
            503,
            json!({
                "description": "It does not take work now: the same fields, and an error.",
                "headers": refusals::headers(true),
                "content": {"application/json": {"schema": {"allOf": [readiness, not_ready]}}},
            }),
        )
        .done();

    doc.get("/v1/me", "getMe", "Who am I, and what are the limits?")
        .reads()
        .answers::<Me>(200, "The caller as the server sees it.")
        .done();

    doc.get("/openapi.json", "getOpenapi", "This description")
        .open()
        .answers_as(
            200,
            "An OpenAPI 3.1 document.",
            "application/json",
            json!({"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}),
        )
        .done();
    let page = || json!({"schema": {"type": "string"}});
    doc.get("/docs", "getDocs", "This description, to read and to try")
        .about("A page for people. It loads nothing from other places.")
        .open()
        .answers_as(200, "The page.", "text/html; charset=utf-8", page())
        .done();
    doc.get("/docs/{file}", "getDocsFile", "A script or style of that page")
        .open()
        .path("file", "Its name.", json!({"type": "string", "enum": crate::http::docs::FILES}))
        .answers_as(200, "The file.", "text/javascript; charset=utf-8", page())
        .answers_as(200, "The file.", "text/css; charset=utf-8", page())
        .refuses(&[Code::RouteNotFound])
        .done();

    doc.topic("Agents", "What can run turns.");
    doc.get("/v1/agents", "listAgents", "All agents, as the last look found them")
        .reads()
        .answers::<Whole<Vec<Agent>>>(200, "The agents.")
        .done();
    doc.post("/v1/agents/refresh", "refreshAgents", "All agents after a new look")
        .about("Asks every agent for its version and models; takes 10 seconds at most.")
        .admin()
        .answers::<Whole<Vec<Agent>>>(200, "The agents.")
        .done();
}
