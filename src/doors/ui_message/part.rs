//! The parts of a stream, and how they are written: one SSE event each, with a JSON object as its data.

use serde::Serialize;
use serde_json::{Value, value::RawValue};

/// A part. Texts are borrowed, so that writing one copies it once, into the buffer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Part<'a> {
    /// The message begins.
    Start { message_id: &'a str },
    /// A step of the agent begins.
    StartStep,
    /// A step of the agent is over.
    FinishStep,
    /// A text begins.
    TextStart { id: &'a str },
    /// A piece of a text.
    TextDelta { id: &'a str, delta: &'a RawValue },
    /// A text is over.
    TextEnd { id: &'a str },
    /// Reasoning begins.
    ReasoningStart { id: &'a str },
    /// A piece of reasoning.
    ReasoningDelta { id: &'a str, delta: &'a RawValue },
    /// Reasoning is over.
    ReasoningEnd { id: &'a str },
    /// A call of a tool begins to be written.
    #[serde(rename_all = "camelCase")]
    ToolInputStart {
        tool_call_id: &'a str,
        tool_name: &'a str,
        provider_executed: bool,
        dynamic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    /// A piece of its input.
    ToolInputDelta { tool_call_id: &'a str, input_text_delta: &'a str },
    /// Its whole input.
    ToolInputAvailable {
        tool_call_id: &'a str,
        tool_name: &'a str,
        input: &'a Value,
        provider_executed: bool,
        dynamic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    /// What came back.
    ToolOutputAvailable {
        tool_call_id: &'a str,
        output: &'a Value,
        provider_executed: bool,
        dynamic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        preliminary: Option<bool>,
    },
    /// It failed, was refused or cut off.
    ToolOutputError { tool_call_id: &'a str, error_text: &'a str, provider_executed: bool, dynamic: bool },
    /// The call needs a yes or a no.
    ToolApprovalRequest { approval_id: &'a str, tool_call_id: &'a str },
    /// The no.
    ToolOutputDenied { tool_call_id: &'a str },
    /// A file.
    File { url: &'a str, media_type: &'a str },
    /// A text that was given to the running turn.
    SteeringMessage { id: &'a str, parts: [TextPart<'a>; 1] },
    /// The same for a version that does not know it.
    DataSteer { data: Steer<'a> },
    /// A question of the agent; once more when it is settled.
    DataChoice { id: &'a str, data: &'a Value },
    /// What the agent plans to do; the latest replaces earlier ones.
    DataPlan { id: &'a str, data: &'a Value },
    /// Something went wrong that does not end the turn.
    DataFault { data: Fault<'a>, transient: bool },
    /// The turn failed, or is lost.
    Error { error_text: &'a str },
    /// The turn was stopped.
    Abort {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    /// The turn is over.
    Finish {
        #[serde(skip_serializing_if = "Option::is_none")]
        finish_reason: Option<&'a str>,
    },
}

/// A text of a message.
#[derive(Debug, Serialize)]
pub(super) struct TextPart<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub text: &'a str,
}

/// A text that was given to the running turn, and who sent it.
#[derive(Debug, Serialize)]
pub(super) struct Steer<'a> {
    pub text: &'a str,
    pub source: &'a str,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub(super) struct Fault<'a> {
    pub code: &'a str,
    pub message: &'a str,
}

impl Part<'_> {
    /// Writes the part as one event.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(b"data: ");
        match serde_json::to_writer(&mut *out, self) {
            Ok(()) => out.extend_from_slice(b"\n\n"),
            // Nothing here can fail to be JSON; half a part would be worse than none.
            Err(_never) => out.truncate(begin),
        }
    }
}

/// The end of a stream that was told to its end.
pub(super) fn write_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}
