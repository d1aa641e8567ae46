//! What a packet costs when there are many services: each has a frontend, a table and ten backends of its own.
//!
//! Packets to one service say what the number costs. Packets to all of them also say what it costs that each is about
//! another service than the last one was: then what they need is in no cache, which no layout of the maps changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use aya::programs::ProgramFd;
use etherparse::PacketBuilder;
use sticky::control::plan::{FrontendKey, Loaded, Plan};
use sticky::control::{DataPath as _, DataPathView as _};
use sticky::datapath::XdpMode;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, Frontend, FrontendKeyV4, Slot};
use sticky_tests::netns::Netns;

use super::{Case, MAC, PASS, SHORTEST, fd};
use crate::rig::{Rig, Runner, TABLE_SIZE, UP};

/// How many services, and how many of them get packets when all do: which one is a matter of bits.
const NUMBERS: [(u32, u32); 3] = [(10, 8), (1_000, 512), (10_000, 8_192)];
const BACKENDS: u32 = 10;
/// Tables that are written at a time.
const AT_ONCE: u32 = 500;
/// Offset of the last half of a client's address and the first half of the frontend's, as one word.
const ADDRESSES: u32 = 14 + 14;
/// Every client of 64 Ki.
const CLIENTS: u32 = 0xffff_0000;
const PORT: [u8; 2] = [0, 80];

/// Data paths that differ in how many services they have.
pub struct Services {
    numbers: Vec<(u32, u32)>,
    programs: Vec<ProgramFd>,
    rigs: Vec<(Rig, Runner)>,
}

impl Services {
    pub fn start(node: &Netns, quick: bool) -> anyhow::Result<Self> {
        let numbers = NUMBERS[..if quick { 2 } else { NUMBERS.len() }].to_vec();
        let mut rigs = Vec::new();
        let mut programs = Vec::new();
        for (number, _) in &numbers {
            // Nothing comes in: packets are made by the program that measures.
            let mut rig = Rig::start(node, &[], XdpMode::Native)?;
            fill(&mut rig, *number)?;
            let mut runner = Runner::new(&rig)?;
            programs.push(fd(&mut runner)?);
            rigs.push((rig, runner));
        }
        Ok(Self { numbers, programs, rigs })
    }

    /// Whether all packets were for services: the verdict is the same for those that are not.
    pub fn check(&self) -> anyhow::Result<()> {
        for ((rig, _), (number, _)) in self.rigs.iter().zip(&self.numbers) {
            let outcomes = rig.path.view.counters().map_err(anyhow::Error::msg)?.outcomes;
            let lost = outcomes.iter().any(|(of, count)| *of == Outcome::NotOurs && *count > 0);
            anyhow::ensure!(!lost, "packets to {number} services met none of them");
        }
        Ok(())
    }

    /// The first row is what the others are compared with.
    pub fn cases(&self) -> Vec<Case<'_>> {
        let each = || self.numbers.iter().zip(&self.programs);
        let to_one = each().map(|((number, _), program)| {
            case(format!("{number} services, packets to one of them"), program, CLIENTS)
        });
        let to_all = each().map(|((number, met), program)| {
            let name = format!("{number} services, packets to {met} of them in turn");
            case(name, program, CLIENTS | (met - 1))
        });
        to_one.chain(to_all).collect()
    }
}

fn case(name: String, target: &ProgramFd, vary: u32) -> Case<'_> {
    let client = Ipv4Addr::new(198, 18, 0, 1);
    let mut frame = Vec::new();
    let written = PacketBuilder::ethernet2(MAC[0], MAC[1])
        .ipv4(client.octets(), frontend(0), 64)
        .tcp(40_000, u16::from_be_bytes(PORT), 1000, 64_240)
        .ack(7777)
        .write(&mut frame, &[0; 16]);
    assert!(written.is_ok(), "a vector takes any write");
    frame.resize(frame.len().max(SHORTEST), 0);
    Case { name, frame, vary: [ADDRESSES, vary], verdict: PASS, target }
}

/// Address of a service: its number is where it varies together with the client's. It is never on a link.
fn frontend(service: u32) -> [u8; 4] {
    let [_, _, high, low] = service.to_be_bytes();
    [0x40 | high, low, 51, 1]
}

/// Puts so many services in force.
fn fill(rig: &mut Rig, number: u32) -> anyhow::Result<()> {
    for first in (0..number).step_by(AT_ONCE as usize) {
        let services = first..number.min(first + AT_ONCE);
        let indices = || services.clone().flat_map(|s| s * BACKENDS..(s + 1) * BACKENDS);
        let plan = Plan {
            backends: indices().map(|index| (0, backend(index))).collect(),
            tables: services.clone().map(|service| (service, table(service))).collect(),
            frontends: services.clone().map(|service| (key(service), value(service))).collect(),
            ..Plan::default()
        };
        rig.path.executor.apply(&plan, &Loaded::default())?;
    }
    Ok(())
}

fn backend(index: u32) -> Backend {
    Backend {
        v6: [0; 4],
        v4: [203, 0, 113, 131 + (index % BACKENDS) as u8],
        ifindex_v4: 1,
        ifindex_v6: 1,
        id: BackendId::new(index, 1).0,
        flags: UP,
        service: index / BACKENDS,
    }
}

fn table(service: u32) -> Arc<[Slot]> {
    (0..TABLE_SIZE).map(|slot| Slot::new(service * BACKENDS + slot % BACKENDS, false)).collect()
}

fn key(service: u32) -> FrontendKey {
    FrontendKey::V4(FrontendKeyV4 { addr: frontend(service), port: PORT, proto: 6, zero: 0 })
}

fn value(service: u32) -> Frontend {
    Frontend {
        service,
        ttl: 3600,
        rules: 0,
        interval: 0,
        refuse_at: 0,
        port: PORT,
        prefix: 128,
        zero: 0,
    }
}
