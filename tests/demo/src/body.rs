//! Bodies of answers.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

/// Any body this application sends.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// A body in one piece.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed()
}

/// What every piece of [`pattern`] is cut from, made once: streaming costs no more than the sockets do.
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..PIECE + PERIOD).map(|at| (at % PERIOD).to_le_bytes()[0]).collect());
const PIECE: usize = 64 * 1024;
/// A prime, so that a lost or doubled page shows.
const PERIOD: usize = 251;

/// `length` bytes in pieces, each byte its offset modulo 251.
pub fn pattern(length: u64) -> Body {
    let pieces = stream::unfold((length, 0), |(left, phase)| async move {
        let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = PATTERN.slice(phase..phase + size);
        let next = (left - size as u64, (phase + size) % PERIOD);
        (left > 0).then(|| (Ok(Frame::data(piece)), next))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

/// Server-sent events without end: `data: NUMBER` from 0 on, the first at once and the others `pause` apart.
pub fn events(pause: Duration) -> Body {
    let events = stream::unfold(0_u64, move |number| async move {
        if number > 0 {
            tokio::time::sleep(pause).await;
        }
        let event = Bytes::from(format!("data: {number}\n\n"));
        Some((Ok(Frame::data(event)), number + 1))
    });
    BodyExt::boxed(StreamBody::new(events))
}

/// FNV-1a of a body that comes in pieces: start with [`FNV_START`].
pub fn fnv1a(hash: u64, piece: &[u8]) -> u64 {
    piece
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The offset basis of 64-bit FNV-1a.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_pattern_has_the_length_asked_for() {
        for length in [0, 1, 250, 65_536, 200_000] {
            let bytes = pattern(length).collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, length);
            assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
        }
    }

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(fnv1a(FNV_START, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(fnv1a(FNV_START, b"foo"), b"bar"), 0x8594_4171_f739_67e8);
    }
}
