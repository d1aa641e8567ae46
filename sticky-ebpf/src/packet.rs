//! The only file that touches raw packet memory.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_skb_pull_data, bpf_xdp_adjust_meta};
use aya_ebpf::programs::{TcContext, XdpContext};
use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;
use network_types::tcp::TcpHdr;
use sticky_common::types::Handover;

const ETH_P_IP: u16 = 0x0800_u16.to_be();
const IPPROTO_TCP: u8 = 6;
/// More-fragments bit and offset of the fragments field (RFC 791).
const FRAGMENT: u16 = 0x3fff;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// TCP over IPv4, as far as the data path looks at it.
#[derive(Clone, Copy)]
pub struct Headers {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    /// FIN, SYN, RST, ACK and the others.
    pub flags: u8,
    /// Offset of the TCP header.
    pub l4: usize,
}

impl Headers {
    /// A first SYN: opens a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}

/// Why there are no [`Headers`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NotTcp {
    /// Another protocol, or too short, or its lengths lie.
    Other,
    Fragment,
    /// The headers are not in the linear part.
    Short,
}

/// A pointer to a `T` at `offset`, if all of it is within the packet.
#[inline(always)]
fn at<T>(start: usize, end: usize, offset: usize) -> Option<*mut T> {
    let at = start + offset;
    if at + size_of::<T>() > end { None } else { Some(at as *mut T) }
}

#[inline(always)]
fn headers(start: usize, end: usize, l3: usize) -> Result<Headers, NotTcp> {
    let ip: *const Ipv4Hdr = at(start, end, l3).ok_or(NotTcp::Short)?;
    // SAFETY: `at` checked that the header lies within the packet; the type is bytes, so any alignment and value is valid.
    let ip = unsafe { &*ip };
    if ip.proto != IPPROTO_TCP {
        return Err(NotTcp::Other);
    }
    let header_len = usize::from(ip.vihl & 0x0f) * 4;
    if ip.vihl >> 4 != 4 || header_len < Ipv4Hdr::LEN {
        return Err(NotTcp::Other);
    }
    if u16::from_be_bytes(ip.frags) & FRAGMENT != 0 {
        return Err(NotTcp::Fragment);
    }
    if usize::from(u16::from_be_bytes(ip.tot_len)) < header_len + TcpHdr::LEN {
        return Err(NotTcp::Other);
    }
    let l4 = l3 + header_len;
    let tcp: *const [u8; TcpHdr::LEN] = at(start, end, l4).ok_or(NotTcp::Short)?;
    // SAFETY: `at` checked that the header lies within the packet; bytes have no alignment.
    let tcp = unsafe { &*tcp };
    if usize::from(tcp[12] >> 4) * 4 < TcpHdr::LEN {
        return Err(NotTcp::Other);
    }
    Ok(Headers {
        src: ip.src_addr,
        dst: ip.dst_addr,
        src_port: [tcp[0], tcp[1]],
        dst_port: [tcp[2], tcp[3]],
        flags: tcp[13],
        l4,
    })
}

/// The headers of a frame at XDP.
#[inline(always)]
pub fn xdp_headers(ctx: &XdpContext) -> Result<Headers, NotTcp> {
    let eth: *const EthHdr = at(ctx.data(), ctx.data_end(), 0).ok_or(NotTcp::Short)?;
    // SAFETY: `at` checked the bounds; the field may be unaligned.
    let ether_type = unsafe { (&raw const (*eth).ether_type).read_unaligned() };
    if ether_type != ETH_P_IP {
        return Err(NotTcp::Other);
    }
    headers(ctx.data(), ctx.data_end(), EthHdr::LEN)
}

/// Puts the choice in front of the frame. `None`: the driver has no room for metadata.
#[inline(always)]
pub fn hand_over(ctx: &XdpContext, choice: Handover) -> Option<()> {
    // SAFETY: the helper takes the context it was given; pointers into the packet are read again below.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(size_of::<Handover>() as i32)) } != 0 {
        return None;
    }
    let meta: *mut Handover = at(ctx.metadata(), ctx.metadata_end(), 0)?;
    // SAFETY: `at` checked that the value lies within the metadata, which the kernel aligns to four bytes.
    unsafe { meta.write(choice) };
    Some(())
}

/// The choice that `sticky_xdp` left, if this packet has one.
#[inline(always)]
pub fn handed_over(ctx: &TcContext) -> Option<Handover> {
    let skb = ctx.skb.skb;
    // SAFETY: reads of context fields, which the verifier turns into the packet's pointers.
    let (meta, data) = unsafe { ((*skb).data_meta as usize, (*skb).data as usize) };
    let choice: *const Handover = at(meta, data, 0)?;
    // SAFETY: `at` checked the bounds; metadata is aligned to four bytes.
    let choice = unsafe { choice.read() };
    (choice.magic == Handover::MAGIC).then_some(choice)
}

/// Whether the frame was addressed to this host's link address.
#[inline(always)]
pub fn for_this_host(ctx: &TcContext) -> bool {
    const PACKET_HOST: u32 = 0;
    // SAFETY: read of a context field.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST }
}

/// Whether the frame carries IPv4, by the kernel's own reading of it.
#[inline(always)]
pub fn is_ipv4(ctx: &TcContext) -> bool {
    ctx.skb.protocol() == u32::from(ETH_P_IP)
}

/// The headers of a packet at tc; pulls them into the linear part if they are not there.
#[inline(always)]
pub fn tc_headers(ctx: &TcContext, l3: usize) -> Result<Headers, NotTcp> {
    match headers(ctx.data(), ctx.data_end(), l3) {
        Err(NotTcp::Short) => {
            pull(ctx.skb.skb, l3)?;
            headers(ctx.data(), ctx.data_end(), l3)
        }
        result => result,
    }
}

#[inline(always)]
fn pull(skb: *mut __sk_buff, l3: usize) -> Result<(), NotTcp> {
    const MAX_IPV4: usize = 60;
    // SAFETY: read of a context field.
    let len = unsafe { (*skb).len };
    let want = (l3 + MAX_IPV4 + TcpHdr::LEN) as u32;
    // SAFETY: the helper checks the length against the packet; pointers are read again by the caller.
    match unsafe { bpf_skb_pull_data(skb, if want < len { want } else { len }) } {
        0 => Ok(()),
        _ => Err(NotTcp::Other),
    }
}

/// A copy of the IPv4 header at tc. `None`: it is not in the linear part.
#[inline(always)]
pub fn tc_ipv4(ctx: &TcContext, l3: usize) -> Option<Ipv4Hdr> {
    let ip: *const Ipv4Hdr = at(ctx.data(), ctx.data_end(), l3)?;
    // SAFETY: `at` checked the bounds, and the type is bytes.
    Some(unsafe { ip.read() })
}

/// Writes at an offset at tc.
///
/// By the helper and not through the packet's pointers: a program that writes through these gets a private copy of a packet
/// that someone captures, before its first line, and the copy has lost the metadata.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: usize, value: &T) -> Option<()> {
    ctx.skb.store(offset, value, 0).ok()
}
