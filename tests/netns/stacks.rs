//! Real stacks at both ends: both families, TCP and UDP, both modes, checksums left to offload or not.

use sticky_tests::bulk::{self, BULK_PORT, Way};
use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;

use crate::dual::{BOTH, Dual, Family};

const GIB: u64 = 1 << 30;

fn everything(mode: &str) -> anyhow::Result<()> {
    let node = Dual::start(2, mode, &[])?;
    let interfaces = node.sticky.status()?["datapath"]["interfaces"].clone();
    assert_eq!(interfaces[0]["mode"], mode, "{interfaces}");
    for offload in ["on", "off"] {
        node.net.clients.run("ethtool", &["-K", "eth0", "tx", offload])?;
        for family in BOTH {
            exchange(&node, family).map_err(|error| {
                error.context(format!("{mode}, {family:?}, tx offload {offload}"))
            })?;
        }
    }
    Ok(())
}

fn exchange(node: &Dual, family: Family) -> anyhow::Result<()> {
    let large: Vec<u8> = (0..9000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
    for index in 0..4 {
        let client = family.client(index);
        node.client(|| {
            let mut line = LineConnection::open(client, family.frontend(LINE_PORT))?;
            assert_eq!(line.seen, line.local, "the backend sees the client");
            line.ask("hello")?;
            let datagrams = Datagrams::open(client, family.frontend(DATAGRAM_PORT))?;
            // A question and its answer, then fragments both ways.
            for payload in [&b"who are you?"[..], b"", &large, &large] {
                let answer = datagrams.ask(payload)?;
                assert_eq!(answer.seen, datagrams.local()?);
                assert_eq!(answer.instance, line.instance, "one client, one backend");
            }
            Ok(())
        })?;
    }
    for way in [Way::Up, Way::Down] {
        let to = family.frontend(BULK_PORT);
        node.client(|| bulk::transfer(family.client(1), to, way, 20_000_003))?;
    }
    Ok(())
}

#[test]
fn native_mode_carries_every_protocol() -> anyhow::Result<()> {
    everything("native")
}

#[test]
fn generic_mode_carries_every_protocol() -> anyhow::Result<()> {
    everything("generic")
}

#[test]
fn a_gibibyte_each_way_arrives_as_it_was_sent() -> anyhow::Result<()> {
    let node = Dual::start(2, "native", &[])?;
    for (family, way) in [(Family::V4, Way::Up), (Family::V6, Way::Down)] {
        node.client(|| bulk::transfer(family.client(7), family.frontend(BULK_PORT), way, GIB))?;
    }
    Ok(())
}
