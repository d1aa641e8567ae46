//! Random packets and changes, through the program and the plain model of it: both say the same of each frame.

use std::cell::RefCell;

use proptest::prelude::*;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, Handover, Slot};

use super::explore::explore;
use super::maps::Maps;
use super::model::{Fate, Kind, Model, Sent, State, Tables};
use super::packet::{ACK, Body, FIN, Packet, RST, SYN, tcp, udp};
use super::places::{BACKENDS, Family, Over, PORT, Proto, SECOND};
use super::world::{World, room_in_tick};
use crate::rig::{TABLE_SIZE, UP};

const XDP_PASS: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Frame(Sent),
    Tables(Tables),
    State(u32, State),
}

fn sent() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![
        6 => Just(Kind::Opens),
        6 => Just(Kind::Data),
        1 => Just(Kind::Fin),
        1 => Just(Kind::Reset),
        2 => Just(Kind::Error),
        1 => (0u8..2).prop_map(Kind::FirstPiece),
        1 => (0u8..2).prop_map(Kind::LaterPiece),
    ];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)];
    (family, proto, 0u8..2, 0u16..2, 0u8..3, kind).prop_map(
        |(family, proto, client, port, frontend, kind)| {
            let port = 40_000 + port;
            // A datagram always opens.
            let kind = match kind {
                Kind::Data | Kind::Fin | Kind::Reset if proto == Proto::Udp => Kind::Opens,
                kind => kind,
            };
            Sent { family, proto, client, port, frontend, kind }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let slot = prop_oneof![1 => Just(None), 8 => (1u32..4).prop_map(Some)];
    let tables = (slot, any::<bool>(), prop::bool::weighted(0.8))
        .prop_map(|(slot, unsettled, affine)| Step::Tables(Tables { slot, unsettled, affine }));
    let state = (1u32..4, 1u32..3, 0u8..4).prop_map(|(index, generation, what)| {
        Step::State(index, State { generation, alive: what > 0, keeps: what > 1 })
    });
    prop_oneof![20 => sent().prop_map(Step::Frame), 2 => tables, 2 => state]
}

fn frame(sent: &Sent) -> Vec<u8> {
    let family = sent.family;
    let (vip, port) = [(family.vip(), PORT), (family.vip(), SECOND), (family.second_vip(), PORT)]
        [usize::from(sent.frontend)];
    let body = match (sent.proto, sent.kind) {
        (Proto::Udp, _) => udp(&[5; 64]),
        (_, Kind::Opens) => tcp(SYN, b""),
        (_, Kind::Fin) => tcp(FIN | ACK, b""),
        (_, Kind::Reset) => tcp(RST, b""),
        _ => tcp(ACK, &[5; 64]),
    };
    let client = (family.client(sent.client), sent.port).into();
    let packet = Packet::new(client, (vip, port).into(), body);
    let packet = match sent.kind {
        Kind::Error => {
            let codes = if family == Family::V4 { [3, 1] } else { [1, 0] };
            let rest = packet.answer(packet.body.clone()).ip();
            Packet { body: Body::Icmp { codes, word: [0; 4], rest }, ..packet }
        }
        Kind::FirstPiece(id) => packet.piece(0, 40, true).with(|p| p.id = id.into()),
        Kind::LaterPiece(id) => packet.piece(40, 64, true).with(|p| p.id = id.into()),
        _ => packet,
    };
    packet.frame(Over::FromClient)
}

/// What the program did with a frame.
fn fate(world: &mut World, frame: &[u8]) -> Result<Fate, TestCaseError> {
    let before = world.counts();
    let ran = world.choose(frame);
    let after = world.counts();
    prop_assert_eq!(&ran.frame[..], frame, "XDP changes nothing");
    let counted = Outcome::ALL
        .iter()
        .filter(|o| before.outcomes[**o as usize] != after.outcomes[**o as usize]);
    let counted: Vec<Outcome> = counted.copied().collect();
    let to = (!ran.handover.is_empty()).then(|| {
        assert_eq!(ran.handover[..4], Handover::MAGIC.to_ne_bytes());
        u32::from_ne_bytes(ran.handover[4..8].try_into().unwrap())
    });
    prop_assert_eq!(ran.verdict == XDP_PASS, to.is_some() || counted == [Outcome::NotOurs]);
    let outcome = match counted[..] {
        [] => Outcome::Hash,
        [one] => one,
        _ => return Err(TestCaseError::fail(format!("counted {counted:?}"))),
    };
    Ok((outcome, to))
}

fn load(world: &mut World, model: &Model) {
    let Tables { slot, unsettled, affine } = model.tables;
    let slot = match (slot, unsettled) {
        (Some(index), _) => Slot::new(index, unsettled),
        (None, true) => Slot::EMPTY.marked_unsettled(),
        (None, false) => Slot::EMPTY,
    };
    let maps = Maps::default().each(|f| f.ttl = if affine { 1000 } else { 0 }).with(|m| {
        m.slots = vec![slot; TABLE_SIZE as usize].into();
        for backend in &mut m.backends {
            let index = BackendId(backend.id).index();
            let Some(state) = model.backends.get(&index) else { continue };
            backend.id = BackendId::new(index, state.generation).0;
            backend.flags = match (state.alive, state.keeps) {
                (false, _) => 0,
                (true, false) => Backend::ALIVE,
                (true, true) => UP,
            };
        }
    });
    world.load(&maps);
}

fn try_steps(world: &mut World, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    model.tables = Tables { slot: Some(BACKENDS[0]), unsettled: false, affine: true };
    for index in BACKENDS {
        model.backends.insert(index, State { generation: 1, alive: true, keeps: true });
    }
    world.reset(&Maps::default());
    // All in one tick, so that nothing ages meanwhile.
    room_in_tick(500);
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Tables(tables) => {
                model.tables = *tables;
                load(world, &model);
            }
            Step::State(index, state) => {
                model.backends.insert(*index, *state);
                load(world, &model);
            }
            Step::Frame(sent) => {
                let (expected, got) = (model.receive(sent), fate(world, &frame(sent))?);
                prop_assert_eq!(got, expected, "step {}: {:?}", at, sent);
            }
        }
    }
    Ok(())
}

#[test]
fn the_program_decides_as_its_model() {
    World::enter("sticky_xdp", |world| {
        let world = RefCell::new(world);
        explore(40, &prop::collection::vec(step(), 1..60), |steps| {
            try_steps(&mut world.borrow_mut(), &steps)
        });
    });
}
