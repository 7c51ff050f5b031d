//! Stand-in for the compile of the transports; replaced by `session::subscription`.
use std::sync::Arc;

use bytestring::ByteString;

use crate::protocol::frame::{Batch, EndReason};

/// A piece of a stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// Events in order; show those that `Subscription::wants` says.
    Events(Arc<Batch>),
    /// One event out of a batch, or several that passed a filter, in order.
    Frames(Vec<crate::protocol::Frame>),
    /// A control frame, encoded, with its type.
    Control(&'static str, ByteString),
    /// The stream is over: show `stream.end` (the encoded frame) and close.
    End(EndReason, ByteString),
    /// A stream of one turn has shown its `turn.finished`: close without a frame.
    Done,
}

/// A stream of one session for one subscriber. Dropping it unsubscribes.
pub struct Subscription;

impl Subscription {
    /// The next piece; none after `End` or `Done`. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        None
    }
}
