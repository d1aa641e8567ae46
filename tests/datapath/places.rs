//! Frontends that share a place in the array by which the programs find them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use aya::maps::Array;
use etherparse::PacketBuilder;
use sticky::datapath::XdpMode;
use sticky::model::{Frontend, Proto};
use sticky_common::maps::{self, PLACE_BITS};
use sticky_common::types::FrontendKeyV4;
use sticky_tests::topology::Topology;

use crate::frames::{CLIENT, CLIENT_MAC, HOST_MAC};
use crate::rig::{Rig, Rules, Runner, Spec, UP};

/// Three frontends at one place, and a fourth that is never there.
fn sharing() -> Vec<(Ipv4Addr, u16)> {
    let mut places: HashMap<u32, Vec<(Ipv4Addr, u16)>> = HashMap::new();
    for last in 1..=254 {
        for port in 1..1024_u16 {
            let addr = Ipv4Addr::new(203, 0, 113, last);
            let key = FrontendKeyV4 {
                addr: addr.octets(),
                port: port.to_be_bytes(),
                proto: Proto::Tcp.number(),
                zero: 0,
            };
            let there = places.entry(key.place(PLACE_BITS)).or_default();
            there.push((addr, port));
            if there.len() == 4 {
                return there.clone();
            }
        }
    }
    panic!("260,000 frontends, and no four of them share one of 65,536 places")
}

/// Which of the frontends a SYN is handed over for.
fn served(rig: &Rig, frontends: &[(Ipv4Addr, u16)]) -> Vec<bool> {
    let runner = Runner::new(rig).unwrap();
    // Each with a port of its own: the flows to the one backend would look the same.
    let is_served = |(&(addr, port), own): (&(Ipv4Addr, u16), u16)| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC, HOST_MAC)
            .ipv4(CLIENT.octets(), addr.octets(), 64)
            .tcp(own, port, 1, 64_240)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        !runner.run(&frame).unwrap().handover.is_empty()
    };
    frontends.iter().zip(40_000..).map(is_served).collect()
}

#[test]
fn frontends_that_share_a_place_are_told_apart() {
    let topology = Topology::new().unwrap();
    let (_backends, addrs) = topology.backends(1).unwrap();
    let specs = [Spec(addrs[0], UP, 1)];
    let mut rig = Rig::start(&topology.node, &["eth0"], XdpMode::Native).unwrap();
    let all = sharing();
    let serve = |rig: &mut Rig, which: &[usize]| {
        let frontends: Vec<_> = which
            .iter()
            .map(|i| {
                let (addr, port) = all[*i];
                (Frontend { addr: addr.into(), port, proto: Proto::Tcp }, 8080)
            })
            .collect();
        rig.serve_as(&topology.node, &frontends, Rules::default(), &specs).unwrap();
        let expected: Vec<bool> = (0..4).map(|i| which.contains(&i)).collect();
        assert_eq!(served(rig, &all), expected, "{which:?}");
    };
    for which in [&[0][..], &[0, 1, 2], &[1, 2], &[2, 0], &[1], &[], &[2, 1, 0]] {
        serve(&mut rig, which);
    }
    // A version that knows nothing of places changed the frontends: what it left there counts for nothing.
    let mut runner = Runner::new(&rig).unwrap();
    let mut places: Array<_, [u8; 1 << PLACE_BITS]> =
        Array::try_from(runner.map(maps::PLACES)).unwrap();
    places.set(0, [0; 1 << PLACE_BITS], 0).unwrap();
    assert_eq!(served(&rig, &all), [false; 4]);
    let adopted =
        Rig::adopt(&topology.node, &["eth0"], XdpMode::Native, rig.pin_dir.clone()).unwrap();
    assert_eq!(served(&adopted, &all), [true, true, true, false]);
}
