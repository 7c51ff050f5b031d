//! Ids of messages in OpenCode's own form, which sort by time. Pure.
//!
//! A prompt carries an id of ours, so that the answers to it, which name it as their parent, are known for certain. The
//! server takes the newest message by its id, so ours must be later than all before it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Makes ids that only grow.
#[derive(Debug, Default)]
pub(super) struct Idents {
    /// The time of the last id, in milliseconds.
    last: u64,
}

impl Idents {
    /// A new id of a message.
    pub(super) fn message(&mut self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.at(u64::try_from(now).unwrap_or(u64::MAX), uuid::Uuid::now_v7().as_u128())
    }

    fn at(&mut self, now: u64, random: u128) -> String {
        self.last = now.max(self.last + 1);
        // 36 bits of milliseconds and 12 of a counter, which is the server's to use.
        let time = (self.last << 12) & 0xffff_ffff_ffff;
        format!("msg_{time:012x}{:014x}", random & 0x00ff_ffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_servers_form_and_grow_even_when_the_clock_goes_back() {
        let mut idents = Idents::default();
        let ids = [idents.at(1_795_283_168_819, 7), idents.at(1_795_283_168_819, 1), idents.at(5, 0)];
        assert_eq!(ids[0], "msg_1ff372e3300000000000000007");
        assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 30), "{ids:?}");
        assert!(idents.message() > ids[2]);
    }
}
