//! What is done with an [`Addr`].

use super::Addr;

/// Bits in front of an IPv4 address.
pub const V4_PREFIX: u8 = 96;
/// No address.
pub const NONE: Addr = [0; 4];

/// The form of an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> Addr {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4)]
}

/// The IPv4 address in its last word.
#[inline(always)]
#[must_use]
pub const fn v4(addr: &Addr) -> [u8; 4] {
    addr[3].to_ne_bytes()
}

#[inline(always)]
#[must_use]
pub const fn from_bytes(bytes: [u8; 16]) -> Addr {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

#[inline(always)]
#[must_use]
pub const fn bytes(addr: &Addr) -> [u8; 16] {
    let ([a, b, c, d], [e, f, g, h]) = (addr[0].to_ne_bytes(), addr[1].to_ne_bytes());
    let ([i, j, k, l], [m, n, o, p]) = (addr[2].to_ne_bytes(), addr[3].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The leading `prefix` bits of an address, the others zero.
#[inline(always)]
#[must_use]
pub const fn masked(addr: &Addr, prefix: u8) -> Addr {
    // What is done next with the address need not wait until its prefix has been read: a branch is foreseen.
    if prefix >= 128 {
        return *addr;
    }
    [
        addr[0] & leading(prefix),
        addr[1] & leading(prefix.saturating_sub(32)),
        addr[2] & leading(prefix.saturating_sub(64)),
        addr[3] & leading(prefix.saturating_sub(96)),
    ]
}

/// A word with its highest `bits` bits set, all of them from 32 on, in network order.
#[inline(always)]
const fn leading(bits: u8) -> u32 {
    // In a wider word, so that none and all of them are no cases of their own.
    let bits = if bits < 32 { bits } else { 32 };
    (((u32::MAX as u64) << 32 >> bits) as u32).to_be()
}
