//! What a packet costs at XDP.
//!
//! Each case runs in a program that restores the packet between two runs and counts the verdicts. The floor is a program
//! that sends the frame back at once.

mod services;
mod wrapper;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context as _;
use aya::programs::{Program, ProgramFd};
use etherparse::PacketBuilder;
use sticky::datapath::XdpMode;
use sticky::model::{Frontend, Proto};
use sticky_tests::topology::{NODE, Topology};

use self::services::Services;
use self::wrapper::Wrapper;
use crate::report::{Report, Row, Samples, Table};
use crate::rig::{Rig, Rules, Runner, Spec, UP};

/// Verdicts of XDP (linux/bpf.h).
const PASS: u32 = 2;
const TX: u32 = 3;
/// Offsets of the last word of a source address behind an Ethernet header.
const V4_SOURCE: u32 = 14 + 12;
const V6_SOURCE: u32 = 14 + 8 + 12;
const PORT: u16 = 80;
/// Bytes of Ethernet's shortest frame with its checksum, and what the program that measures wants to see.
const SHORTEST: usize = 66;
const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// One way through a program.
struct Case<'a> {
    name: String,
    frame: Vec<u8>,
    vary: [u32; 2],
    verdict: u32,
    target: &'a ProgramFd,
}

/// Programs that are measured.
struct Targets {
    sticky: ProgramFd,
    tx: ProgramFd,
    ipip: ProgramFd,
    pass: ProgramFd,
}

/// Measures all cases in turns.
pub fn run(programs: &Path, quick: bool) -> anyhow::Result<Report> {
    let rounds = if quick { (2, 20_000) } else { (45, 100_000) };
    let topology = Topology::new()?;
    let (_backends, addrs) = topology.backends(10)?;
    let mut rig = Rig::start(&topology.node, &["eth0"], XdpMode::Native)?;
    let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let at = |addr: IpAddr, proto| (Frontend { addr, port: PORT, proto }, 8080);
    let frontends =
        [at(NODE.into(), Proto::Tcp), at(NODE.into(), Proto::Udp), at(vip6.into(), Proto::Tcp)];
    let specs: Vec<Spec> = addrs.iter().map(|addr| Spec(*addr, UP, 1)).collect();
    rig.serve_as(&topology.node, &frontends, Rules::default(), &specs)?;
    let mut runner = Runner::new(&rig)?;
    let mut wrapper = Wrapper::load(programs)?;
    let targets = Targets {
        sticky: fd(&mut runner)?,
        tx: wrapper.base("base_tx")?,
        ipip: wrapper.base("base_ipip")?,
        pass: wrapper.base("base_pass")?,
    };
    let costs = Table {
        name: "packet".to_owned(),
        title: "a packet at XDP".to_owned(),
        unit: "ns per packet",
        base: Some(0),
        rows: in_turns(&mut wrapper, &cases(&targets, vip6), rounds)?,
    };
    let services = Services::start(&topology.node, quick)?;
    let many = Table {
        name: "services".to_owned(),
        title: "a packet at XDP among many services".to_owned(),
        unit: "ns per packet",
        base: Some(0),
        rows: in_turns(&mut wrapper, &services.cases(), rounds)?,
    };
    services.check()?;
    let walked = verified(&mut runner)?;
    let walked = Table {
        name: "verifier".to_owned(),
        title: "what the verifier walked".to_owned(),
        unit: "instructions",
        base: None,
        rows: walked
            .into_iter()
            .map(|(name, count)| Row::new(name, vec![f64::from(count)]))
            .collect(),
    };
    let (rounds, runs) = rounds;
    let notes = vec![format!("{rounds} rounds of {runs} packets a case, 10 backends a service")];
    Ok(Report { name: "l4", notes, tables: vec![costs, many, walked] })
}

/// Rows of cases, measured one after the other in each of so many rounds, so many packets each. The first of them is measured
/// again beside each: shared machines change their speed within a round.
fn in_turns(
    wrapper: &mut Wrapper,
    cases: &[Case<'_>],
    (rounds, runs): (usize, u32),
) -> anyhow::Result<Vec<Row>> {
    let mut measure = |case: &Case<'_>, runs| {
        wrapper
            .measure(case.target, &case.frame, case.vary, case.verdict, runs)
            .with_context(|| format!("case {}", case.name))
    };
    let base = cases.first().context("nothing to measure")?;
    let mut times: Vec<[Vec<f64>; 2]> = vec![Default::default(); cases.len()];
    for case in cases {
        // Warms caches, and makes the records of all clients.
        measure(case, 10 * runs)?;
    }
    for _ in 0..rounds {
        for (case, [own, beside]) in cases.iter().zip(&mut times) {
            own.push(measure(case, runs)?);
            beside.push(measure(base, runs)?);
        }
    }
    let row = |(case, [own, beside]): (&Case<'_>, [Vec<f64>; 2])| {
        let beside = Some(Samples::new(beside));
        Row { beside, ..Row::new(case.name.as_str(), own) }
    };
    Ok(cases.iter().zip(times).map(row).collect())
}

