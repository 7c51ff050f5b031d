//! The feed: the events of all sessions as one stream, with a durable cursor of its own.
//!
//! Serial numbers are not in the order of commit where several writers insert at a time: a reader that remembers the
//! highest number it has seen would miss a lower one that is committed later. So each writer has a **lane** of its
//! own, held as long as its connection lives, and numbers its rows in the order of commit there. A [`Cursor`] is a
//! place in every lane. What is on disk and past it has not been seen; nothing else can ever come before it.
//!
//! [`Ring`] holds the newest batches for those that follow live: one copy for all of them, bounded in bytes. Who falls
//! out of it reads on from the store, from its own cursor. [`FeedSubscription`] joins the two, and is pulled.

mod cursor;
mod ring;
mod subscription;

pub use cursor::{Cursor, InvalidCursor};
pub use ring::{Listener, Published, Ring};
pub use subscription::{FeedStart, FeedSubscription};
