//! The messages that make our nftables table and change it: what is for a frontend goes to a port of the relay.
//!
//! ```text
//! table inet sticky-ID {
//!   flags owner
//!   map v4 { type ipv4_addr . inet_proto . inet_service : inet_service }
//!   map v6 { type ipv6_addr . inet_proto . inet_service : inet_service }
//!   set ports { type inet_proto . inet_service }
//!   chain output     { type nat hook output priority -101; redirect to :ip daddr . meta l4proto . th dport map @v4; … }
//!   chain prerouting { type nat hook prerouting priority -101; the same }
//!   chain guard      { type filter hook input priority 0; meta l4proto . th dport @ports ct status & dnat == 0 reject }
//! }
//! ```
//!
//! Numbers are those of linux/netfilter/nf_tables.h. The kernel keeps addresses and ports in network order and fills each part
//! of a concatenated key up to four bytes.

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber,
    InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload,
    Register, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use crate::model::{Frontend, Proto};

/// Before Docker's rules, which are at -100: of all NAT rules the first that matches counts.
const BEFORE_DOCKER: i32 = -101;

/// Bases of a payload: the headers of the network and of the transport layer.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Data types as the `nft` program numbers them, six bits each in a concatenation; they only serve to print.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;

/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const DST_NAT: u32 = 1 << 5;

/// A map of frontends, for one family of addresses.
struct Map {
    name: &'static str,
    /// `NFPROTO_…`
    family: u8,
    addr_type: u32,
    /// Bytes of an address.
    addr: u32,
    /// Where the destination address is in the header.
    offset: u32,
    /// Register of the protocol, that of the port comes after it.
    proto: Register,
    port: Register,
}

const V4: Map = Map {
    name: "v4",
    family: 2,
    addr_type: IPV4_ADDR,
    addr: 4,
    offset: 16,
    proto: Register::Reg32_01,
    port: Register::Reg32_02,
};
const V6: Map = Map {
    name: "v6",
    family: 10,
    addr_type: IPV6_ADDR,
    addr: 16,
    offset: 24,
    proto: Register::Reg32_04,
    port: Register::Reg32_05,
};
/// The relay's own ports.
const PORTS: &str = "ports";

/// A frontend, and the port of the relay that takes what is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) frontend: Frontend,
    pub(super) to: u16,
}

/// All of the table, with empty maps.
pub(super) fn create(table: &str) -> Vec<NfTablesMessage> {
    let mut out = vec![
        NfTablesMessage::NewTable(TableMessage {
            attributes: vec![
                TableAttribute::Name(table.to_owned()),
                TableAttribute::Flags(TableFlags::Owner),
            ],
        }),
        map(table, &V4, 1),
        map(table, &V6, 2),
        ports_set(table, 3),
        chain(table, "output", "nat", InetHookNumber::LocalOut, BEFORE_DOCKER),
        chain(table, "prerouting", "nat", InetHookNumber::PreRouting, BEFORE_DOCKER),
        chain(table, "guard", "filter", InetHookNumber::LocalIn, 0),
    ];
    for chain in ["output", "prerouting"] {
        out.extend([&V4, &V6].map(|map| rule(table, chain, redirect(map))));
    }
    out.push(rule(table, "guard", guard()));
    out
}

/// Puts frontends in, or takes them out.
pub(super) fn frontends(table: &str, entries: &[Entry], add: bool) -> Vec<NfTablesMessage> {
    let of = |map: &Map, v4: bool| {
        let wanted = entries.iter().filter(|entry| entry.frontend.addr.is_ipv4() == v4);
        let elements: Vec<_> = wanted
            .map(|Entry { frontend, to }| {
                element(key(frontend), add.then(|| to.to_be_bytes().to_vec()))
            })
            .collect();
        (!elements.is_empty()).then(|| change(table, map.name, elements, add))
    };
    [of(&V4, true), of(&V6, false)].into_iter().flatten().collect()
}

/// Adds or removes ports of the relay that only redirected packets may reach.
pub(super) fn ports(table: &str, ports: &[(Proto, u16)], add: bool) -> Vec<NfTablesMessage> {
    let elements: Vec<_> = ports
        .iter()
        .map(|(proto, port)| {
            let mut key = Vec::with_capacity(8);
            padded(&mut key, &[proto.number()]);
            padded(&mut key, &port.to_be_bytes());
            element(key, None)
        })
        .collect();
    if elements.is_empty() { Vec::new() } else { vec![change(table, PORTS, elements, add)] }
}

fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    match frontend.addr {
        IpAddr::V4(addr) => key.extend(addr.octets()),
        IpAddr::V6(addr) => key.extend(addr.octets()),
    }
    padded(&mut key, &[frontend.proto.number()]);
    padded(&mut key, &frontend.port.to_be_bytes());
    key
}