fn fd(runner: &mut Runner) -> anyhow::Result<ProgramFd> {
    match runner.program("sticky_xdp") {
        Program::Xdp(xdp) => Ok(xdp.fd()?.try_clone()?),
        _ => anyhow::bail!("sticky_xdp is no XDP program"),
    }
}

fn verified(runner: &mut Runner) -> anyhow::Result<Vec<(&'static str, u32)>> {
    let mut all = Vec::new();
    for name in ["sticky_xdp", "sticky_xdp_generic", "sticky_deliver", "sticky_reply"] {
        let info = match runner.program(name) {
            Program::Xdp(xdp) => {
                if xdp.fd().is_err() {
                    xdp.load()?;
                }
                xdp.info()?
            }
            Program::SchedClassifier(tc) => {
                tc.load()?;
                tc.info()?
            }
            _ => continue,
        };
        all.push((name, info.verified_instruction_count().unwrap_or(0)));
    }
    Ok(all)
}

fn cases(targets: &Targets, vip6: Ipv6Addr) -> Vec<Case<'_>> {
    let client = Ipv4Addr::new(198, 18, 0, 1);
    let client6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    let v4 = || PacketBuilder::ethernet2(MAC[0], MAC[1]).ipv4(client.octets(), NODE.octets(), 64);
    let v6 = || PacketBuilder::ethernet2(MAC[0], MAC[1]).ipv6(client6.octets(), vip6.octets(), 64);
    let mut ack = Vec::new();
    let mut syn = Vec::new();
    let mut udp = Vec::new();
    let mut other = Vec::new();
    let mut ack6 = Vec::new();
    let payload = [0_u8; 16];
    let written = [
        v4().tcp(40_000, PORT, 1000, 64_240).ack(7777).write(&mut ack, &payload),
        v4().tcp(40_000, PORT, 1000, 64_240).syn().write(&mut syn, &[]),
        v4().udp(40_000, PORT).write(&mut udp, &payload),
        v4().tcp(40_000, 81, 1000, 64_240).ack(7777).write(&mut other, &payload),
        v6().tcp(40_000, PORT, 1000, 64_240).ack(7777).write(&mut ack6, &payload),
    ];
    assert!(written.iter().all(Result::is_ok), "a vector takes any write");
    let case = |name: &str, frame: &Vec<u8>, vary, verdict, target| {
        let mut frame = frame.clone();
        // Shorter ones are filled up on the link.
        frame.resize(frame.len().max(SHORTEST), 0);
        Case { name: name.to_owned(), frame, vary, verdict, target }
    };
    let Targets { sticky, tx, ipip, pass } = targets;
    let one = [V4_SOURCE, 0];
    let one6 = [V6_SOURCE, 0];
    vec![
        case("immediate XDP_TX (the floor)", &ack, one, TX, tx),
        case("bare IPIP push", &ack, one, TX, ipip),
        case("immediate XDP_PASS", &ack, one, PASS, pass),
        case("not ours", &other, one, PASS, sticky),
        case("TCP, 1 client", &ack, one, PASS, sticky),
        case("TCP, 64 Ki clients", &ack, [V4_SOURCE, 0xffff], PASS, sticky),
        case("TCP, 512 Ki clients", &ack, [V4_SOURCE, 0x7_ffff], PASS, sticky),
        case("TCP SYN, 1 client", &syn, one, PASS, sticky),
        case("TCP SYN, 64 Ki clients", &syn, [V4_SOURCE, 0xffff], PASS, sticky),
        case("TCP SYN, 512 Ki clients", &syn, [V4_SOURCE, 0x7_ffff], PASS, sticky),
        case("UDP, 1 client", &udp, one, PASS, sticky),
        case("TCP over IPv6, 1 client", &ack6, one6, PASS, sticky),
        case("TCP over IPv6, 64 Ki addresses", &ack6, [V6_SOURCE, 0xffff], PASS, sticky),
    ]
}
