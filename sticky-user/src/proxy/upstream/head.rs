//! Heads on their way to a backend and from it (RFC 9112, sections 2 to 6). httparse reads them.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::framing::{Chunk, Framing};
use crate::proxy::headers::X_REQUEST_ID;

/// The most headers of an answer, as in the requests that hyper takes.
const HEADERS: usize = 100;

/// The head of an answer, and what stands in it about the connection.
pub(super) struct Head {
    pub status: StatusCode,
    /// If it is not the one that belongs to the status.
    pub reason: Option<ReasonPhrase>,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// The connection can be used again.
    pub keeps: bool,
}

/// What is not HTTP in a head.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum BadHead {
    #[error("the head of the answer is not valid: {0}")]
    Syntax(#[from] httparse::Error),
    #[error("the answer's status is none")]
    Status,
    #[error("a header's value is not valid")]
    Value,
    #[error("the head of the answer is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the answer has no valid length")]
    Length,
    #[error("an answer of HTTP/1.0 cannot come in chunks")]
    Chunked,
}

/// The head of a request.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Ask<'r> {
    pub method: &'r Method,
    pub target: &'r str,
    pub headers: &'r HeaderMap,
    /// `X-Request-ID`, which is not among the headers.
    pub id: &'r HeaderValue,
    /// More of them, each with the end of its line.
    pub lines: &'r [u8],
}

