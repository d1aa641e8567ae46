//! Real stacks at both ends: both families, TCP and UDP, both modes, checksums left to offload or not.

use std::net::IpAddr;

use anyhow::Context;
use sticky_tests::bulk::{self, BULK_PORT, Way};
use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::http;
use sticky_tests::lines::LineConnection;

use crate::dual::{BOTH, Dual, Family};

const GIB: u64 = 1 << 30;

/// Every protocol and both families, and a gibibyte each way, with the clients' own checksum offload on or off: with it on,
/// frames reach the node with partial checksums.
fn everything(mode: &str, offload: &str) -> anyhow::Result<()> {
    let node = Dual::start(2, mode, &[])?;
    let interfaces = node.sticky.status()?["datapath"]["interfaces"].clone();
    assert_eq!(interfaces[0]["mode"], mode, "{interfaces}");
    node.net.clients.run("ethtool", &["-K", "eth0", "tx", offload])?;
    for family in BOTH {
        for index in 0..4 {
            exchange(&node, family, family.client(index))?;
        }
        for way in [Way::Up, Way::Down] {
            let to = family.frontend(BULK_PORT);
            node.client(|| bulk::transfer(family.client(7), to, way, GIB))
                .with_context(|| format!("{family:?}, {way:?}"))?;
        }
    }
    Ok(())
}

fn exchange(node: &Dual, family: Family, client: IpAddr) -> anyhow::Result<()> {
    let large: Vec<u8> = (0..9000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
    let instance = node.client(|| {
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
        Ok(line.instance)
    })?;
    let to = family.frontend(HTTP_PORT);
    let answer = node.net.clients.block_on(|| async move {
        http::get(Some(client), to, "demo.local", "/ping", &[]).await
    })??;
    assert_eq!((answer.status, answer.header("x-instance")), (200, instance.as_str()));
    Ok(())
}

#[test]
fn native_mode_with_tx_offload() -> anyhow::Result<()> {
    everything("native", "on")
}

#[test]
fn native_mode_without_tx_offload() -> anyhow::Result<()> {
    everything("native", "off")
}

#[test]
fn generic_mode_with_tx_offload() -> anyhow::Result<()> {
    everything("generic", "on")
}

#[test]
fn generic_mode_without_tx_offload() -> anyhow::Result<()> {
    everything("generic", "off")
}
