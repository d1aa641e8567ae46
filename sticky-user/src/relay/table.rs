//! Our nftables table, which lives as long as the socket that made it: a killed sticky leaves no rule behind.

use std::collections::BTreeSet;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::rules::{self, Entry};
use crate::model::Proto;

/// A batch must fit into the socket's send buffer, of which an element takes about a hundred bytes.
const AT_ONCE: usize = 500;

/// The nf_tables subsystem, which a batch is for.
const NFTABLES: u16 = 10;

/// What went wrong in which step.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub(super) struct Error {
    what: &'static str,
    cause: io::Error,
}

/// The table and what is in its maps. Dropped, the kernel removes it (`NFT_TABLE_F_OWNER`, Linux 5.12).
pub(super) struct Table {
    name: String,
    socket: Socket,
    sequence: u32,
    entries: BTreeSet<Entry>,
    ports: BTreeSet<(Proto, u16)>,
}

impl Table {
    /// Creates it, empty.
    pub(super) fn create() -> Result<Self, Error> {
        let step = |cause| Error { what: "no netlink socket for nftables", cause };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(step)?;
        let port = socket.bind_auto().map_err(step)?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(step)?;
        // Of its own, since a successor has its table beside that of the process before it.
        let name = format!("sticky-{port}");
        let messages = rules::create(&name);
        let mut table =
            Self { name, socket, sequence: 0, entries: BTreeSet::new(), ports: BTreeSet::new() };
        table.commit("the nftables table cannot be made", messages)?;
        Ok(table)
    }

    /// What the maps say.
    pub(super) const fn entries(&self) -> &BTreeSet<Entry> {
        &self.entries
    }

    /// Makes the maps say exactly this.
    pub(super) fn set(&mut self, entries: &BTreeSet<Entry>) -> Result<(), Error> {
        let ports: BTreeSet<_> =
            entries.iter().map(|entry| (entry.frontend.proto, entry.to)).collect();
        let gone: Vec<_> = self.entries.difference(entries).copied().collect();
        let new: Vec<_> = entries.difference(&self.entries).copied().collect();
        let closed: Vec<_> = self.ports.difference(&ports).copied().collect();
        let opened: Vec<_> = ports.difference(&self.ports).copied().collect();
        let mut batches = Vec::new();
        // A key that gets another value must be gone before it comes again.
        for chunk in gone.chunks(AT_ONCE) {
            batches.push(rules::frontends(&self.name, chunk, false));
        }
        for (ports, add) in [(opened, true), (closed, false)] {
            for chunk in ports.chunks(AT_ONCE) {
                batches.push(rules::ports(&self.name, chunk, add));
            }
        }
        for chunk in new.chunks(AT_ONCE) {
            batches.push(rules::frontends(&self.name, chunk, true));
        }
        for batch in batches {
            self.commit("the nftables table cannot be changed", batch)?;
        }
        self.entries.clone_from(entries);
        self.ports = ports;
        Ok(())
    }

    /// One batch: all of it, or nothing.
    fn commit(&mut self, what: &'static str, messages: Vec<NfTablesMessage>) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let count = messages.len();
        self.push(&mut bytes, control(ControlMessage::BatchBegin), 0);
        for (at, message) in messages.into_iter().enumerate() {
            let ack = if at + 1 == count { NLM_F_ACK } else { 0 };
            let family = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            let message = NetfilterMessage::new(family, message);
            self.push(&mut bytes, message, NLM_F_CREATE | NLM_F_APPEND | ack);
        }
        let last = self.sequence;
        self.push(&mut bytes, control(ControlMessage::BatchEnd), 0);
        let sent = self.socket.send(&bytes, 0).and_then(|_| self.answer(first, last));
        sent.map_err(|cause| Error { what, cause })
    }

    fn push(&mut self, to: &mut Vec<u8>, message: NetfilterMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let at = to.len();
        to.resize(at + message.buffer_len(), 0);
        if let Some(rest) = to.get_mut(at..) {
            message.serialize(rest);
        }
    }

    /// The answers are there when the batch is sent: an error for each message refused, or else the acknowledgement of the
    /// `last`.
    fn answer(&self, first: u32, last: u32) -> io::Result<()> {
        loop {
            let mut datagram = Vec::with_capacity(8192);
            self.socket.recv(&mut datagram, nix::libc::MSG_DONTWAIT)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let number = message.header.sequence_number;
                if let NetlinkPayload::Error(error) = message.payload
                    && (first - 1..=last + 1).contains(&number)
                {
                    match error.code {
                        Some(_) => return Err(error.to_io()),
                        None if number == last => return Ok(()),
                        None => {}
                    }
                }
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES), message)
}
