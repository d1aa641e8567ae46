//! Packets with any source: first packets of clients that never answer.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Context;
use etherparse::PacketBuilder;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use sticky_common::checksum;

use crate::netns::Netns;

/// Packets handed to the kernel in one call.
const BATCH: usize = 64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SYN.
    Syn,
    /// A datagram that says hello.
    Datagram,
}

/// A raw socket of a namespace, and the packet that it sends with ever other sources.
#[derive(Debug)]
pub struct Spoof {
    socket: Socket,
    packet: Vec<u8>,
    /// Offset of the transport header, and of the checksum in it.
    transport: usize,
    check: usize,
    v4: bool,
}

impl Spoof {
    /// Packets to `to`.
    pub fn new(netns: &Netns, to: SocketAddr, kind: Kind) -> anyhow::Result<Self> {
        let v4 = to.is_ipv4();
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        // IPPROTO_RAW: with the header included, nothing received.
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let socket = netns.enter(|| Socket::new(domain, Type::RAW, raw))??;
        let port = if v4 { to.port() } else { 0 };
        socket.connect(&SockAddr::from(SocketAddr::new(to.ip(), port)))?;
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        let builder = match to.ip() {
            IpAddr::V4(ip) => PacketBuilder::ipv4([0; 4], ip.octets(), 64),
            IpAddr::V6(ip) => PacketBuilder::ipv6([0; 16], ip.octets(), 64),
        };
        let mut packet = Vec::new();
        match kind {
            Kind::Syn => builder.tcp(0, to.port(), 1, 64_240).syn().write(&mut packet, b"")?,
            Kind::Datagram => builder.udp(0, to.port()).write(&mut packet, b"hello")?,
        }
        let transport = if v4 { 20 } else { 40 };
        let check = transport + if kind == Kind::Syn { 16 } else { 6 };
        Ok(Self { socket, packet, transport, check, v4 })
    }

    /// Sends one packet from each source.
    pub fn send(&self, sources: impl IntoIterator<Item = SocketAddr>) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        for source in sources {
            batch.push(self.from(source));
            if batch.len() == BATCH {
                self.flush(&batch)?;
                batch.clear();
            }
        }
        self.flush(&batch)
    }

    fn from(&self, source: SocketAddr) -> Vec<u8> {
        let mut packet = self.packet.clone();
        let at = self.check;
        let mut check = u16::from_be_bytes([packet[at], packet[at + 1]]);
        check = checksum::replace16(check, 0, source.port());
        match source.ip() {
            IpAddr::V4(ip) if self.v4 => {
                check = checksum::replace32(check, [0; 4], ip.octets());
                packet[12..16].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) if !self.v4 => {
                check = checksum::replace128(check, &[0; 16], &ip.octets());
                packet[8..24].copy_from_slice(&ip.octets());
            }
            // A source of the other family has no packet.
            _ => {}
        }
        packet[self.transport..self.transport + 2].copy_from_slice(&source.port().to_be_bytes());
        packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
        packet
    }

    fn flush(&self, batch: &[Vec<u8>]) -> anyhow::Result<()> {
        let slices: Vec<_> = batch.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let mut sent = 0;
        while sent < slices.len() {
            let left = &slices[sent..];
            let mut headers = MultiHeaders::<()>::preallocate(left.len(), None);
            let none = vec![None::<()>; left.len()];
            let fd = self.socket.as_raw_fd();
            let done = sendmmsg(fd, &mut headers, left, none, [], MsgFlags::empty())
                .context("cannot send")?;
            sent += done.count();
        }
        Ok(())
    }
}
