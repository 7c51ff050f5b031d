//! One AG-UI event, written field by field into the bytes of the stream: nothing is built only to be encoded.

use serde::Serialize;

/// An event that is being written. [`Line::end`] ends it.
#[must_use = "an event counts once it has its end()"]
pub(super) struct Line<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    /// Begins an event of a type.
    pub(super) fn new(out: &'a mut Vec<u8>, kind: &str) -> Self {
        out.extend_from_slice(b"data: {\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Self(out)
    }

    /// A field. Names are ours and need no escape.
    pub(super) fn field(self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        let written = self.0.len();
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        // Only a map whose keys are no texts fails, and nothing here has one; half a field would break the whole event.
        if serde_json::to_writer(&mut *self.0, value).is_err() {
            self.0.truncate(written);
        }
        self
    }

    /// A field that may be absent: the protocol has no null.
    pub(super) fn maybe(self, name: &str, value: Option<&(impl Serialize + ?Sized)>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Ends the event.
    pub(super) fn end(self) {
        self.0.extend_from_slice(b"}\n\n");
    }
}
