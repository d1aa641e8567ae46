//! The way from XDP to tc: metadata in front of the frame, and the frame as tc finds it.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use sticky_common::types::Handover;

use crate::packet::{self, Packet, at};

const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// Headers that are pulled into the linear part if they are not there: with an error's, those it quotes.
const HEADERS: u32 = 256;

/// Reads the headers of a frame at XDP; 0: they are none of ours.
///
/// A global function, which the verifier walks once for itself; what it leaves in `packet` is any value then, and its
/// bounds are looked at where they count.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sticky_read_xdp(ctx: *mut xdp_md, packet: *mut Packet) -> u32 {
    // SAFETY: the caller passes its own memory; the verifier insists that it is asked for null.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    let ctx = XdpContext::new(ctx);
    if packet::read(ctx.data(), ctx.data_end(), packet).is_err() {
        return 0;
    }
    // A packet that says it is longer than its frame is for the host to drop; the rest of a jumbo frame is elsewhere.
    let whole = packet.end as usize <= ctx.data_end() - ctx.data() || {
        // SAFETY: the helper takes the context it was given.
        let len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        u64::from(packet.end) <= len
    };
    u32::from(whole)
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

/// Whether the frame carries IP, by the kernel's own reading of it.
#[inline(always)]
pub fn is_ip(ctx: &TcContext) -> bool {
    matches!(ctx.skb.protocol(), ETH_P_IP | ETH_P_IPV6)
}

/// Takes VLAN tags off: the next link is another one. XDP does not see a tag that the interface took out of the frame; the
/// kernel has it beside the packet.
#[inline(always)]
pub fn untag(ctx: &TcContext, tags: u8) -> Option<()> {
    // SAFETY: read of a context field.
    let beside = unsafe { (*ctx.skb.skb).vlan_present } != 0;
    for _ in 0..2 {
        // SAFETY: the helper takes the context it was given; without a tag it does nothing.
        if (tags > 0 || beside) && unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
            return None;
        }
    }
    Some(())
}

/// Reads the headers of a packet without tags at tc; pulls them into the linear part if they are not there. 0: they are
/// none of ours. A global function, as its sister at XDP.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sticky_read_tc(skb: *mut __sk_buff, packet: *mut Packet) -> u32 {
    // SAFETY: as above.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    let ctx = TcContext::new(skb);
    // Before reading, not after it failed: so it is written once.
    let (needed, linear) = (plain_headers(&ctx), (ctx.data_end() - ctx.data()) as u32);
    if linear < needed && linear < len(&ctx) && pull(&ctx).is_none() {
        return 0;
    }
    let read = packet::read(ctx.data(), ctx.data_end(), packet);
    u32::from(read.is_ok() && packet.tags == 0)
}

/// Headers of TCP without options; what has more of them has them in its linear part, as it was built.
#[inline(always)]
fn plain_headers(ctx: &TcContext) -> u32 {
    let ip = if ctx.skb.protocol() == ETH_P_IP { Ipv4Hdr::LEN } else { Ipv6Hdr::LEN };
    (EthHdr::LEN + ip + TcpHdr::LEN) as u32
}

#[inline(always)]
fn len(ctx: &TcContext) -> u32 {
    // SAFETY: read of a context field.
    unsafe { (*ctx.skb.skb).len }
}

#[inline(always)]
fn pull(ctx: &TcContext) -> Option<()> {
    let want = if HEADERS < len(ctx) { HEADERS } else { len(ctx) };
    // SAFETY: the helper checks the length against the packet; pointers are read again by the caller.
    (unsafe { bpf_skb_pull_data(ctx.skb.skb, want) } == 0).then_some(())
}

/// Writes at an offset at tc.
///
/// By the helper and not through the packet's pointers: a program that writes through these gets a private copy of a packet
/// that someone captures, before its first line, and the copy has lost the metadata.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: u32, value: &T) -> Option<()> {
    ctx.skb.store(offset as usize, value, 0).ok()
}
