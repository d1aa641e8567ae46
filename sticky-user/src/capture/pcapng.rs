//! Packets as pcapng (draft-ietf-opsawg-pcapng), what became of each in its comment.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use sticky_common::outcome::Action;
use sticky_common::types::capture::Event;

use super::{Seen, Sink};

/// Timestamps in nanoseconds (if_tsresol), the only unit the writer has.
const NANOSECONDS: u8 = 9;
/// epb_flags: inbound.
const INBOUND: u32 = 1;

pub struct Pcapng {
    writer: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    /// Numbers in the file, by index in the kernel.
    interfaces: HashMap<u32, u32>,
}

impl Pcapng {
    pub fn new(out: Box<dyn Write>) -> io::Result<Self> {
        let program = Cow::Borrowed(concat!("sticky ", env!("CARGO_PKG_VERSION")));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(program)],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(BufWriter::new(out), section);
        Ok(Self { writer: writer.map_err(io_error)?, interfaces: HashMap::new() })
    }

    fn interface(&mut self, index: u32, name: &str) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(&index) {
            return Ok(*number);
        }
        self.writer
            .write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: Event::MAX_BYTES,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })
            .map_err(io_error)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(index, number);
        Ok(number)
    }
}

impl Sink for Pcapng {
    fn packet(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        let interface_id = self.interface(seen.event.ifindex, seen.iface)?;
        let since = seen.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id,
                timestamp: since,
                original_len: seen.event.length,
                data: Cow::Borrowed(seen.bytes),
                options: vec![
                    EnhancedPacketOption::Comment(Cow::Owned(comment(seen))),
                    EnhancedPacketOption::Flags(INBOUND),
                ],
            })
            .map_err(io_error)
            .map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }
}

/// Words of the form `name=value`, those left out that nobody knows.
fn comment(seen: &Seen<'_>) -> String {
    let verdict = match seen.outcome.action() {
        Action::Pass => "pass",
        Action::Forward => "forward",
        Action::Drop => "drop",
    };
    let direction = if seen.event.direction == Event::REPLY { "reply" } else { "in" };
    let mut text =
        format!("verdict={verdict} outcome={} direction={direction}", seen.outcome.as_str());
    // Writing to a string does not fail.
    if let Some(service) = seen.who.service {
        let _ = write!(text, " service={service}");
    }
    if let Some(backend) = seen.who.backend {
        let _ = write!(text, " backend={} id={} addr={}", backend.name, backend.id, backend.addr);
    }
    text
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
