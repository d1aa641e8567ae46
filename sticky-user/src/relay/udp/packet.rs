//! Datagrams together with the address of ours that they come to or leave from.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The longest datagram.
const LONGEST: usize = 65_535;

thread_local! {
    /// One for all sockets of a thread: it is filled and emptied without waiting.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LONGEST].into());
}

pub(super) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> io::Result<T>) -> io::Result<T> {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => work(&mut buffer),
        Err(_) => work(&mut vec![0; LONGEST]),
    })
}

/// A socket on all addresses of a family.
pub(super) struct Listener {
    socket: UdpSocket,
    v4: bool,
}

impl Listener {
    pub(super) fn open(v4: bool) -> io::Result<Self> {
        let (domain, any) = match v4 {
            true => (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            false => (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if v4 {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, v4 })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Waits for a datagram, and hands it over with its sender and the address that it came to.
    pub(super) async fn receive(
        &self,
        mut take: impl FnMut(&[u8], (SocketAddr, IpAddr)),
    ) -> io::Result<()> {
        let receive = || {
            with_buffer(|buffer| {
                let mut space = cmsg_space!(nix::libc::in6_pktinfo);
                let (length, from, to) = {
                    let mut parts = [IoSliceMut::new(buffer)];
                    let message = recvmsg::<SockaddrStorage>(
                        self.socket.as_raw_fd(),
                        &mut parts,
                        Some(&mut space),
                        MsgFlags::empty(),
                    )?;
                    let to = message.cmsgs()?.find_map(|control| match control {
                        ControlMessageOwned::Ipv4PacketInfo(info) => {
                            Some(IpAddr::V4(u32::from_be(info.ipi_addr.s_addr).into()))
                        }
                        ControlMessageOwned::Ipv6PacketInfo(info) => {
                            Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()))
                        }
                        _ => None,
                    });
                    (message.bytes, message.address.and_then(address), to)
                };
                if let (Some(from), Some(to)) = (from, to) {
                    take(buffer.get(..length).unwrap_or_default(), (from, to));
                }
                Ok(())
            })
        };
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// Sends from `here` to `to`, or not at all.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr, here: IpAddr) -> io::Result<()> {
        let parts = [IoSlice::new(bytes)];
        let to = SockaddrStorage::from(to);
        let send = |control: &[ControlMessage<'_>]| {
            let fd = self.socket.as_raw_fd();
            Ok(sendmsg(fd, &parts, control, MsgFlags::empty(), Some(&to)).map(|_| ())?)
        };
        match here {
            IpAddr::V4(here) if self.v4 => {
                let from = nix::libc::in_addr { s_addr: here.to_bits().to_be() };
                let any = nix::libc::in_addr { s_addr: 0 };
                let info =
                    nix::libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: any };
                send(&[ControlMessage::Ipv4PacketInfo(&info)])
            }
            IpAddr::V6(here) => {
                let from = nix::libc::in6_addr { s6_addr: here.octets() };
                let info = nix::libc::in6_pktinfo { ipi6_addr: from, ipi6_ifindex: 0 };
                send(&[ControlMessage::Ipv6PacketInfo(&info)])
            }
            IpAddr::V4(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
