//! Doors: the wire protocols that clients have already, each a translation of one turn's events.
//!
//! A door reads its own request, sends a message like every other client, and shows the events of that turn in its own
//! words. The translation is pure: a narrator that takes an [`Event`](crate::protocol::Event) and gives the pieces to
//! write. What the doors share is here: the turn as a stream of events, and pieces as a body of server-sent events.

pub mod ag_ui;
pub mod narration;
pub mod openai;
pub mod ui_message;
