//! Why a request went where it went: for the access log, the metrics and `sticky where`.

use sticky_common::outcome::Outcome;

/// Reason of a choice (contract, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The backend that the cookie names or the client's record holds.
    Pinned,
    /// By the shared hash of the client or of a value.
    Hash,
    /// A new choice, nothing was known.
    New,
    /// A new choice, because what was known takes no more requests.
    Repinned,
    /// A new choice, because what was known was too old.
    Expired,
    /// A new choice, because the cookie was not one of ours.
    Invalid,
}

impl Reason {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Pinned, Self::Hash, Self::New, Self::Repinned, Self::Expired, Self::Invalid];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Hash => "hash",
            Self::New => "new",
            Self::Repinned => "repinned",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
        }
    }
}

impl From<Outcome> for Reason {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pinned | Outcome::Recorded => Self::Pinned,
            Outcome::Hash => Self::Hash,
            Outcome::Repinned => Self::Repinned,
            Outcome::Expired => Self::Expired,
            _ => Self::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
    }
}
