//! The cookies of a request.

use http::HeaderMap;
use http::header::COOKIE;

/// Name and value of every cookie, in the order they were sent (RFC 6265, section 4.2.1); what has no `=` is left out.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
            Some((name.trim_ascii(), value.trim_ascii()))
        })
}

/// Which of `names` are among them, by position; those beyond 32 are not told.
pub(super) fn present(headers: &HeaderMap, names: &[String]) -> u32 {
    pairs(headers).filter_map(|(name, _)| bit(names, name)).fold(0, |all, bit| all | bit)
}

/// The bit of a name in [`present`].
pub(super) fn bit(names: &[String], name: &[u8]) -> Option<u32> {
    let at = names.iter().position(|known| known.as_bytes() == name)?;
    Some(1_u32.checked_shl(u32::try_from(at).ok()?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn pairs_of_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b=2;c = 3 ; junk; d=x=y;=e"));
        headers.append(COOKIE, HeaderValue::from_static("a=4"));
        let all: Vec<_> = pairs(&headers)
            .map(|(n, v)| (std::str::from_utf8(n).unwrap(), std::str::from_utf8(v).unwrap()))
            .collect();
        let want = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "x=y"), ("", "e"), ("a", "4")];
        assert_eq!(all, want);
        let names = ["c".to_owned(), "z".to_owned(), "a".to_owned()];
        assert_eq!(present(&headers, &names), 0b101);
    }
}
