//! The PROXY protocol (HAProxy's specification, versions 1 and 2): who the client is, before its first byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::ProxyProtocol;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// Something else.
    Absent,
    /// Not all of it yet.
    Partial,
    /// This long; source and destination, unless the sender speaks for itself.
    Present(usize, Option<(SocketAddr, SocketAddr)>),
    /// It begins like one and is none.
    Malformed,
}

/// Reads what a trusted peer sent first.
pub(super) fn read(bytes: &[u8]) -> Preface {
    let starts = |with: &[u8]| {
        let known = bytes.len().min(with.len());
        bytes.get(..known) == with.get(..known)
    };
    if starts(SIGNATURE) {
        return read_v2(bytes);
    }
    if starts(b"PROXY ") {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return if bytes.len() < LONGEST_LINE { Preface::Partial } else { Preface::Malformed };
        };
        return bytes
            .get(..end)
            .and_then(read_v1)
            .map_or(Preface::Malformed, |ends| Preface::Present(end + 2, ends));
    }
    Preface::Absent
}

#[expect(clippy::option_option, reason = "malformed, or valid without addresses")]
fn read_v1(line: &[u8]) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", "TCP4" | "TCP6", source, target, from, to] => {
            let source = SocketAddr::new(source.parse().ok()?, from.parse().ok()?);
            let target = SocketAddr::new(target.parse().ok()?, to.parse().ok()?);
            Some(Some((source, target)))
        }
        _ => None,
    }
}

fn read_v2(bytes: &[u8]) -> Preface {
    let Some((&[.., command, family, high, low], rest)) = bytes.split_first_chunk::<16>() else {
        return Preface::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let Some(body) = rest.get(..length) else {
        // Addresses and what few extensions there are fit; more is no preface that anybody sends.
        return if length <= 4096 { Preface::Partial } else { Preface::Malformed };
    };
    let ends = match (command, family) {
        (0x20, _) => return Preface::Present(16 + length, None),
        (0x21, 0x11) => body.first_chunk::<12>().map(|b| {
            let &[a, b, c, d, e, f, g, h, p, q, r, s] = b;
            let at = |ip: [u8; 4], port| {
                SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(port))
            };
            (at([a, b, c, d], [p, q]), at([e, f, g, h], [r, s]))
        }),
        (0x21, 0x21) => body.first_chunk::<36>().and_then(|b| {
            let (source, rest) = b.split_first_chunk::<16>()?;
            let (target, rest) = rest.split_first_chunk::<16>()?;
            let &[p, q, r, s] = rest.first_chunk::<4>()?;
            let at = |ip: &[u8; 16], port| {
                SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes(port))
            };
            Some((at(source, [p, q]), at(target, [r, s])))
        }),
        (0x21, _) => return Preface::Present(16 + length, None),
        _ => None,
    };
    ends.map_or(Preface::Malformed, |ends| Preface::Present(16 + length, Some(ends)))
}

/// What a backend is told before the first request of a connection.
pub(crate) fn write(version: ProxyProtocol, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let (from, to) = same_family(source.ip(), target.ip());
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), target.port())
                .into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut out = SIGNATURE.to_vec();
            let (family, length) = if from.is_ipv4() { (0x11, 12_u16) } else { (0x21, 36) };
            out.extend([0x21, family]);
            out.extend(length.to_be_bytes());
            for addr in [from, to] {
                match addr {
                    IpAddr::V4(addr) => out.extend(addr.octets()),
                    IpAddr::V6(addr) => out.extend(addr.octets()),
                }
            }
            out.extend(source.port().to_be_bytes());
            out.extend(target.port().to_be_bytes());
            out
        }
    }
}

/// Both as IPv4, or both as IPv6.
fn same_family(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    let mapped = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => IpAddr::V6(addr.to_ipv6_mapped()),
        IpAddr::V6(_) => addr,
    };
    if a.is_ipv4() == b.is_ipv4() { (a, b) } else { (mapped(a), mapped(b)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_connections_have_none() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), Preface::Absent);
        assert_eq!(read(b"POST"), Preface::Absent);
        assert_eq!(read(b"P"), Preface::Partial);
        assert_eq!(read(b"\r\n\r\nGET"), Preface::Absent);
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4 1.2.3.4\r\n",
            "PROXY TCP4 a b 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Preface::Malformed, "{line}");
        }
        assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()), Preface::Malformed);
        assert_eq!(read(b"PROXY UNKNOWN\r\nGET"), Preface::Present(15, None));
    }

    proptest! {
        #[test]
        fn there_and_back(a: u32, b: u32, c: u128, from: u16, to: u16, six: bool, two: bool, cut in 0usize..200) {
            let source = if six { IpAddr::V6(Ipv6Addr::from(c | 1 << 127)) } else { IpAddr::V4(a.into()) };
            let (source, target) = (SocketAddr::new(source, from), SocketAddr::new(IpAddr::V4(b.into()), to));
            let version = if two { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
            let mut bytes = write(version, source, target);
            let length = bytes.len();
            bytes.extend(b"GET /");
            let Preface::Present(read_length, Some((s, t))) = read(&bytes) else { panic!("{bytes:?}") };
            prop_assert_eq!((read_length, s, t.ip().to_canonical()), (length, source, target.ip()));
            if cut > 0 && cut < length {
                prop_assert_eq!(read(&bytes[..cut]), Preface::Partial);
            }
        }

        #[test]
        fn noise_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&noise);
            let _ = read(&[SIGNATURE.as_slice(), &noise].concat());
        }
    }
}
