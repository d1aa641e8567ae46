//! The host's own rules that a packet for a frontend never meets, since XDP comes before them.

mod rules;

use std::net::IpAddr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::Proto;
use rules::Ruleset;

/// How long one look is good for: `status` may be asked every second.
const FRESH: Duration = Duration::from_secs(2);

/// A frontend at layer 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub service: String,
    pub addr: IpAddr,
    pub port: u16,
    /// The backends' port, which rules behind Docker's NAT see.
    pub target: u16,
    pub proto: Proto,
}

/// A rule that does not hold for a frontend, and the label that would do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypassed {
    pub service: String,
    pub frontend: String,
    /// `INPUT` or `DOCKER-USER`.
    pub chain: String,
    /// As `iptables-save` prints it.
    pub rule: String,
    /// `sticky.allow` or `sticky.deny` with its value.
    pub instead: String,
}

/// The rules of this host, as often as somebody asks.
#[derive(Debug, Default)]
pub struct Firewall(Mutex<Option<(Instant, Vec<Ruleset>)>>);

impl Firewall {
    /// The rules that would have matched packets for `frontends` that come in by `interfaces`.
    #[must_use]
    pub fn bypassed(&self, frontends: &[Guarded], interfaces: &[String]) -> Vec<Bypassed> {
        if frontends.is_empty() {
            return Vec::new();
        }
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if look.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            *look = Some((Instant::now(), read()));
        }
        let rulesets = look.as_ref().map_or(&[][..], |(_, rulesets)| rulesets);
        rulesets.iter().flat_map(|rules| rules.bypassed(frontends, interfaces)).collect()
    }
}

/// A host without iptables has no rules of it.
fn read() -> Vec<Ruleset> {
    let families = [("iptables-save", false), ("ip6tables-save", true)];
    let saved = families.into_iter().filter_map(|(program, v6)| {
        let output = Command::new(program).args(["-t", "filter"]).output().ok()?;
        output
            .status
            .success()
            .then(|| Ruleset::parse(&String::from_utf8_lossy(&output.stdout), v6))
    });
    saved.collect()
}
