//! `sticky.allow` and `sticky.deny` together, as one verdict per prefix for a longest-prefix match.

use ipnet::IpNet;
use sticky_common::types::addr;

use super::plan::Rule;

/// The verdicts, sorted; none if every source may connect.
///
/// A source is excluded by any prefix of `deny` it is in, and, unless `allow` is empty, by being in none of `allow`. All
/// prefixes that an address is in contain the longest of them, so the verdict of that one is the address's.
#[must_use]
pub fn verdicts(allow: &[IpNet], deny: &[IpNet]) -> Vec<Rule> {
    if allow.is_empty() && deny.is_empty() {
        return Vec::new();
    }
    let within = |list: &[IpNet], net: &IpNet| list.iter().any(|other| other.contains(net));
    let admits = |net: &IpNet| !within(deny, net) && (allow.is_empty() || within(allow, net));
    let mut rules: Vec<Rule> = allow
        .iter()
        .chain(deny)
        .map(IpNet::trunc)
        .map(|net| {
            let (addr, prefix) = match net {
                IpNet::V4(v4) => {
                    (addr::mapped(v4.addr().octets()), addr::V4_PREFIX + v4.prefix_len())
                }
                IpNet::V6(v6) => (addr::from_bytes(v6.addr().octets()), v6.prefix_len()),
            };
            Rule { addr, prefix, admits: admits(&net) }
        })
        .collect();
    // What is in no prefix at all; `::/0` of the lists speaks for IPv6 only.
    for (addr, prefix) in [(addr::NONE, 0), (addr::mapped([0; 4]), addr::V4_PREFIX)] {
        if !rules.iter().any(|r| (r.addr, r.prefix) == (addr, prefix)) {
            rules.push(Rule { addr, prefix, admits: allow.is_empty() });
        }
    }
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn matched(rules: &[Rule], source: IpAddr) -> bool {
        let source = match source {
            IpAddr::V4(v4) => addr::mapped(v4.octets()),
            IpAddr::V6(v6) => addr::from_bytes(v6.octets()),
        };
        let hits = rules.iter().filter(|r| addr::masked(&source, r.prefix) == r.addr);
        hits.max_by_key(|r| r.prefix).is_none_or(|r| r.admits)
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        // Few bits, so that prefixes contain each other.
        let v4 = (0_u32..16, 0_u8..=4).prop_map(|(a, len)| {
            IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(a << 28)), len).unwrap()
        });
        let v6 = (0_u128..16, 0_u8..=4).prop_map(|(a, len)| {
            IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(a << 124)), len).unwrap()
        });
        proptest::collection::vec(prop_oneof![v4, v6], 0..5)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_says_what_both_lists_say(allow in nets(), deny in nets()) {
            let rules = verdicts(&allow, &deny);
            for bits in 0..16_u32 {
                let v4 = IpAddr::V4(Ipv4Addr::from_bits(bits << 28 | 77));
                let v6 = IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 124 | 77));
                for source in [v4, v6] {
                    let within = |list: &[IpNet]| list.iter().any(|n| n.contains(&source));
                    let expected = !within(&deny) && (allow.is_empty() || within(&allow));
                    prop_assert_eq!(matched(&rules, source), expected, "{} in {:?}", source, rules);
                }
            }
        }
    }
}
