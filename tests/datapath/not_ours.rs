//! P1: a packet that is for no frontend leaves exactly as it came.

use std::time::{Duration, Instant};

use sticky::control::DataPathView as _;
use sticky::datapath::XdpMode;
use sticky_common::types::Handover;
use sticky_tests::netns::Netns;

use crate::frames::{self, Named, PORT, VIP, Wire, not_ours, segment, wire};
use crate::rig::{Rig, Runner, Spec, UP};

const XDP_PASS: u32 = 2;

/// A node whose `eth0`, where sticky is attached, is a bridge port: what passes comes out at the other port unchanged.
struct Bridged {
    rig: Option<Rig>,
    node: Netns,
    client: Netns,
    far: Netns,
}

impl Bridged {
    fn new() -> Self {
        let node = Netns::new("node").unwrap();
        let client = Netns::new("client").unwrap();
        let far = Netns::new("far").unwrap();
        node.link(("eth0", "198.51.100.1/24"), &client, ("eth0", "198.51.100.2/24")).unwrap();
        node.link(("eth1", "203.0.113.1/24"), &far, ("eth0", "203.0.113.2/24")).unwrap();
        node.ip("link add br0 type bridge mcast_snooping 0").unwrap();
        for port in ["eth0", "eth1"] {
            node.ip(&format!("addr flush dev {port}")).unwrap();
            node.ip(&format!("link set {port} master br0")).unwrap();
        }
        node.ip("link set br0 up").unwrap();
        node.ip("addr add 203.0.113.1/24 dev br0").unwrap();
        // Netfilter's own look at bridged packets drops what is malformed.
        for table in ["iptables", "ip6tables", "arptables"] {
            node.sysctl(&format!("net.bridge.bridge-nf-call-{table}"), "0").unwrap();
        }
        // Silence, so that only the test's frames are on the wire.
        for (netns, device) in
            [(&client, "eth0"), (&far, "eth0"), (&node, "br0"), (&node, "eth0"), (&node, "eth1")]
        {
            netns.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1").unwrap();
            netns.ip(&format!("link set {device} arp off")).unwrap();
        }
        Self { rig: None, node, client, far }
    }

    fn attach(&mut self, mode: XdpMode) -> &Rig {
        let mut rig = Rig::start(&self.node, &["eth0"], mode).unwrap();
        rig.serve(&self.node, VIP, PORT, 8080, &[Spec("203.0.113.2".parse().unwrap(), UP, 1)])
            .unwrap();
        self.rig.insert(rig)
    }
}

/// Sends each frame by one end and collects what comes out at the other.
fn through(from: &mut Wire, to: &mut Wire, frames: &[Named]) -> Vec<Vec<u8>> {
    for (name, frame) in frames {
        from.0.send_to(frame, None).unwrap().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let mut out = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && out.len() < frames.len() {
        if let Ok(frame) = to.1.next() {
            out.push(frame.to_vec());
        }
    }
    out
}

#[test]
fn what_is_for_no_frontend_comes_out_as_without_sticky_native() {
    compare_with_and_without(XdpMode::Native);
}

#[test]
fn what_is_for_no_frontend_comes_out_as_without_sticky_generic() {
    compare_with_and_without(XdpMode::Generic);
}

fn compare_with_and_without(mode: XdpMode) {
    let mut lab = Bridged::new();
    let (mut from, mut to) = (wire(&lab.client), wire(&lab.far));
    let frames = not_ours();
    let without = through(&mut from, &mut to, &frames);
    lab.attach(mode);
    let with = through(&mut from, &mut to, &frames);
    assert_eq!(without.len(), frames.len(), "the wire itself loses frames");
    assert_eq!(with.len(), frames.len());
    for (((name, sent), without), with) in frames.iter().zip(&without).zip(&with) {
        assert_eq!(with, without, "{name}");
        // The kernel takes a tag off the frame before anyone can capture it.
        assert!(name.contains("vlan") || with == sent, "{name}");
    }
}

#[test]
fn the_program_passes_them_unchanged() {
    let mut lab = Bridged::new();
    let runner = Runner::new(lab.attach(XdpMode::Native)).unwrap();
    for (name, frame) in not_ours() {
        let ran = runner.run(&frame).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((ran.verdict, &ran.handover[..]), (XDP_PASS, &[][..]), "{name}");
        assert_eq!(ran.frame, frame, "{name}");
    }
}

#[test]
fn what_is_for_a_frontend_is_handed_over() {
    let mut lab = Bridged::new();
    let runner = Runner::new(lab.attach(XdpMode::Native)).unwrap();
    let with_options =
        frames::ipv4(etherparse::IpNumber::TCP, &segment(PORT, "S", b"")[34..], |h| {
            h.options = [7, 7, 4, 0, 0, 0, 0, 0].into();
        });
    for frame in [
        segment(PORT, "S", b""),
        segment(PORT, "A", b"data"),
        segment(PORT, "FA", b""),
        with_options,
    ] {
        let ran = runner.run(&frame).unwrap();
        assert_eq!(ran.verdict, XDP_PASS);
        assert_eq!(ran.frame, frame, "XDP only chooses");
        assert_eq!(
            ran.handover.len(),
            size_of::<Handover>(),
            "{:?}",
            lab.rig.as_ref().unwrap().path.view.counters().map(|c| c.outcomes)
        );
        assert_eq!(ran.handover[..4], Handover::MAGIC.to_ne_bytes());
        assert_eq!(ran.handover[8..10], 8080u16.to_be_bytes());
    }
}
