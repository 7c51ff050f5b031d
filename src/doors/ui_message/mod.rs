//! The UI message stream (version 1) of the Vercel AI SDK: what `useChat` sends and reads.
//!
//! [`request`] reads what a chat transport posts, [`Narrator`] tells the events of a turn as parts, [`Version`] says which
//! parts the client understands. All of it is pure. Facts about the protocol come from the published packages `ai` 5.0.0,
//! 5.0.277, 6.0.322 and 7.0.173: their schemas of chunks, their chat transports and their stream readers.
//!
//! A reader refuses a stream over one part that it does not know, and the oldest one over one key. So without being asked
//! for more, only parts and keys are told that every version takes.

mod narrator;
mod part;
pub mod request;
mod tools;
mod version;

#[cfg(test)]
mod narrator_tests;

pub use self::{
    narrator::{Begin, Narrator},
    request::ChatRequest,
    version::Version,
};

/// The header of an answer that says what it is, and its value.
pub const PROTOCOL_HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");
