//! Calls of those who send webhooks.

use serde_json::json;

use super::{document::Document, messages::TURN_CALLS, refusals::CHANGE};
use crate::{
    error::Code,
    gateway::Finished,
    http::{params::MAX_WAIT, webhooks::Ignored},
    protocol::AcceptedTurn,
};

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Webhooks", "Messages of programs that sign what they send.");

    let form = json!({
        "description": "What a route without templates takes. With templates it is any JSON object or array.",
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "The message."},
            "session_key": {"type": "string", "description": "The session; one that the route may send to."},
            "sender": {"type": "string", "description": "Who sends it: each has a session of their own, where none is named."},
            "metadata": {"type": "object", "description": "Opaque; comes back in the turn."},
        },
    });
    let call = doc
        .post("/webhooks/{route}", "receiveWebhook", "Send a message as a webhook")
        .about(
            "The route and its check are configured. The check is on the raw body: `standard` (Standard Webhooks 1.0), \
             `github`, `slack`, `secret` (header `x-webhook-secret`), or `none` for senders on this machine. The same \
             `webhook-id`, `x-github-delivery` or `event_id` of Slack gets the first answer again for 24 hours, and so does \
             the same `Idempotency-Key` where the check names no message. What the route does not want is answered 200 with \
             `ignored`; Slack's challenge is answered once its signature was right.",
        )
        .open()
        .path("route", "The route.", json!({"type": "string"}))
        .once()
        .query(
            "wait",
            "Seconds to wait for the end of the turn.",
            json!({"type": "number", "minimum": 0, "maximum": MAX_WAIT}),
        );
    let headers = [
        ("webhook-id", "`standard`: the message, the same over all attempts."),
        ("webhook-timestamp", "`standard`: seconds since 1970, at most 5 minutes away."),
        ("webhook-signature", "`standard`: signatures, apart by spaces."),
        ("x-hub-signature-256", "`github`: the signature."),
        ("x-github-delivery", "`github`: the delivery, the same when it is sent again."),
        ("x-slack-signature", "`slack`: the signature."),
        ("x-slack-request-timestamp", "`slack`: seconds since 1970, at most 5 minutes away."),
        ("x-webhook-secret", "`secret`: the secret."),
    ];
    headers
        .into_iter()
        .fold(call, |call, (name, about)| call.header(name, about, json!({"type": "string"})))
        .takes_form(form, &[("text", json!({"text": "The build failed", "sender": "ci"}))])
        .answers::<Finished>(200, "The turn is over: asked for by `wait`. Or the webhook was ignored, or a challenge.")
        .or_answers::<Ignored>(200)
        .answers_with_location::<AcceptedTurn<'_>>(202, "The turn is accepted.")
        .leads_to(202, TURN_CALLS, &[("id", "$response.body#/turn/id"), ("key", "$response.body#/turn/session")])
        .refuses(CHANGE)
        .refuses(&[
            Code::MissingCredentials,
            Code::InvalidSignature,
            Code::SessionNotAllowed,
            Code::RouteNotFound,
            Code::InvalidId,
            Code::MissingText,
            Code::MetadataTooLarge,
            Code::TurnNotFound,
            Code::SessionBusy,
            Code::SessionArchived,
            Code::ContentTooLarge,
            Code::QueueFull,
            Code::BudgetExceeded,
            Code::RateLimited,
            Code::InvalidCredentials,
            Code::StoreUnavailable,
            Code::Overloaded,
            Code::ShuttingDown,
        ])
        .done();
}