/// Writes the head of a request in front of a body that comes in chunks or not.
pub(super) fn write(ask: Ask<'_>, chunked: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(ask.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(ask.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in ask.headers {
        line(name, value, out);
    }
    line(&X_REQUEST_ID, ask.id, out);
    out.extend_from_slice(ask.lines);
    if chunked {
        line(&TRANSFER_ENCODING, &HeaderValue::from_static("chunked"), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn line(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Where a header's name and value stand, from the first byte of the head.
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

/// Takes the head of the answer to a request out of what was `read`, into an empty map that is `made`; `None`: it is not all there.
/// Answers that only say that another one will come are left out (RFC 9110, section 15.2).
pub(super) fn read(
    read: &mut BytesMut,
    method: &Method,
    limit: usize,
    made: impl FnOnce() -> HeaderMap,
) -> Result<Option<Head>, BadHead> {
    loop {
        let mut room = [const { MaybeUninit::uninit() }; HEADERS];
        let mut head = httparse::Response::new(&mut []);
        let config = ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut head, read, &mut room)?;
        let Status::Complete(length) = parsed else {
            return if read.len() > limit { Err(BadHead::TooLarge(limit)) } else { Ok(None) };
        };
        if length > limit {
            return Err(BadHead::TooLarge(limit));
        }
        let code = head.code.ok_or(BadHead::Status)?;
        let status = StatusCode::from_u16(code).map_err(|_| BadHead::Status)?;
        let reason = head.reason.filter(|reason| Some(*reason) != status.canonical_reason());
        let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
        let newer = head.version == Some(1);
        let start = read.as_ptr().addr();
        let place = |text: &[u8]| {
            let at = text.as_ptr().addr() - start;
            (at, at + text.len())
        };
        let places: SmallVec<[Place; 16]> = head
            .headers
            .iter()
            .map(|header| Place { name: place(header.name.as_bytes()), value: place(header.value) })
            .collect();
        let text = read.split_to(length).freeze();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            if read.is_empty() {
                return Ok(None);
            }
            continue;
        }
        let mut headers = made();
        headers.reserve(places.len());
        let (mut closes, mut stays) = (false, false);
        let (mut lengths, mut coded) = (false, false);
        for Place { name, value } in places {
            let name = HeaderName::from_bytes(&text[name.0..name.1])
                .map_err(|_| httparse::Error::HeaderName)?;
            let value = HeaderValue::from_maybe_shared(text.slice(value.0..value.1))
                .map_err(|_| BadHead::Value)?;
            match name {
                CONNECTION => {
                    closes |= lists(&value, b"close");
                    stays |= lists(&value, b"keep-alive");
                }
                CONTENT_LENGTH => lengths = true,
                TRANSFER_ENCODING => coded = true,
                _ => {}
            }
            headers.append(name, value);
        }
        let bodiless = *method == Method::HEAD || matches!(status.as_u16(), 101 | 204 | 304);
        let framing = match (bodiless, coded, lengths) {
            (true, ..) => Framing::NONE,
            (false, true, _) => coding(&mut headers, newer)?,
            (false, false, true) => Framing::Length(length_of(&mut headers)?),
            (false, false, false) => Framing::UntilClose,
        };
        let keeps = !closes
            && (newer || stays)
            && framing != Framing::UntilClose
            && status != StatusCode::SWITCHING_PROTOCOLS;
        return Ok(Some(Head { status, reason, headers, framing, keeps }));
    }
}

/// Whether a list has this word in it.
fn lists(value: &HeaderValue, word: &[u8]) -> bool {
    let mut words = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words.any(|one| one.eq_ignore_ascii_case(word))
}

/// How a body with codings ends. A length beside them says nothing, and could be believed by the client.
fn coding(headers: &mut HeaderMap, newer: bool) -> Result<Framing, BadHead> {
    if !newer {
        return Err(BadHead::Chunked);
    }
    headers.remove(CONTENT_LENGTH);
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    let chunked = last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    Ok(if chunked { Framing::Chunked(Chunk::Size) } else { Framing::UntilClose })
}

/// The one length that all values say; only one of them is passed on.
fn length_of(headers: &mut HeaderMap) -> Result<u64, BadHead> {
    let mut all = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let first = all.next().ok_or(BadHead::Length)?;
    let several = all.next().map(|second| second == first && all.all(|other| other == first));
    if several == Some(false) || !first.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::Length);
    }
    let length = str::from_utf8(first).ok().and_then(|digits| digits.parse().ok());
    let length = length.ok_or(BadHead::Length)?;
    if several.is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn head(text: &str, method: &Method) -> Result<Option<Head>, BadHead> {
        read(&mut BytesMut::from(text), method, 1000, HeaderMap::new)
    }

    fn get(text: &str) -> Head {
        head(text, &Method::GET).unwrap().unwrap()
    }

    #[test]
    fn a_request_is_written_as_it_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "a"), ("b", "1"), ("b", "")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let id = &HeaderValue::from_static("7");
        let (method, target, lines) = (&Method::POST, "/x?y=%20", b"c: 2\r\nd: 3\r\n");
        let mut out = Vec::new();
        write(Ask { method, target, headers: &headers, id, lines }, false, &mut out);
        let want = "POST /x?y=%20 HTTP/1.1\r\nhost: a\r\nb: 1\r\nb: \r\nx-request-id: 7\r\nc: 2\r\nd: 3\r\n\r\n";
        assert_eq!(str::from_utf8(&out), Ok(want));
        out.clear();
        headers.clear();
        let (method, target, lines) = (&Method::OPTIONS, "*", b"");
        write(Ask { method, target, headers: &headers, id, lines }, true, &mut out);
        let want = "OPTIONS * HTTP/1.1\r\nx-request-id: 7\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(str::from_utf8(&out), Ok(want));
    }

    #[test]
    fn a_head_is_taken_when_it_is_all_there() {
        let text = "HTTP/1.1 200 OK\r\nA: 1\r\nb:2 \r\nA: 3\r\ncontent-length: 4\r\n\r\nbody";
        let mut stream = BytesMut::new();
        for byte in text.bytes().take(text.len() - 5) {
            stream.extend_from_slice(&[byte]);
            assert!(read(&mut stream, &Method::GET, 100, HeaderMap::new).unwrap().is_none());
        }
        stream.extend_from_slice(b"\nbody");
        let head = read(&mut stream, &Method::GET, 100, HeaderMap::new).unwrap().unwrap();
        assert_eq!(
            (head.status, head.framing, head.keeps),
            (StatusCode::OK, Framing::Length(4), true)
        );
        assert!(head.reason.is_none());
        let lines: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let want: &[(&str, &[u8])] =
            &[("a", b"1"), ("a", b"3"), ("b", b"2"), ("content-length", b"4")];
        assert_eq!(lines, want);
        assert_eq!(stream, "body");
    }

    #[test]
    fn where_the_body_ends() {
        let chunks = Framing::Chunked(Chunk::Size);
        for (lines, framing) in [
            ("", Framing::UntilClose),
            ("content-length: 7\r\n", Framing::Length(7)),
            ("content-length: 7\r\ncontent-length: 7\r\n", Framing::Length(7)),
            ("content-length: 7, 7\r\n", Framing::Length(7)),
            ("transfer-encoding: chunked\r\n", chunks),
            ("transfer-encoding: gzip, CHUNKED\r\n", chunks),
            ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", chunks),
            ("transfer-encoding: chunked\r\ncontent-length: 7\r\n", chunks),
            ("transfer-encoding: gzip\r\n", Framing::UntilClose),
            ("transfer-encoding: chunked, gzip\r\ncontent-length: 7\r\n", Framing::UntilClose),
        ] {
            let head = get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
            assert_eq!(head.framing, framing, "{lines:?}");
            assert_eq!(head.keeps, framing != Framing::UntilClose);
            let length: Vec<&HeaderValue> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
            let want = framing.left().map(|left| left.to_string());
            assert_eq!(length, want.iter().collect::<Vec<_>>(), "{lines:?}");
        }
        for lines in ["content-length: 7\r\n", "transfer-encoding: chunked\r\n", ""] {
            let none = |text: &str, method| {
                let head = head(&format!("{text}\r\n{lines}\r\n"), method).unwrap().unwrap();
                assert_eq!(head.framing, Framing::NONE, "{text} {lines}");
                assert_eq!(head.keeps, !text.contains("101"));
            };
            none("HTTP/1.1 200 OK", &Method::HEAD);
            none("HTTP/1.1 204 No Content", &Method::GET);
            none("HTTP/1.1 304 Not Modified", &Method::GET);
            none("HTTP/1.1 101 Switching Protocols", &Method::GET);
        }
    }

    #[test]
    fn who_keeps_the_connection() {
        for (first, lines, keeps) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "connection: close\r\n", false),
            ("HTTP/1.1", "connection: x, Close\r\nconnection: keep-alive\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "connection: keep-alive, close\r\n", false),
        ] {
            let head = get(&format!("{first} 200 OK\r\n{lines}content-length: 0\r\n\r\n"));
            assert_eq!(head.keeps, keeps, "{first} {lines}");
        }
    }

    #[test]
    fn answers_before_the_answer_are_left_out() {
        let early = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        assert!(head(early, &Method::GET).unwrap().is_none());
        let late = get(&format!("{early}HTTP/1.1 299 My own\r\n\r\n"));
        assert_eq!(late.status.as_u16(), 299);
        assert_eq!(late.reason.unwrap().as_bytes(), b"My own");
        assert!(late.headers.is_empty());
    }

    #[test]
    fn what_is_no_head() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1000));
        let many = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(HEADERS + 1));
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1,\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            &format!("{long}\r\n\r\n"),
            &long,
            &many,
        ] {
            assert!(head(text, &Method::GET).is_err(), "{text:?}");
        }
    }

    /// All that is told of a stream that comes in pieces of this size: what stands in its head, or that it has none, and what
    /// comes behind it.
    fn told(stream: &[u8], size: usize) -> Option<(String, Vec<u8>)> {
        let mut buffer = BytesMut::new();
        let mut pieces = stream.chunks(size);
        while let Some(piece) = pieces.next() {
            buffer.extend_from_slice(piece);
            if let Some(head) = read(&mut buffer, &Method::GET, 4096, HeaderMap::new).ok()? {
                let Head { status, reason, headers, framing, keeps } = head;
                let rest = buffer.iter().chain(pieces.flatten()).copied().collect();
                return Some((
                    format!("{status} {reason:?} {headers:?} {framing:?} {keeps}"),
                    rest,
                ));
            }
        }
        None
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_say_the_same(
            lines in vec("(connection|content-length|transfer-encoding|x): ?[ ,a-z0-9\t]{0,12}", 0..6),
            code in 100_u16..600,
            body in vec(any::<u8>(), 0..40),
            changes in vec((any::<Index>(), any::<u8>()), 0..3),
            size in 1_usize..60,
        ) {
            let mut stream = format!("HTTP/1.1 {code} x\r\n{}\r\n\r\n", lines.join("\r\n"));
            stream.push_str("HTTP/1.1 200 OK\r\nx: y\r\n\r\n");
            let mut stream = stream.into_bytes();
            stream.extend_from_slice(&body);
            for (at, byte) in changes {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            prop_assert_eq!(told(&stream, size), told(&stream, stream.len()));
        }
    }
}
