//! `sticky capture`: every packet with what became of it, whoever reads the file.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use aya::maps::{Array, Map, MapData};
use nix::sys::signal::Signal;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, OptionCode, PcapBlockOwned, PcapError, PcapNGReader};
use sticky_common::ABI_VERSION;
use sticky_tests::demo::{HTTP_PORT, LINE_PORT, backend_name};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::names::TempDir;
use sticky_tests::process::Process;
use sticky_tests::topology::{NODE, client, vip};
use sticky_tests::wait;

use crate::fixture::FileNode;

const LIMIT: Duration = Duration::from_secs(10);

/// A packet of a file.
#[derive(Debug)]
struct Saved {
    iface: String,
    words: HashMap<String, String>,
    length: u32,
    bytes: Vec<u8>,
}

impl Saved {
    fn is(&self, name: &str, value: &str) -> bool {
        self.words.get(name).is_some_and(|there| there == value)
    }

    /// Source and destination of an IPv4 frame.
    fn addresses(&self) -> [[u8; 4]; 2] {
        [26, 30].map(|at| self.bytes[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Reads a file with a parser that is not the writer's.
fn read(path: &Path) -> anyhow::Result<Vec<Saved>> {
    let mut reader = PcapNGReader::new(1 << 20, std::fs::File::open(path)?)?;
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                match block {
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        assert_eq!(interface.if_tsresol, 9);
                        let name = interface.options.iter().find(|o| o.code == OptionCode::IfName);
                        let name = name.context("an interface without a name")?.as_str()?;
                        interfaces.push(name.to_owned());
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let comment = packet.options.iter().find(|o| o.code == OptionCode::Comment);
                        let comment = comment.context("a packet without a comment")?.as_str()?;
                        let words = comment.split(' ');
                        packets.push(Saved {
                            iface: interfaces[packet.if_id as usize].clone(),
                            words: words
                                .filter_map(|word| word.split_once('='))
                                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                                .collect(),
                            length: packet.origlen,
                            bytes: packet.data[..packet.caplen as usize].to_vec(),
                        });
                    }
                    PcapBlockOwned::NG(_) => {}
                    _ => anyhow::bail!("no pcapng"),
                }
                reader.consume(offset);
            }
            Err(PcapError::Eof) => return Ok(packets),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|e| anyhow::anyhow!("{e:?}"))?
            }
            Err(e) => anyhow::bail!("{e:?}"),
        }
    }
}

fn start(node: &FileNode, args: &[&str]) -> anyhow::Result<Process> {
    let mut process =
        Process::spawn("capture", &node.sticky.command(&[&["capture"], args].concat()))?;
    process.wait_line(LIMIT, 0, |line| line.contains("capturing"))?;
    Ok(process)
}

fn interrupt(mut capture: Process) -> anyhow::Result<()> {
    // The last packets are on their way.
    std::thread::sleep(Duration::from_millis(100));
    capture.signal(Signal::SIGINT)?;
    anyhow::ensure!(capture.wait(LIMIT)?.success(), "{}", capture.tail(5));
    Ok(())
}

