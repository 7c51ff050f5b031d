//! What a body must be, before any session hears of it. Pure.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use crate::{
    config::Config,
    error::{ApiError, Code},
    protocol::{Attachment, ContinueSession, CreateSession, Feedback, PatchSession, SendMessage},
};

/// Characters of a message's text at most.
const MAX_TEXT: usize = 1_048_576;
/// Characters of a title at most.
const MAX_TITLE: usize = 200;
/// Bytes of metadata as JSON at most.
const MAX_METADATA: usize = 16 * 1024;
/// Characters of names such as a client id, a source, a model.
const MAX_CLIENT_ID: usize = 64;
const MAX_NAME: usize = 200;
/// Characters of a comment at most.
const MAX_COMMENT: usize = 4000;
/// Files of one message at most.
const MAX_ATTACHMENTS: usize = 64;

/// The modes in which an agent may be asked to treat permissions.
const PERMISSION_MODES: [&str; 5] = ["default", "accept_edits", "plan", "dont_ask", "bypass"];
/// The fields of a brief.
const BRIEF_FIELDS: [&str; 4] = ["goal", "done", "open", "clarifications"];

/// The text of a message, trimmed.
pub(super) fn text(text: &str) -> Result<String, ApiError> {
    let trimmed = text.trim();
    if trimmed.chars().count() > MAX_TEXT {
        return Err(
            ApiError::new(Code::ContentTooLarge, "the text has more than 1048576 characters").with("limit", MAX_TEXT)
        );
    }
    Ok(trimmed.to_owned())
}

/// The text and files of a message: at least one of them.
pub(super) fn content(body: &mut SendMessage) -> Result<(String, Arc<Vec<Attachment>>), ApiError> {
    let text = text(body.text.as_deref().unwrap_or_default())?;
    let attachments = std::mem::take(&mut body.attachments);
    if text.is_empty() && attachments.is_empty() {
        return Err(ApiError::new(
            Code::MissingText,
            "a message needs a text of at least one character, or an attachment",
        ));
    }
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(invalid_attachment("a message takes at most 64 attachments"));
    }
    for file in &attachments {
        if file.name.trim().is_empty() || file.name.chars().count() > MAX_NAME {
            return Err(invalid_attachment("an attachment needs a name of 1 to 200 characters"));
        }
        if !file.media_type.contains('/') || file.media_type.len() > MAX_NAME {
            return Err(invalid_attachment("an attachment needs a media_type such as image/png"));
        }
        // Decoded piece by piece, so that a check of 50 MB does not cost another 50 MB.
        let bytes = file.content_base64.as_bytes();
        // Padding ends a text; within it each piece would decode, and the whole would not.
        let whole = bytes.len() % 4 == 0 && !bytes.iter().rev().skip(2).any(|byte| *byte == b'=');
        if !whole || bytes.is_empty() || bytes.chunks(1 << 16).any(|piece| BASE64_STANDARD.decode(piece).is_err()) {
            let message = format!(
                "the content of {:?} is empty, or is not base64 of the standard alphabet with padding",
                file.name
            );
            return Err(invalid_attachment(&message));
        }
    }
    Ok((text, Arc::new(attachments)))
}

fn invalid_attachment(message: &str) -> ApiError {
    ApiError::new(Code::InvalidAttachment, message)
}

/// The small fields of a message.
pub(super) fn envelope(body: &SendMessage) -> Result<(), ApiError> {
    length("client_id", body.client_id.as_deref(), MAX_CLIENT_ID)?;
    length("source", body.source.as_deref(), MAX_NAME)?;
    length("model", body.model.as_deref(), MAX_NAME)?;
    length("mode", body.mode.as_deref(), MAX_NAME)?;
    metadata(&body.metadata)
}

/// The body of a new session.
pub(super) fn create(body: &CreateSession) -> Result<(), ApiError> {
    title(body.title.as_deref())?;
    body.metadata.as_ref().map_or(Ok(()), metadata)?;
    for (name, value) in [("model", &body.model), ("mode", &body.mode), ("profile", &body.profile)] {
        length(name, value.as_deref(), MAX_NAME)?;
    }
    if body.project_id.is_some() {
        return Err(ApiError::new(Code::InvalidParameter, "project_id: this server has no projects yet"));
    }
    Ok(())
}

