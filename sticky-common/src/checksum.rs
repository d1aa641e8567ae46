//! The Internet checksum, updated in place (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).
//!
//! Equation 3, not RFC 1141's: it never turns a right checksum of 0x0000 into 0xffff, the two zeros of one's complement.

/// The checksum `check` after one 16-bit word of the covered data changed from `old` to `new`.
///
/// Any byte order, as long as the three agree (RFC 1071, section 2(B)).
#[inline(always)]
#[must_use]
pub const fn replace16(check: u16, old: u16, new: u16) -> u16 {
    !fold(!check as u32 + !old as u32 + new as u32)
}

/// The checksum `check` after an aligned 32-bit word of the covered data changed from `old` to `new`.
#[inline(always)]
#[must_use]
pub const fn replace32(check: u16, old: [u8; 4], new: [u8; 4]) -> u16 {
    let check = replace16(check, word(old[0], old[1]), word(new[0], new[1]));
    replace16(check, word(old[2], old[3]), word(new[2], new[3]))
}

/// The checksum `check` after an aligned IPv6 address of the covered data changed from `old` to `new`.
#[inline(always)]
#[must_use]
pub const fn replace128(check: u16, old: &[u8; 16], new: &[u8; 16]) -> u16 {
    let mut check = check;
    let mut at = 0;
    while at < 16 {
        check = replace16(check, word(old[at], old[at + 1]), word(new[at], new[at + 1]));
        at += 2;
    }
    check
}

#[inline(always)]
const fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    // Three words of 16 bits sum to less than 3 * 2^16: two folds bring it below 2^16.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(data: &[u8]) -> u16 {
        let sum: u32 = data.chunks(2).map(|p| u32::from(word(p[0], *p.get(1).unwrap_or(&0)))).sum();
        let mut sum = sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1624() {
        // Section 4: 0xDD2F over a word going from 0x5555 to 0x3285 becomes 0x0000, not 0xFFFF.
        assert_eq!(replace16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_address_of_ipv6_as_four_of_ipv4() {
        let (old, new) = ([0x20_u8; 16], core::array::from_fn(|i| i as u8 * 17));
        let mut check = 0x1234;
        for at in [0, 4, 8, 12] {
            let part = |a: &[u8; 16]| [a[at], a[at + 1], a[at + 2], a[at + 3]];
            check = replace32(check, part(&old), part(&new));
        }
        assert_eq!(replace128(0x1234, &old, &new), check);
    }

    proptest! {
        #[test]
        fn equals_the_full_sum(mut data in proptest::collection::vec(any::<u8>(), 20), at in 0usize..5, new: [u8; 4]) {
            // A header never sums to zero: its first byte holds the version.
            data[0] |= 0x40;
            let at = 4 + (at % 4) * 4;
            let before = full(&data);
            let mut old = [0; 4];
            old.copy_from_slice(&data[at..at + 4]);
            data[at..at + 4].copy_from_slice(&new);
            prop_assert_eq!(replace32(before, old, new), full(&data));
        }
    }
}
