//! Cases, and how one is tried.

use std::collections::HashSet;

use sticky_common::outcome::Outcome;

use super::maps::Maps;
use super::packet::Packet;
use super::places::{FAMILIES, Family, Over, octets};
use super::world::{Counts, Place, World, room_in_tick};

const XDP_PASS: u32 = 2;

/// A change between two packets.
type Change = Box<dyn Fn(&mut World) + Send + Sync>;

/// Which way a frame comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enters {
    Client,
    /// Goes through XDP only, which is to pass it.
    Xdp,
    /// By the client's link and not by `BPF_PROG_TEST_RUN`, which takes a page at most.
    ClientWire,
    Backend,
}

enum Step {
    Frame {
        enters: Enters,
        frame: Vec<u8>,
        counted: Vec<Outcome>,
        /// Index of the backend that it was sent to.
        towards: Option<u32>,
        out: Option<(Place, Vec<u8>)>,
    },
    Change(Change),
}

/// `{name, maps, packets in, outcomes, packets out, counters}`.
pub struct Case {
    name: String,
    maps: Maps,
    steps: Vec<Step>,
}

impl Case {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), maps: Maps::default(), steps: Vec::new() }
    }

    pub fn maps(mut self, maps: Maps) -> Self {
        self.maps = maps;
        self
    }

    /// Something happens between two packets.
    pub fn then(mut self, change: impl Fn(&mut World) + Send + Sync + 'static) -> Self {
        self.steps.push(Step::Change(Box::new(change)));
        self
    }

    /// Other maps from here on.
    pub fn swap(self, maps: Maps) -> Self {
        self.then(move |w| w.load(&maps))
    }

    fn step(
        mut self,
        enters: Enters,
        frame: Vec<u8>,
        counted: &[Outcome],
        towards: Option<u32>,
        out: Option<(Place, Vec<u8>)>,
    ) -> Self {
        let counted = counted.to_vec();
        self.steps.push(Step::Frame { enters, frame, counted, towards, out });
        self
    }

    /// A client's packet reaches a backend as `out`.
    pub fn sent(self, packet: &Packet, why: Outcome, index: u32, out: &Packet) -> Self {
        let out = Some((Place::Backend, out.frame(Over::ToBackend)));
        self.step(Enters::Client, packet.frame(Over::FromClient), &[why], Some(index), out)
    }

    /// The same, with nothing changed but what forwarding changes.
    pub fn forwarded(self, packet: &Packet, why: Outcome, index: u32) -> Self {
        let out = packet.delivered(family(packet), index);
        self.sent(packet, why, index, &out)
    }

    /// The same over the wire, for frames of any length.
    pub fn forwarded_by_wire(self, packet: &Packet, why: Outcome, index: u32) -> Self {
        let out = packet.delivered(family(packet), index).frame(Over::ToBackend);
        let frame = packet.frame(Over::FromClient);
        self.step(Enters::ClientWire, frame, &[why], Some(index), Some((Place::Backend, out)))
    }

    /// A client's packet gets an answer of our own; `towards` says to which backend XDP had sent it.
    pub fn answered(
        self,
        packet: &Packet,
        why: &[Outcome],
        towards: Option<u32>,
        out: &Packet,
    ) -> Self {
        let out = Some((Place::Client, out.frame(Over::ToClient)));
        self.step(Enters::Client, packet.frame(Over::FromClient), why, towards, out)
    }

    /// A client's packet ends here.
    pub fn dropped(self, packet: &Packet, why: &[Outcome], towards: Option<u32>) -> Self {
        self.step(Enters::Client, packet.frame(Over::FromClient), why, towards, None)
    }

    /// A client's packet passes to the host.
    pub fn passed(self, packet: &Packet) -> Self {
        let frame = packet.frame(Over::FromClient);
        self.passed_frame(frame)
    }

    pub fn passed_frame(self, frame: Vec<u8>) -> Self {
        let out = Some((Place::Host, frame.clone()));
        self.step(Enters::Client, frame, &[Outcome::NotOurs], None, out)
    }

    /// A frame that XDP does not understand and passes as it came. The kernel drops most of these before anyone sees them.
    pub fn unread_frame(self, frame: Vec<u8>) -> Self {
        self.step(Enters::Xdp, frame, &[Outcome::NotOurs], None, None)
    }

    /// A client's frame reaches a backend as `out`.
    pub fn sent_frame(self, frame: Vec<u8>, why: Outcome, index: u32, out: Vec<u8>) -> Self {
        self.step(Enters::Client, frame, &[why], Some(index), Some((Place::Backend, out)))
    }

    /// A backend's packet reaches the client as `out`.
    pub fn replied(self, packet: &Packet, out: &Packet) -> Self {
        let out = Some((Place::Client, out.frame(Over::ToClient)));
        self.step(Enters::Backend, packet.frame(Over::FromBackend), &[Outcome::Reply], None, out)
    }

    /// A backend's packet gets an answer of our own.
    pub fn reply_answered(self, packet: &Packet, why: &[Outcome], out: &Packet) -> Self {
        let out = Some((Place::Backend, out.frame(Over::ToBackend)));
        self.step(Enters::Backend, packet.frame(Over::FromBackend), why, None, out)
    }

    /// A backend's packet passes to the host.
    pub fn reply_passed(self, packet: &Packet) -> Self {
        self.reply_passed_frame(packet.frame(Over::FromBackend))
    }

    pub fn reply_passed_frame(self, frame: Vec<u8>) -> Self {
        let out = Some((Place::Host, frame.clone()));
        self.step(Enters::Backend, frame, &[], None, out)
    }

    fn run(&self, world: &mut World) -> Result<(), String> {
        world.reset(&self.maps);
        self.run_elsewhere(world)?;
        // What is said of a flow of this very tick.
        room_in_tick(100);
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Change(change) => change(world),
                Step::Frame { enters, frame, counted, towards, out } => {
                    let before = world.counts();
                    match enters {
                        Enters::Client => world.client_sends(frame),
                        Enters::Xdp => passes_as_it_came(world, frame)?,
                        Enters::ClientWire => world.client_sends_by_wire(frame),
                        Enters::Backend => world.backend_sends(frame),
                    }
                    let got = world.collect(usize::from(out.is_some()));
                    let after = world.counts();
                    let want: Vec<_> = out.iter().cloned().collect();
                    if got != want {
                        return Err(format!(
                            "packet {at}: {}\nin   {}\n{}",
                            counted_text(&before, &after),
                            hex(frame),
                            compare(&got, &want)
                        ));
                    }
                    let wanted = expected(&before, counted, *towards, frame.len());
                    if after != wanted {
                        return Err(format!(
                            "packet {at}: {}, not {}",
                            counted_text(&before, &after),
                            counted_text(&before, &wanted)
                        ));
                    }
                }
            }
        }
        match world.collect(0) {
            late if late.is_empty() => Ok(()),
            late => Err(format!("came out later: {}", compare(&late, &[]))),
        }
    }

    /// Every frame again with addresses that are none of ours: it passes as it came.
    fn run_elsewhere(&self, world: &mut World) -> Result<(), String> {
        for step in &self.steps {
            let Step::Frame { enters, frame, .. } = step else { continue };
            let before = world.counts();
            if *enters == Enters::Backend {
                let mut frame = frame.clone();
                for family in FAMILIES {
                    for index in super::places::BACKENDS {
                        replace(
                            &mut frame,
                            &octets(family.backend(index)),
                            &octets(family.backend(9)),
                        );
                    }
                }
                world.backend_sends(&frame);
                let got = world.collect(1);
                if got != [(Place::Host, frame)] {
                    return Err(format!("from no backend: {}", compare(&got, &[])));
                }
                if world.counts() != before {
                    return Err("from no backend, and counted".into());
                }
                continue;
            }
            let mut frame = frame.clone();
            for family in FAMILIES {
                for vip in [family.vip(), family.second_vip()] {
                    replace(&mut frame, &octets(vip), &octets(family.other()));
                }
            }
            if frame.len() > 3000 {
                continue;
            }
            passes_as_it_came(world, &frame).map_err(|e| format!("elsewhere: {e}"))?;
            let after = world.counts();
            if after != expected(&before, &[Outcome::NotOurs], None, 0) {
                return Err(format!("elsewhere: {}", counted_text(&before, &after)));
            }
        }
        Ok(())
    }
}