fn padded(key: &mut Vec<u8>, part: &[u8]) {
    key.extend(part);
    key.resize(key.len().next_multiple_of(4), 0);
}

fn element(key: Vec<u8>, data: Option<Vec<u8>>) -> ListAttribute<SetElementAttribute> {
    let key = SetElementAttribute::Key(DataAttribute::Value(key));
    let data = data.map(|data| SetElementAttribute::Data(DataAttribute::Value(data)));
    ListAttribute::Element([Some(key), data].into_iter().flatten().collect())
}

fn change(
    table: &str,
    set: &str,
    elements: Vec<ListAttribute<SetElementAttribute>>,
    add: bool,
) -> NfTablesMessage {
    let message = SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Elements(elements),
        ],
    };
    if add {
        NfTablesMessage::NewSetElement(message)
    } else {
        NfTablesMessage::DeleteSetElement(message)
    }
}

/// The attributes of a set or map; `id` tells it from others of the same batch.
fn set(table: &str, name: &str, id: u32, key_type: u32, key_len: u32) -> Vec<SetAttribute> {
    vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(name.to_owned()),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_len),
        SetAttribute::Id(id),
    ]
}

fn map(table: &str, map: &Map, id: u32) -> NfTablesMessage {
    let key_type = map.addr_type << 12 | INET_PROTO << 6 | INET_SERVICE;
    let mut attributes = set(table, map.name, id, key_type, map.addr + 8);
    attributes.extend([
        SetAttribute::Flags(SetFlags::Map),
        SetAttribute::DataType(INET_SERVICE),
        SetAttribute::DataLen(2),
    ]);
    NfTablesMessage::NewSet(SetMessage { attributes })
}

fn ports_set(table: &str, id: u32) -> NfTablesMessage {
    let attributes = set(table, PORTS, id, INET_PROTO << 6 | INET_SERVICE, 8);
    NfTablesMessage::NewSet(SetMessage { attributes })
}

fn chain(
    table: &str,
    name: &str,
    kind: &str,
    hook: InetHookNumber,
    priority: i32,
) -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(hook)),
                Hook::Priority(priority.cast_unsigned()),
            ]),
            ChainAttribute::Type(kind.to_owned()),
        ],
    })
}

fn rule(table: &str, chain: &str, expressions: Vec<Expressions>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        ],
    })
}

/// Registers of four bytes from the first on hold the key.
const FIRST: Register = Register::Reg32_00;

fn redirect(map: &Map) -> Vec<Expressions> {
    vec![
        load(MetaKey::Nfproto, FIRST),
        equals(vec![map.family]),
        payload(NETWORK, map.offset, map.addr, FIRST),
        load(MetaKey::L4Proto, map.proto),
        payload(TRANSPORT, 2, 2, map.port),
        Expressions::Lookup(vec![
            Lookup::Set(map.name.to_owned()),
            Lookup::SourceRegister(FIRST),
            Lookup::DestinationRegister(FIRST),
        ]),
        // NFTA_REDIR_REG_PROTO_MIN
        other("redir", vec![(1, register(FIRST))]),
    ]
}

fn guard() -> Vec<Expressions> {
    vec![
        load(MetaKey::L4Proto, FIRST),
        payload(TRANSPORT, 2, 2, Register::Reg32_01),
        Expressions::Lookup(vec![Lookup::Set(PORTS.to_owned()), Lookup::SourceRegister(FIRST)]),
        // NFTA_CT_DREG, NFTA_CT_KEY: NFT_CT_STATUS
        other("ct", vec![(1, register(FIRST)), (2, number(2))]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(FIRST),
            Bitwise::DestinationRegister(FIRST),
            Bitwise::Length(4),
            Bitwise::Mask(DataAttribute::Value(DST_NAT.to_ne_bytes().into())),
            Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
        ]),
        equals(vec![0; 4]),
        // NFTA_REJECT_TYPE: NFT_REJECT_ICMPX_UNREACH, NFTA_REJECT_ICMP_CODE: NFT_REJECT_ICMPX_PORT_UNREACH
        other("reject", vec![(1, number(2)), (2, vec![1])]),
    ]
}

fn load(key: MetaKey, into: Register) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(into)])
}

fn payload(base: u32, offset: u32, len: u32, into: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(into),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
}

/// Whether the first register begins with these bytes.
fn equals(bytes: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(FIRST),
        Cmp::Op(Operator::Equal),
        Cmp::Data(DataAttribute::Value(bytes)),
    ])
}

/// An expression that the crate has no type for.
fn other(name: &str, attributes: Vec<(u16, Vec<u8>)>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes: attributes.into_iter().map(|(kind, v)| DefaultNla::new(kind, v)).collect(),
    }
}

fn register(register: Register) -> Vec<u8> {
    number(register.into())
}

fn number(number: u32) -> Vec<u8> {
    number.to_be_bytes().into()
}
