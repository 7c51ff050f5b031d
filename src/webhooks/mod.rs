//! Webhooks: the routes by which others send messages, the endpoints that are told of events, and the signatures of both.

pub mod inbound;
pub mod outbound;
pub mod signature;
