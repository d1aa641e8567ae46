//! What the kernel remembers of redirected UDP: it sends the later datagrams of a client where it sent the first, also to
//! where nobody is any more.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::model::{Frontend, Proto};

/// The kernel answers in pieces of up to 32 kB.
const PIECE: usize = 64 * 1024;

/// Has the kernel forget what it sends elsewhere than to these ports of ours; with none, all that is for the frontend.
pub(super) fn forget(frontends: &BTreeMap<Frontend, Option<u16>>) -> io::Result<()> {
    for (v4, family) in [(true, NetfilterProtoFamily::IPv4), (false, NetfilterProtoFamily::IPv6)] {
        if !frontends.keys().any(|frontend| frontend.addr.is_ipv4() == v4) {
            continue;
        }
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let stale: Vec<_> = dump(&socket, family)?
            .into_iter()
            .filter_map(|attributes| stale(attributes, frontends))
            .collect();
        for tuple in stale {
            // One that has just run out is no longer there to be forgotten; there is no answer.
            send(&socket, family, NLM_F_REQUEST, ConntrackMessage::Delete(vec![tuple]))?;
        }
    }
    Ok(())
}

/// The tuple by which an entry is deleted, if it is for one of the frontends and goes elsewhere.
fn stale(
    attributes: Vec<ConntrackAttribute>,
    frontends: &BTreeMap<Frontend, Option<u16>>,
) -> Option<ConntrackAttribute> {
    let mut original = None;
    let mut answers_from = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => answers_from = ports(&tuple).0,
            _ => {}
        }
    }
    let original = original?;
    let addr = original.iter().find_map(|part| match part {
        Tuple::Ip(ip) => ip.iter().find_map(|ip| match ip {
            IPTuple::DestinationAddress(addr) => Some(*addr),
            _ => None,
        }),
        _ => None,
    })?;
    let to = frontends.get(&frontend(addr, &original)?)?;
    (to.is_none() || *to != answers_from).then_some(ConntrackAttribute::CtaTupleOrig(original))
}

fn frontend(addr: IpAddr, tuple: &[Tuple]) -> Option<Frontend> {
    let udp = tuple.iter().any(|part| match part {
        Tuple::Proto(proto) => {
            proto.iter().any(|p| matches!(p, ProtoTuple::Protocol(Protocol::Udp)))
        }
        _ => false,
    });
    let port = ports(tuple).1?;
    udp.then_some(Frontend { addr, port, proto: Proto::Udp })
}

/// Source and destination.
fn ports(tuple: &[Tuple]) -> (Option<u16>, Option<u16>) {
    let mut ports = (None, None);
    for part in tuple {
        let Tuple::Proto(proto) = part else { continue };
        for part in proto {
            match part {
                ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                _ => {}
            }
        }
    }
    ports
}

fn send(
    socket: &Socket,
    family: NetfilterProtoFamily,
    flags: u16,
    message: ConntrackMessage,
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(|_| ())
}

/// All entries of a family.
fn dump(socket: &Socket, family: NetfilterProtoFamily) -> io::Result<Vec<Vec<ConntrackAttribute>>> {
    send(socket, family, NLM_F_REQUEST | NLM_F_DUMP, ConntrackMessage::Get(Vec::new()))?;
    let mut all = Vec::new();
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        socket.recv(&mut piece, 0)?;
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
                .length();
            // Of protocols that cannot be read, none is ours.
            match NetlinkMessage::<NetfilterMessage>::deserialize(rest).map(|m| m.payload) {
                Ok(NetlinkPayload::Done(_)) => return Ok(all),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => {
                    if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(entry)) =
                        message.inner
                    {
                        all.push(entry);
                    }
                }
                Ok(_) | Err(_) => {}
            }
            rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a client's datagrams to port 53 of the frontend, answered from this port.
    fn entry(protocol: Protocol, answers_from: u16) -> Vec<ConntrackAttribute> {
        let ends = |from: &str, to: &str| {
            Tuple::Ip(vec![
                IPTuple::SourceAddress(from.parse().unwrap()),
                IPTuple::DestinationAddress(to.parse().unwrap()),
            ])
        };
        let ports = |from, to| {
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol),
                ProtoTuple::SourcePort(from),
                ProtoTuple::DestinationPort(to),
            ])
        };
        vec![
            ConntrackAttribute::CtaTupleOrig(vec![
                ends("198.51.100.7", "198.51.100.1"),
                ports(999, 53),
            ]),
            ConntrackAttribute::CtaTupleReply(vec![
                ends("127.0.0.1", "198.51.100.7"),
                ports(answers_from, 999),
            ]),
        ]
    }

    #[test]
    fn only_what_goes_elsewhere_is_forgotten() {
        let frontend =
            Frontend { addr: "198.51.100.1".parse().unwrap(), port: 53, proto: Proto::Udp };
        let ours = BTreeMap::from([(frontend, Some(40_000))]);
        assert_eq!(stale(entry(Protocol::Udp, 40_000), &ours), None);
        assert_eq!(stale(entry(Protocol::Tcp, 1), &ours), None);
        let other = entry(Protocol::Udp, 40_001);
        assert_eq!(stale(other.clone(), &ours).as_ref(), other.first());
        let all = BTreeMap::from([(frontend, None)]);
        assert!(stale(entry(Protocol::Udp, 40_000), &all).is_some());
        let another = BTreeMap::from([(Frontend { port: 54, ..frontend }, None)]);
        assert_eq!(stale(other, &another), None);
    }
}
