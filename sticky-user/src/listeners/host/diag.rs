//! Asks the kernel for the sockets that take what comes from anywhere (sock_diag(7)). `/proc/net/tcp` has them too, but
//! behind a walk through the table of all established connections, which takes milliseconds however few there are.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket as Netlink, SocketAddr as Port, protocols::NETLINK_SOCK_DIAG};

use super::Socket;
use crate::model::Proto;

/// The kernel answers in pieces of up to 32 kB.
const PIECE: usize = 64 * 1024;

/// Those of both families.
pub(super) fn sockets(proto: Proto) -> io::Result<Vec<Socket>> {
    let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&Port::new(0, 0))?;
    let mut found = Vec::new();
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        ask(&netlink, family, proto, any)?;
        collect(&netlink, &mut found)?;
    }
    Ok(found)
}

fn ask(netlink: &Netlink, family: u8, proto: Proto, any: SocketId) -> io::Result<()> {
    let (protocol, states) = match proto {
        Proto::Tcp => (IPPROTO_TCP, StateFlags::LISTEN),
        // Bound and not connected.
        Proto::Udp => (IPPROTO_UDP, StateFlags::CLOSE),
    };
    let extensions = ExtensionFlags::empty();
    let request = InetRequest { family, protocol, extensions, states, socket_id: any };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let payload = NetlinkPayload::from(SockDiagMessage::InetRequest(request));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0).map(drop)
}

/// One dump, to its end.
fn collect(netlink: &Netlink, into: &mut Vec<Socket>) -> io::Result<()> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        netlink.recv(&mut piece, 0)?;
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(invalid)?.length() as usize;
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(invalid)?;
            match message.payload {
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => {
                    let at = &one.header.socket_id;
                    into.push(Socket {
                        addr: SocketAddr::new(at.source_address, at.source_port),
                        inode: u64::from(one.header.inode),
                    });
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
