//! What the kernel says of links, routes and neighbours.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::RouteMessageBuilder;

/// The kernel answers in pieces of up to 32 kB.
const PIECE: usize = 64 * 1024;

/// Questions in one message to the kernel; the answers must fit into the socket's receive buffer.
const AT_ONCE: usize = 64;

/// A link of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    pub bridge: bool,
    pub up: bool,
    pub mtu: u32,
    /// The XDP program on it.
    pub xdp: Option<u32>,
    /// What it sends waits in no queueing discipline.
    pub unqueued: bool,
    /// Its other end, if that is in another network namespace.
    pub peer: Option<Peer>,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The kernel's number of its namespace in this one.
    namespace: i32,
    index: u32,
    /// The largest MTU that this end may have, which the kernel lowers for native XDP at the other one.
    max_mtu: u32,
}

/// Requests over one socket. The kernel answers before it returns from what hands it a request, so nobody waits.
pub struct Netlink {
    socket: Socket,
    /// Of the last request.
    sequence: u32,
    /// Room for a piece of an answer.
    piece: Vec<u8>,
}

impl Netlink {
    pub fn connect() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, piece: Vec::with_capacity(PIECE) })
    }

    /// One that can ask about other namespaces: the kernel reads all of such a request, or refuses it.
    pub fn strict() -> io::Result<Self> {
        let netlink = Self::connect()?;
        netlink.socket.set_netlink_get_strict_chk(true)?;
        Ok(netlink)
    }

    /// All links, by index.
    pub fn links(&mut self) -> io::Result<HashMap<u32, Link>> {
        let mut links = HashMap::new();
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.insert(message.header.index, link(message));
            }
        })?;
        Ok(links)
    }

    /// The addresses at the other end of a link; none if an XDP program takes what comes in there by it. Needs
    /// [`Netlink::strict`].
    pub fn addresses_of(&mut self, peer: &Peer) -> io::Result<Vec<IpAddr>> {
        let mut message = LinkMessage::default();
        message.header.index = peer.index;
        message.attributes.push(LinkAttribute::IfNetnsId(peer.namespace));
        let mut plain = false;
        self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, |payload| {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) = payload {
                plain = link(message).xdp.is_none();
            }
        })?;
        let mut addrs = Vec::new();
        if !plain {
            return Ok(addrs);
        }
        let mut message = AddressMessage::default();
        message.header.index = peer.index;
        message.attributes.push(AddressAttribute::TargetNetNsId(peer.namespace));
        self.dump(RouteNetlinkMessage::GetAddress(message), |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && message.header.index == peer.index
            {
                addrs.extend(own(&message));
            }
        })?;
        Ok(addrs)
    }

    /// Shows each message of an answer that comes in many.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut request = Vec::new();
        self.push(&mut request, message, NLM_F_REQUEST | NLM_F_DUMP);
        self.socket.send(&request, 0)?;
        let mut done = false;
        while !done {
            self.receive(|_, payload| {
                match payload {
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The interface that packets to each of these addresses leave by; why not, if none.
    pub fn routes(&mut self, addrs: &[IpAddr]) -> io::Result<Vec<Result<u32, String>>> {
        let mut all = Vec::with_capacity(addrs.len());
        for addrs in addrs.chunks(AT_ONCE) {
            let first = self.sequence.wrapping_add(1);
            let mut requests = Vec::new();
            for addr in addrs {
                let ask = RouteNetlinkMessage::GetRoute(question(*addr));
                self.push(&mut requests, ask, NLM_F_REQUEST);
            }
            self.socket.send(&requests, 0)?;
            let mut answers = vec![None; addrs.len()];
            while answers.iter().any(Option::is_none) {
                self.receive(|sequence, payload| {
                    let at = sequence.wrapping_sub(first) as usize;
                    if let (Some(addr), Some(answer)) = (addrs.get(at), answers.get_mut(at)) {
                        *answer = Some(leaves_by(*addr, payload));
                    }
                    Ok(())
                })?;
            }
            all.extend(answers.into_iter().flatten());
        }
        Ok(all)
    }

    /// Whether the kernel waits for the link address of this neighbour; it does not any more, and asks at once when it is
    /// needed next. It asks again only after a second (`retrans_time_ms`), also where the address belongs to another by then.
    pub fn forget_unanswered(&mut self, addr: IpAddr) -> io::Result<bool> {
        let Some(Ok(device)) = self.routes(&[addr])?.pop() else { return Ok(false) };
        let one = neighbour(addr, device);
        let mut waits = false;
        self.ask(RouteNetlinkMessage::GetNeighbour(one.clone()), NLM_F_REQUEST, |payload| {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found)) = payload
            {
                waits = found.header.state == NeighbourState::Incomplete;
            }
        })?;
        if waits {
            let forget = RouteNetlinkMessage::DelNeighbour(one);
            self.ask(forget, NLM_F_REQUEST | NLM_F_ACK, |payload| {
                waits = matches!(payload, NetlinkPayload::Error(error) if error.code.is_none());
            })?;
        }
        Ok(waits)
    }

    /// One request with one answer.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut answer: impl FnMut(NetlinkPayload<RouteNetlinkMessage>),
    ) -> io::Result<()> {
        let mut request = Vec::new();
        self.push(&mut request, message, flags);
        self.socket.send(&request, 0)?;
        self.receive(|_, payload| {
            answer(payload);
            Ok(())
        })
    }

    fn push(&mut self, to: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let at = to.len();
        to.resize((at + message.buffer_len()).next_multiple_of(4), 0);
        if let Some(rest) = to.get_mut(at..) {
            message.serialize(rest);
        }
    }

    /// Shows each message of the next datagram, with the number of the request that it answers.
    fn receive(
        &mut self,
        mut each: impl FnMut(u32, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.piece.clear();
        self.socket.recv(&mut self.piece, libc::MSG_DONTWAIT)?;
        let mut rest = self.piece.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(invalid)?.length() as usize;
            let message = NetlinkMessage::deserialize(rest).map_err(invalid)?;
            each(message.header.sequence_number, message.payload)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

fn neighbour(addr: IpAddr, device: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = device;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
    message
}

fn question(addr: IpAddr) -> RouteMessage {
    match addr {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    }
}

fn leaves_by(addr: IpAddr, answer: NetlinkPayload<RouteNetlinkMessage>) -> Result<u32, String> {
    match answer {
        NetlinkPayload::Error(error) => {
            Err(format!("this host has no route to {addr} ({})", error.to_io()))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => device(&route)
            .ok_or_else(|| format!("{addr} is an address of this host, or not for one receiver")),
        _ => Err(format!("the kernel does not say where {addr} is")),
    }
}

fn device(route: &RouteMessage) -> Option<u32> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        master: None,
        bridge: false,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        xdp: None,
        unqueued: false,
        peer: None,
    };
    let (mut veth, mut index, mut namespace, mut max_mtu) = (false, None, None, 0);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Qdisc(name) => link.unqueued = name == "noqueue",
            LinkAttribute::Link(other) => index = Some(other),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(id),
            LinkAttribute::MaxMtu(mtu) => max_mtu = mtu,
            LinkAttribute::Xdp(xdp) => {
                link.xdp = xdp.iter().find_map(|x| match x {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if let (true, Some(index), Some(namespace)) = (veth, index, namespace) {
        link.peer = Some(Peer { namespace, index, max_mtu });
    }
    link
}

/// The address that the interface itself has: on a point-to-point link `Address` is the other end's.
pub fn own(message: &AddressMessage) -> Option<IpAddr> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = find(|a| if let AddressAttribute::Local(addr) = a { Some(*addr) } else { None });
    local.or_else(|| find(|a| if let AddressAttribute::Address(a) = a { Some(*a) } else { None }))
}
