//! The host that a request asks for.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};

/// The host as the client wrote it (RFC 9112, section 3.2): `None` if there is not exactly one.
pub(super) fn asked(uri: &Uri, headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    if let Some(authority) = uri.authority() {
        return HeaderValue::from_str(authority.as_str()).ok();
    }
    let mut all = headers.get_all(HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => Some(host.clone()),
        (None, _) if version < Version::HTTP_11 => Some(HeaderValue::from_static("")),
        _ => None,
    }
}

/// Its name in lower case, without port and final dot; `None` if it is no host.
pub(super) fn name(host: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = host.to_str().ok()?;
    let name = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => {
            let (name, port) = text.split_at(at);
            let digits = port.get(1..)?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            name
        }
        _ => text,
    };
    let fits = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'[' | b']' | b':')
    };
    if !name.bytes().all(fits) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("demo.local", Some("demo.local")),
            ("Demo.LOCAL:8080", Some("demo.local")),
            ("demo.local.", Some("demo.local")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("", Some("")),
            ("a:b", None),
            ("user@host", None),
            ("a/b", None),
            ("a b", None),
        ];
        for (host, want) in cases {
            let value = HeaderValue::from_static(host);
            assert_eq!(name(&value).as_deref(), want, "{host}");
        }
    }

    #[test]
    fn exactly_one_host() {
        let uri = Uri::from_static("/x");
        let mut headers = HeaderMap::new();
        assert_eq!(asked(&uri, &headers, Version::HTTP_11), None);
        assert_eq!(asked(&uri, &headers, Version::HTTP_10), Some(HeaderValue::from_static("")));
        headers.append(HOST, HeaderValue::from_static("a"));
        assert_eq!(asked(&uri, &headers, Version::HTTP_11), Some(HeaderValue::from_static("a")));
        let absolute = Uri::from_static("http://b:81/x");
        assert_eq!(
            asked(&absolute, &headers, Version::HTTP_11),
            Some(HeaderValue::from_static("b:81"))
        );
        headers.append(HOST, HeaderValue::from_static("a"));
        assert_eq!(asked(&uri, &headers, Version::HTTP_11), None);
    }
}
