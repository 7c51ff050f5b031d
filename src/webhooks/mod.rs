//! Webhooks: the signatures of Standard Webhooks, and the routes by which others send messages.

pub mod outbound;
pub mod signature;
