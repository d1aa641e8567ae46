//! `sticky capture`: the flags.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use std::net::IpAddr;
use sticky_common::outcome::Outcome;

use crate::capture::Wanted;

pub(super) const HELP: &str = "\
Each packet is shown as it came in, with what became of it: the outcome (as in the metrics), service and backend.
tcpdump cannot see this: XDP comes before it.
Without -w it prints lines on a terminal, and pcapng elsewhere. In pcapng each packet's comment says
`verdict=… outcome=… direction=in|reply service=… backend=… id=… addr=…`.
It needs no running sticky, only what it left pinned, and leaves nothing behind, also when killed.

Examples:
  sticky capture
  sticky capture --client 198.51.100.0/24 --service demo
  sticky capture --outcome no_backend --outcome collision
  sticky capture -w drops.pcapng --count 100
  sticky capture | wireshark -k -i -";

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Write pcapng to a file, `-`: standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only packets that come in by this interface [default: all]
    #[arg(long, value_name = "NAME")]
    iface: Option<String>,
    /// Only packets from, and replies to, these clients: an address or a CIDR
    #[arg(long, value_name = "CIDR", value_parser = network)]
    client: Option<IpNet>,
    /// Only packets of this service (name or id)
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only packets with this outcome, repeatable [default: all but `not_ours`]
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    outcome: Vec<Outcome>,
    /// End after so many packets
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Bytes of each packet, 0: as many as fit (16352)
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    snaplen: u32,
}

impl CaptureArgs {
    pub(super) fn wanted(self) -> Wanted {
        let Self { write, iface, client, service, outcome, count, snaplen } = self;
        Wanted { write, iface, client, service, outcomes: outcome, count, snaplen }
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .map(|net| net.trunc())
        .or_else(|_| address())
        .map_err(|_| "give an address or a CIDR such as 198.51.100.0/24".to_owned())
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::ALL.iter().find(|outcome| outcome.as_str() == text).copied().ok_or_else(|| {
        let all: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        format!("there are: {}", all.join(", "))
    })
}
