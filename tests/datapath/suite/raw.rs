//! Raw bytes: frames for a frontend with anything changed. What XDP takes is for a frontend also by another's reading.

use std::cell::RefCell;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use proptest::prelude::*;
use sticky_common::outcome::Outcome;

use super::explore::explore;
use super::maps::Maps;
use super::packet::Packet;
use super::places::{FAMILIES, Over, PORT, PROTOS, SECOND, octets};
use super::world::World;

/// Where the frame is for, and the port if it is of TCP or UDP.
fn read(frame: &[u8]) -> Option<(Vec<u8>, Option<u16>)> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let addr = match packet.net? {
        LaxNetSlice::Ipv4(ip) => ip.header().destination().to_vec(),
        LaxNetSlice::Ipv6(ip) => ip.header().destination().to_vec(),
        LaxNetSlice::Arp(_) => return None,
    };
    let port = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some(tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => Some(udp.destination_port()),
        _ => None,
    };
    Some((addr, port))
}

fn try_frame(world: &mut World, frame: &[u8]) -> Result<(), TestCaseError> {
    let before = world.counts();
    let ran = world.choose(frame);
    let after = world.counts();
    prop_assert_eq!(&ran.frame[..], frame, "XDP changes nothing");
    let not_ours = Outcome::NotOurs as usize;
    let passed = after.outcomes[not_ours] != before.outcomes[not_ours];
    prop_assert_eq!(passed, ran.handover.is_empty(), "{:x?}", frame);
    if !passed {
        let ours: Vec<_> =
            FAMILIES.iter().flat_map(|f| [octets(f.vip()), octets(f.second_vip())]).collect();
        let Some((addr, port)) = read(frame) else {
            return Err(TestCaseError::fail(format!("no IP, and taken: {frame:x?}")));
        };
        prop_assert!(ours.contains(&addr), "for {:?}, and taken: {:x?}", addr, frame);
        prop_assert!(
            port.is_none_or(|p| p == PORT || p == SECOND),
            "port {:?}: {:x?}",
            port,
            frame
        );
    }
    Ok(())
}

#[test]
fn nothing_is_taken_that_is_not_for_a_frontend() {
    let seeds: Vec<Vec<u8>> = FAMILIES
        .iter()
        .flat_map(|f| PROTOS.map(|p| Packet::opening(*f, p)))
        .flat_map(|p| {
            let tagged = p.clone().with(|p| p.tags = vec![[0x81, 0, 0, 5]]);
            [p.frame(Over::FromClient), tagged.frame(Over::FromClient)]
        })
        .collect();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let frames = (
        prop::sample::select(seeds),
        prop::collection::vec(change, 0..4),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
        .prop_map(|(mut frame, changes, cut)| {
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 14));
            }
            frame
        });
    World::enter("sticky_xdp", |world| {
        world.reset(&Maps::default());
        let world = RefCell::new(world);
        explore(2000, &frames, |frame| try_frame(&mut world.borrow_mut(), &frame));
    });
}
