//! Refusals in the words of OpenAI's clients: with `param`, the field that they are about.

use crate::error::{ApiError, Code};

/// A field that has a form that nothing can be made of.
#[must_use]
pub fn invalid(param: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::InvalidJson, format!("{param}: {message}")).with("param", param)
}

/// A field that asks for what an agent cannot do.
#[must_use]
pub fn unsupported(param: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::UnsupportedParameter, format!("{param}: {message}")).with("param", param)
}

/// Why tools of the client are refused: two surfaces say it.
pub const TOOLS: &str =
    "an agent runs its own tools and cannot call yours; leave them out, or send tool_choice \"none\"";
/// Why a form of the answer is refused.
pub const FORMAT: &str = "an agent answers in text; no other form can be promised";
/// Why stop sequences are refused.
pub const STOP: &str = "an agent does not stop at a text";