fn passes_as_it_came(world: &World, frame: &[u8]) -> Result<(), String> {
    let ran = world.choose(frame);
    if ran.verdict == XDP_PASS && ran.handover.is_empty() && ran.frame == frame {
        return Ok(());
    }
    Err(format!("{ran:x?} of {}", hex(frame)))
}

fn family(packet: &Packet) -> Family {
    if packet.src.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn replace(frame: &mut [u8], old: &[u8], new: &[u8]) {
    for at in 0..frame.len().saturating_sub(old.len() - 1) {
        if frame[at..].starts_with(old) {
            frame[at..at + old.len()].copy_from_slice(new);
        }
    }
}

/// The counts after a packet; the commonest outcome has no counter but the backend's.
fn expected(before: &Counts, counted: &[Outcome], towards: Option<u32>, len: usize) -> Counts {
    let mut after = before.clone();
    for outcome in counted.iter().filter(|o| **o != Outcome::Hash) {
        after.outcomes[*outcome as usize] += 1;
    }
    if let Some(index) = towards {
        after.towards[index as usize].0 += 1;
        after.towards[index as usize].1 += len as u64;
    }
    after
}

fn counted_text(before: &Counts, after: &Counts) -> String {
    let changed = |o: &&Outcome| before.outcomes[**o as usize] != after.outcomes[**o as usize];
    let outcomes: Vec<_> = Outcome::ALL.iter().filter(changed).map(|o| o.as_str()).collect();
    let towards: Vec<_> = before
        .towards
        .iter()
        .zip(&after.towards)
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(i, (a, b))| format!("{} packet, {} bytes to {i}", b.0 - a.0, b.1 - a.1))
        .collect();
    format!("counted {outcomes:?} {towards:?}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(200).map(|b| format!("{b:02x}")).collect()
}

fn compare(got: &[(Place, Vec<u8>)], want: &[(Place, Vec<u8>)]) -> String {
    let line = |(place, frame): &(Place, Vec<u8>)| {
        format!("{place:?}, {} bytes: {}", frame.len(), hex(frame))
    };
    let lines = |all: &[_]| all.iter().map(line).collect::<Vec<_>>().join("\n     ");
    format!("got  {}\nwant {}", lines(got), lines(want))
}

/// Tries all cases with an XDP program and reports all failures.
pub fn try_all(program: &'static str, topics: &[Vec<Case>]) {
    let cases: Vec<&Case> = topics.iter().flatten().collect();
    let names: HashSet<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    World::enter(program, |world| {
        let mut failed = Vec::new();
        for case in &cases {
            if let Err(why) = case.run(world) {
                failed.push(format!("{}: {why}", case.name));
                world.collect(0);
            }
        }
        let (count, failed_count) = (cases.len(), failed.len());
        assert!(failed.is_empty(), "{failed_count} of {count} cases:\n{}", failed.join("\n"));
        println!("{count} cases");
    });
}
