//! The cookies of a request.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use siphasher::sip::SipHasher13;

use crate::model::HostPattern;

/// The name of our cookie on a route where no label gives one (`None`: the default for unknown hosts). All services of a
/// route share it; those of two paths must not, since a browser may send the cookies of both.
pub(super) fn own_name(host: Option<&HostPattern>, root: &str) -> String {
    if root.is_empty() {
        return "sticky_lb".to_owned();
    }
    let host = host.map(ToString::to_string).unwrap_or_default();
    let digest = SipHasher13::new().hash(format!("{host} {root}").as_bytes());
    format!("sticky_lb_{:06x}", digest & 0xff_ffff)
}

/// Name and value of every cookie of these lines, in the order they were sent (RFC 6265, section 4.2.1); what has no `=` is
/// left out.
pub(super) fn pairs<'h>(
    lines: impl IntoIterator<Item = &'h HeaderValue>,
) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
    lines.into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(pair)
}

/// The lines without the cookies that `is_ours` names, and with every other byte; a line with none left is left out.
pub(super) fn without(
    headers: &HeaderMap,
    is_ours: impl Fn(&[u8], &[u8]) -> bool,
) -> Vec<HeaderValue> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|line| {
            let kept = line.as_bytes().split(|byte| *byte == b';');
            let kept: Vec<&[u8]> = kept
                .filter(|text| !pair(text).is_some_and(|(name, value)| is_ours(name, value)))
                .collect();
            let line = kept.join(&b';');
            let line = line.trim_ascii_start();
            // A part of a valid value is one.
            (!line.is_empty()).then(|| HeaderValue::from_bytes(line).ok()).flatten()
        })
        .collect()
}

fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (text.get(..at)?, text.get(at + 1..)?);
    Some((name.trim_ascii(), value.trim_ascii()))
}

/// Which of `names` are among them, by position; those beyond 32 are not told.
pub(super) fn present<'h>(
    lines: impl IntoIterator<Item = &'h HeaderValue>,
    names: &[String],
) -> u32 {
    pairs(lines).filter_map(|(name, _)| bit(names, name)).fold(0, |all, bit| all | bit)
}

/// The bit of a name in [`present`].
pub(super) fn bit(names: &[String], name: &[u8]) -> Option<u32> {
    let at = names.iter().position(|known| known.as_bytes() == name)?;
    Some(1_u32.checked_shl(u32::try_from(at).ok()?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names() {
        let host = HostPattern::Exact("demo.local".to_owned());
        assert_eq!(own_name(Some(&host), ""), "sticky_lb");
        // Another value would lose every session on an upgrade.
        assert_eq!(own_name(Some(&host), "/app"), "sticky_lb_548544");
        assert_ne!(own_name(Some(&host), "/app"), own_name(Some(&host), "/api"));
        assert_ne!(own_name(Some(&host), "/app"), own_name(None, "/app"));
    }

    #[test]
    fn pairs_of_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b=2;c = 3 ; junk; d=x=y;=e"));
        headers.append(COOKIE, HeaderValue::from_static("a=4"));
        let all: Vec<_> = pairs(headers.get_all(COOKIE))
            .map(|(n, v)| (std::str::from_utf8(n).unwrap(), std::str::from_utf8(v).unwrap()))
            .collect();
        let want = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "x=y"), ("", "e"), ("a", "4")];
        assert_eq!(all, want);
        let names = ["c".to_owned(), "z".to_owned(), "a".to_owned()];
        assert_eq!(present(headers.get_all(COOKIE), &names), 0b101);
    }

    #[test]
    fn ours_are_taken_off_and_the_rest_is_left() {
        for (line, want) in [
            ("a=1; own=x; b=2", Some("a=1; b=2")),
            ("own=x;  a=1;b", Some("a=1;b")),
            ("a=\"1 2\";own=x", Some("a=\"1 2\"")),
            ("own=x; own=y", None),
            ("own=mine; x", Some("own=mine; x")),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, HeaderValue::from_static(line));
            let left = without(&headers, |name, value| name == b"own" && value != b"mine");
            let left: Vec<_> = left.iter().map(|line| line.to_str().unwrap()).collect();
            assert_eq!(left, Vec::from_iter(want), "{line}");
        }
    }
}
