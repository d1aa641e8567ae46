//! Frames for the tests, by etherparse.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder, TcpHeader};
use pnet_datalink::{Channel, DataLinkReceiver, DataLinkSender};
use sticky_tests::netns::Netns;

/// Link addresses of the two ends of a test; locally administered.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const PORT: u16 = 80;
const CLIENT_PORT: u16 = 40_000;

/// A named frame.
pub type Named = (String, Vec<u8>);

fn tcp(set: impl FnOnce(&mut TcpHeader)) -> TcpHeader {
    let mut header = TcpHeader::new(CLIENT_PORT, PORT, 1000, 64_240);
    set(&mut header);
    header
}

/// A TCP segment to a port of the VIP.
pub fn segment(port: u16, flags: &str, payload: &[u8]) -> Vec<u8> {
    let header = tcp(|t| {
        t.destination_port = port;
        t.syn = flags.contains('S');
        t.ack = flags.contains('A');
        t.fin = flags.contains('F');
        t.rst = flags.contains('R');
    });
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, HOST_MAC)
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .tcp_header(header);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).expect("a vector takes any write");
    frame
}

/// An IPv4 packet with a header made at will.
pub fn ipv4(protocol: IpNumber, payload: &[u8], set: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(payload.len() as u16, 64, protocol, CLIENT.octets(), VIP.octets())
            .expect("short payload");
    set(&mut header);
    header.set_payload_len(payload.len()).expect("short payload");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [HOST_MAC, CLIENT_MAC].concat();
    frame.extend([0x08, 0x00]);
    header.write_raw(&mut frame).expect("a vector takes any write");
    frame.extend(payload);
    frame
}

/// Frames that are for no frontend, though some look like it.
pub fn not_ours() -> Vec<Named> {
    let ours = segment(PORT, "A", b"data");
    let l4 = &ours[34..];
    let theirs = segment(81, "A", b"data");
    let mut all: Vec<Named> = vec![
        ("another port".into(), segment(81, "S", b"")),
        (
            "tcp fragment, first, another port".into(),
            ipv4(IpNumber::TCP, &theirs[34..], |h| h.more_fragments = true),
        ),
        (
            "tcp fragment, later".into(),
            ipv4(IpNumber::TCP, l4, |h| h.fragment_offset = IpFragOffset::try_new(185).unwrap()),
        ),
        (
            "options, another port".into(),
            ipv4(IpNumber::TCP, &segment(81, "S", b"")[34..], |h| h.options = options()),
        ),
        ("icmp echo".into(), ipv4(IpNumber::ICMP, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1], |_| {})),
        ("icmp unreachable with a packet of the frontend inside".into(), {
            let mut icmp = vec![3, 4, 0, 0, 0, 0, 0x05, 0x78];
            icmp.extend(&ours[14..42]);
            ipv4(IpNumber::ICMP, &icmp, |_| {})
        }),
        ("igmp".into(), ipv4(IpNumber::IGMP, &[0x16, 0, 0, 0, 224, 0, 0, 1], |_| {})),
        ("gre".into(), ipv4(IpNumber::GRE, &[0; 12], |_| {})),
        ("ipip".into(), ipv4(IpNumber::IPV4, &ours[14..], |_| {})),
        ("udp to the same port".into(), udp(PORT, b"data")),
        ("vxlan with a packet of the frontend inside".into(), {
            let mut vxlan = vec![8, 0, 0, 0, 0, 0, 7, 0];
            vxlan.extend(&ours);
            udp(4789, &vxlan)
        }),
        ("ipv6 tcp".into(), ipv6()),
        ("arp".into(), {
            let mut frame = [[0xff; 6], CLIENT_MAC].concat();
            frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
            frame.extend([0; 20]);
            frame
        }),
        ("vlan tag, another port".into(), tagged(&theirs, &[[0x81, 0x00, 0x00, 0x05]])),
        (
            "two vlan tags, another port".into(),
            tagged(&theirs, &[[0x88, 0xa8, 0x00, 0x05], [0x81, 0x00, 0x00, 0x06]]),
        ),
        (
            "three vlan tags".into(),
            tagged(&ours, &[[0x88, 0xa8, 0, 5], [0x81, 0x00, 0, 6], [0x81, 0x00, 0, 7]]),
        ),
        ("lldp".into(), [&HOST_MAC[..], &CLIENT_MAC, &[0x88, 0xcc], &[0; 46]].concat()),
        ("802.3 length".into(), [&HOST_MAC[..], &CLIENT_MAC, &[0x00, 0x2e], &[0; 46]].concat()),
        ("version 5".into(), changed(&ours, 14, 0x55)),
        ("header length 16".into(), changed(&ours, 14, 0x44)),
        ("header length beyond the packet".into(), changed(&ours, 14, 0x4f)),
        ("total length shorter than its headers".into(), changed(&ours, 17, 39)),
        ("total length 0".into(), changed(&changed(&ours, 16, 0), 17, 0)),
        ("tcp data offset 16".into(), changed(&ours, 46, 0x40)),
    ];
    for len in 14..54 {
        all.push((format!("cut to {len} bytes"), ours[..len].to_vec()));
    }
    all
}

fn options() -> Ipv4Options {
    // Record route with room for one address, and an end.
    [7, 7, 4, 0, 0, 0, 0, 0].into()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, HOST_MAC)
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .udp(CLIENT_PORT, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).expect("a vector takes any write");
    frame
}

fn ipv6() -> Vec<u8> {
    let mut source = [0; 16];
    source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, HOST_MAC)
        .ipv6(source, source, 64)
        .tcp_header(tcp(|t| t.syn = true));
    let mut frame = Vec::new();
    builder.write(&mut frame, b"").expect("a vector takes any write");
    frame
}

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

fn changed(frame: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = value;
    frame
}

/// Both directions of raw frames.
pub type Wire = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

/// Raw frames at `eth0` of a namespace.
pub fn wire(netns: &Netns) -> Wire {
    let opened = netns.enter(|| {
        let eth0 = pnet_datalink::interfaces()
            .into_iter()
            .find(|i| i.name == "eth0")
            .expect("it was linked");
        let config = pnet_datalink::Config {
            read_timeout: Some(Duration::from_millis(200)),
            promiscuous: false,
            ..pnet_datalink::Config::default()
        };
        pnet_datalink::channel(&eth0, config)
    });
    match opened.unwrap().unwrap() {
        Channel::Ethernet(to, from) => (to, from),
        _ => panic!("not an Ethernet"),
    }
}
