//! What the client's version of the AI SDK understands beyond what all of them do.

/// The major version that a client named; the default is what every version since 5.0.0 takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// Any: the parts and keys of 5.0.0.
    #[default]
    Any,
    /// A recent 5.
    V5,
    /// A recent 6.
    V6,
    /// 7.
    V7,
}

impl Version {
    /// Reads `6`, `6.0.322` or `ai/6.0.322`. Of 5, its first release is no more than any; a newer major reads what 7 does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("ai/").unwrap_or(text);
        let (major, rest) = number.split_once('.').unwrap_or((number, ""));
        let plain = !major.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        Some(match major.parse::<u32>().ok().filter(|_| plain)? {
            5 if rest == "0.0" => Self::Any,
            5 => Self::V5,
            6 => Self::V6,
            7.. => Self::V7,
            _ => return None,
        })
    }

    /// `finishReason`, and outputs of a tool that is still at work.
    #[must_use]
    pub fn has_finish_reasons(self) -> bool {
        self >= Self::V5
    }

    /// Titles of tools, reasons of aborts, and approvals as a part of the protocol.
    #[must_use]
    pub fn has_approvals(self) -> bool {
        self >= Self::V6
    }

    /// A part for texts that were given to the running turn.
    #[must_use]
    pub fn has_steering(self) -> bool {
        self >= Self::V7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_major_or_a_whole_one() {
        for (text, version) in [
            ("5", Version::V5),
            ("5.0.277", Version::V5),
            ("5.0.0", Version::Any),
            ("ai/6.0.1", Version::V6),
            ("7", Version::V7),
            ("8.1", Version::V7),
        ] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        for bad in ["", "4", "v6", "6beta", ".6", "-6", "six"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
