//! Which headers pass: hop-by-hop ones do not (RFC 9110, section 7.6.1), what says who the client is does when it is true.

use http::header::{
    CONNECTION, EXPECT, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static X_PROXY_ID: HeaderName = HeaderName::from_static("x-proxy-id");
pub(super) static X_SERVER_INFO: HeaderName = HeaderName::from_static("x-server-info");
pub(super) static X_UPSTREAM_ADDR: HeaderName = HeaderName::from_static("x-upstream-addr");
pub(super) static X_UPSTREAM_RESPONSE_TIME: HeaderName =
    HeaderName::from_static("x-upstream-response-time");

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Sets a header. Neither this nor [`get`] is to be compiled into its callers: a dozen copies of what a map does would take each
/// other, and the rest of a request, out of a processor's first cache.
#[inline(never)]
pub(super) fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

/// The first value of a header.
#[inline(never)]
pub(super) fn get<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    headers.get(name)
}

/// A value to keep: as it came, it keeps the buffer that the whole request was read into.
pub(super) fn owned(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// The protocol a request wants to change to, or a response changes to. HTTP/2 is none: requests in it would pass by us.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = get(headers, &UPGRADE)?;
    let mut protocols = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"h2c")) {
        return None;
    }
    listed(headers).any(|name| name.eq_ignore_ascii_case(b"upgrade")).then(|| value.clone())
}

/// Takes the hop-by-hop headers off; those of an upgrade are put back. Of requests and responses alike, see [`set`].
#[inline(never)]
pub(super) fn strip(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    if get(headers, &CONNECTION).is_some() {
        // These two are what most say, and need no name.
        let named = |word: &&[u8]| {
            !word.eq_ignore_ascii_case(b"keep-alive") && !word.eq_ignore_ascii_case(b"close")
        };
        let names: Vec<HeaderName> = listed(headers)
            .filter(named)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            // What every request must have is nobody's to take away.
            .filter(|name| *name != http::header::HOST && *name != http::header::CONTENT_LENGTH)
            .collect();
        for name in names {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    remove(headers, [&KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRAILER, &TRANSFER_ENCODING, &UPGRADE]);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Takes off what a request says to us and not to the backend.
pub(super) fn strip_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    strip(headers, upgrade);
    // An expectation is answered by us, as soon as the backend takes the body.
    remove(headers, [&PROXY_AUTHORIZATION, &PROXY_AUTHENTICATE, &EXPECT]);
}

/// Most messages have none of these, and one look at all names takes less than a search for each.
#[inline]
fn remove<const N: usize>(headers: &mut HeaderMap, names: [&HeaderName; N]) {
    if headers.keys().any(|name| names.contains(&name)) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// The words of all `Connection` headers.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(CONNECTION)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn hop_by_hop_and_what_connection_lists_goes() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Secret ,host"),
            ("connection", "Keep-Alive,content-length"),
            ("keep-alive", "5"),
            ("proxy-connection", "x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-secret", "1"),
            ("expect", "100-continue"),
            ("proxy-authorization", "x"),
            ("content-length", "0"),
            ("origin", "http://other"),
        ]);
        let wanted = upgrade(&headers);
        assert_eq!(wanted, None, "Connection does not name it");
        strip_request(&mut headers, wanted);
        assert_eq!(
            headers,
            map(&[("host", "a"), ("content-length", "0"), ("origin", "http://other")])
        );
    }

    #[test]
    fn an_upgrade_to_http_2_goes() {
        let mut headers = map(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
        ]);
        let wanted = upgrade(&headers);
        strip_request(&mut headers, wanted);
        assert_eq!(headers, HeaderMap::new());
    }

    #[test]
    fn an_upgrade_stays() {
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let wanted = upgrade(&headers);
        strip_request(&mut headers, wanted);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }
}