#[test]
fn chosen_pinned_dropped_and_answered_packets() -> anyhow::Result<()> {
    let node = FileNode::demo(2, 2)?;
    let dir = TempDir::new()?;
    let file = dir.join("all.pcapng");
    let capture = start(&node, &["-w", &file.to_string_lossy()])?;
    let visit = |index| load::visit(&node.net.clients, index..index + 1, vip(HTTP_PORT));
    let instance = visit(1)?[&1].instance.clone();
    visit(1)?;
    node.scale(0)?;
    let refused = node.net.clients.enter(|| {
        LineConnection::open_within(client(2), vip(LINE_PORT), Duration::from_millis(300))
    })?;
    assert!(refused.is_err(), "nobody is up");
    interrupt(capture)?;

    let packets = read(&file)?;
    let of = |outcome: &str| -> Vec<&Saved> {
        packets.iter().filter(|packet| packet.is("outcome", outcome)).collect()
    };
    for (outcome, verdict, direction) in [
        ("new", "forward", "in"),
        ("pinned", "forward", "in"),
        ("hash", "forward", "in"),
        ("no_backend", "drop", "in"),
        ("reply", "forward", "reply"),
    ] {
        let found = of(outcome);
        assert!(!found.is_empty(), "no {outcome} in {packets:?}");
        for packet in found {
            assert!(
                packet.is("verdict", verdict) && packet.is("direction", direction),
                "{packet:?}"
            );
            assert!(packet.is("service", "demo"), "{packet:?}");
            assert_eq!(packet.length as usize, packet.bytes.len());
        }
    }
    let backend = |address: [u8; 4]| backend_name(&address.into());
    for packet in of("new").iter().chain(&of("pinned")).chain(&of("hash")) {
        assert_eq!((packet.addresses()[1], packet.iface.as_str()), (NODE.octets(), "eth0"));
        assert_eq!(packet.words["addr"], format!("{}:{HTTP_PORT}", &instance["backend-".len()..]));
    }
    for packet in of("reply") {
        assert_eq!(
            (backend(packet.addresses()[0]), packet.iface.as_str()),
            (instance.clone(), "eth2")
        );
        assert_eq!(packet.words["addr"], format!("{}:{HTTP_PORT}", &instance["backend-".len()..]));
    }
    assert!(of("no_backend").iter().all(|packet| !packet.words.contains_key("backend")));
    assert!(of("not_ours").is_empty(), "tcpdump sees these");
    Ok(())
}

#[test]
fn without_the_control_plane_and_only_what_is_asked_for() -> anyhow::Result<()> {
    let mut node = FileNode::demo(2, 2)?;
    node.sticky.kill();
    let dir = TempDir::new()?;
    let file = dir.join("some.pcapng");
    let file_name = file.to_string_lossy().into_owned();
    let visit = |node: &FileNode, clients: std::ops::Range<u32>| {
        load::visit(&node.net.clients, clients, vip(HTTP_PORT)).map(drop)
    };

    // Of one client, both ways, and no more than headers.
    let only = client(7).to_string();
    let args = ["-w", &file_name, "--client", &only, "--service", "demo", "--snaplen", "64"];
    let capture = start(&node, &args)?;
    let second = node.sticky.sticky(&["capture"]).expect_err("one capture at a time").to_string();
    assert!(
        second.contains(&capture.id().to_string()) || second.contains("captures already"),
        "{second}"
    );
    visit(&node, 5..10)?;
    interrupt(capture)?;
    let packets = read(&file)?;
    assert!(
        packets.iter().any(|p| p.is("outcome", "new"))
            && packets.iter().any(|p| p.is("outcome", "reply"))
    );
    for packet in &packets {
        assert!(packet.addresses().contains(&[198, 18, 0, 7]), "{packet:?}");
        assert!(packet.bytes.len() <= 64 && packet.is("service", "demo"), "{packet:?}");
    }
    assert!(packets.iter().any(|packet| packet.length > 64));

    // One outcome on one interface, and it ends by itself.
    let args = ["-w", &file_name, "--outcome", "reply", "--iface", "eth2", "--count", "3"];
    let mut capture = start(&node, &args)?;
    visit(&node, 5..10)?;
    assert!(capture.wait(LIMIT)?.success());
    let packets = read(&file)?;
    assert_eq!(packets.len(), 3);
    assert!(packets.iter().all(|packet| packet.is("outcome", "reply") && packet.iface == "eth2"));

    // Killed, it leaves nothing behind.
    let mut capture = start(&node, &["-w", &file_name])?;
    capture.kill();
    let maps = node.sticky.pin_dir().join(format!("v{ABI_VERSION}/maps"));
    let until: Array<MapData, u64> =
        Array::try_from(Map::Array(MapData::from_pin(maps.join("CAPTURE_UNTIL"))?))?;
    assert_ne!(until.get(&0, 0)?, 0);
    wait::until_true("the capture to run out", LIMIT, || {
        visit(&node, 1..2)?;
        Ok(until.get(&0, 0)? == 0)
    })?;

    let unknown =
        node.sticky.sticky(&["capture", "--service", "dmeo"]).expect_err("no such service");
    assert!(unknown.to_string().contains("exit status: 2"), "{unknown}");
    node.sticky.sticky(&["detach"])?;
    let nothing = node.sticky.sticky(&["capture"]).expect_err("nothing is loaded").to_string();
    assert!(nothing.contains("nothing of this version of sticky is loaded"), "{nothing}");
    Ok(())
}