/// The label of a token.
pub(super) fn label(label: Option<&str>) -> Result<(), ApiError> {
    length("label", label, MAX_NAME)
}

/// What a webhook endpoint is for.
pub(super) fn description(text: Option<&str>) -> Result<(), ApiError> {
    length("description", text, MAX_NAME)
}

/// The body of a change.
pub(super) fn patch(body: &PatchSession) -> Result<(), ApiError> {
    title(body.title.as_deref())?;
    body.metadata.as_ref().map_or(Ok(()), metadata)?;
    for (name, value) in [("model", &body.model), ("mode", &body.mode)] {
        length(name, value.as_ref().and_then(Option::as_deref), MAX_NAME)?;
    }
    if body.budget.and_then(|budget| budget.cost_usd.flatten()).is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
        return Err(ApiError::new(Code::InvalidJson, "budget.cost_usd is an amount in US dollars, or 0 for no bound")
            .with("field", "budget"));
    }
    body.brief.as_ref().map_or(Ok(()), brief)
}

/// A brief: known fields, at least one text.
pub(super) fn brief(fields: &Map<String, Value>) -> Result<(), ApiError> {
    if let Some(unknown) = fields.keys().find(|name| !BRIEF_FIELDS.contains(&name.as_str())) {
        let message = format!("a brief has the fields {}, not {unknown:?}", BRIEF_FIELDS.join(", "));
        return Err(ApiError::new(Code::InvalidJson, message));
    }
    if !fields.values().any(Value::is_string) {
        return Err(ApiError::new(Code::InvalidJson, "a brief needs at least one field with a text"));
    }
    metadata(fields)
}

fn title(title: Option<&str>) -> Result<(), ApiError> {
    if title.is_some_and(|title| title.trim().chars().count() > MAX_TITLE) {
        return Err(ApiError::new(Code::TitleTooLong, "a title has at most 200 characters").with("limit", MAX_TITLE));
    }
    Ok(())
}

pub(super) fn metadata(metadata: &Map<String, Value>) -> Result<(), ApiError> {
    if serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len()) > MAX_METADATA {
        let message = "metadata has at most 16 KiB as JSON";
        return Err(ApiError::new(Code::MetadataTooLarge, message).with("limit", MAX_METADATA));
    }
    Ok(())
}

fn length(name: &str, value: Option<&str>, limit: usize) -> Result<(), ApiError> {
    if value.is_some_and(|value| value.chars().count() > limit) {
        return Err(ApiError::new(Code::InvalidParameter, format!("{name} has at most {limit} characters")));
    }
    Ok(())
}

/// Who goes on: somebody must.
pub(super) fn continuation(body: &ContinueSession) -> Result<(), ApiError> {
    if body.agent.is_none() && body.profile.is_none() {
        return Err(ApiError::new(Code::InvalidJson, "name the agent or the profile that goes on"));
    }
    length("profile", body.profile.as_deref(), MAX_NAME)
}

/// Feedback: a comment of bounded length.
pub(super) fn feedback(feedback: &Feedback) -> Result<(), ApiError> {
    if feedback.comment.as_deref().is_some_and(|comment| comment.chars().count() > MAX_COMMENT) {
        let message = format!("a comment has at most {MAX_COMMENT} characters");
        return Err(ApiError::new(Code::ContentTooLarge, message).with("limit", MAX_COMMENT));
    }
    Ok(())
}

/// A permission mode that `agent` may be asked for.
pub(super) fn permission_mode(mode: &str, agent: &str, config: &Config) -> Result<(), ApiError> {
    if !PERMISSION_MODES.contains(&mode) {
        let message = format!("permission_mode is one of {}", PERMISSION_MODES.join(", "));
        return Err(ApiError::new(Code::InvalidPermissionMode, message));
    }
    if mode == "bypass" && !config.agents.get(agent).is_some_and(|agent| agent.allow_bypass) {
        let message = format!("permission_mode bypass needs allow_bypass = true in [agents.{agent}]");
        return Err(ApiError::new(Code::InvalidPermissionMode, message));
    }
    Ok(())
}
