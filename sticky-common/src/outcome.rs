//! What became of a packet: one enum for the verdict, its reason, the counter and the metric label.

/// What the data path does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on exactly as it came.
    Pass,
    /// Handed to the next stage of sticky, or sent out by it.
    Forward,
    /// Ends here.
    Drop,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $label:literal => $action:ident,)*) => {
        /// Outcome of one stage for one packet. Its number is the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Outcome {
            $($(#[$doc])* $name,)*
        }

        impl Outcome {
            /// Every outcome, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The label in metrics and captures.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What is done with the packet.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$name => Action::$action,)*
                }
            }
        }
    };
}

outcomes! {
    /// For no frontend.
    NotOurs = "not_ours" => Pass,
    /// A fragment behind the first one of a datagram for a frontend.
    Fragment = "fragment" => Forward,
    /// An ICMP error about a flow of ours, sent to the backend that owns it.
    IcmpError = "icmp_error" => Forward,
    /// Chosen by the settled slot of an established connection. Counted per backend, not here.
    Hash = "hash" => Forward,
    /// Chosen by the client's record or flow, because its slot moved.
    Recorded = "recorded" => Forward,
    /// First packet of a connection of a client with no history.
    New = "new" => Forward,
    /// First packet of a connection of a known client, sent where its record says.
    Pinned = "pinned" => Forward,
    /// First packet of a connection of a client whose recorded backend takes no new connections any more.
    Repinned = "repinned" => Forward,
    /// First packet of a connection of a client whose record was older than the affinity time.
    Expired = "expired" => Forward,
    /// The service has no backend that is up. Refused, once that has lasted some seconds.
    NoBackend = "no_backend" => Drop,
    /// A reset or an ICMP port unreachable that was sent because no backend is up.
    Refused = "refused" => Forward,
    /// `sticky.deny` or `sticky.allow` excludes the client.
    Denied = "denied" => Drop,
    /// `sticky.rate`: the client opens more connections than it may.
    RateLimited = "rate_limited" => Drop,
    /// Another frontend's live connection of this client looks the same behind the rewrite.
    Collision = "collision" => Drop,
    /// The driver gives no room for metadata, so the choice could not be handed over.
    NoMetadata = "no_metadata" => Pass,
    /// Came with a choice, but what it names is gone or the packet is not what was chosen for.
    Undeliverable = "undeliverable" => Drop,
    /// Its time to live ran out here; the sender is told.
    TtlExpired = "ttl_expired" => Drop,
    /// Larger than the next link takes, and not to be fragmented; the sender is told.
    TooBig = "too_big" => Drop,
    /// A reply, restored to the frontend's address and sent to the client.
    Reply = "reply" => Forward,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_labels_unique() {
        for (i, o) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*o as usize, i);
            assert_eq!(Outcome::ALL.iter().filter(|p| p.as_str() == o.as_str()).count(), 1);
        }
    }
}
