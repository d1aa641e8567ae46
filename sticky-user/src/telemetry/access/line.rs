//! A line of the access log. It is written once for each request, so it does not go through `tracing`, which takes ten times
//! as long for it; it looks like what `tracing` writes.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::Serialize;

/// What a line says.
#[derive(Clone, Debug, Serialize)]
pub struct Entry<'a> {
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// Without the query, which may hold what is nobody's business.
    pub path: &'a str,
    pub status: u16,
    /// Of the response's body.
    pub bytes: u64,
    /// Milliseconds, as are the others.
    pub ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<&'a str>,
    pub request_id: &'a str,
    /// The whole response went out.
    pub complete: bool,
}

/// The entry as JSON, and what `tracing` puts around it.
#[derive(Serialize)]
struct Json<'a> {
    timestamp: String,
    level: &'static str,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
    target: &'static str,
}

impl Entry<'_> {
    /// Appends the line as JSON.
    pub(super) fn json(&self, out: &mut Vec<u8>, now: SystemTime) -> io::Result<()> {
        let timestamp = humantime::format_rfc3339_micros(now).to_string();
        let line = Json { timestamp, level: "INFO", entry: self, target: super::TARGET };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
        Ok(())
    }

    /// Appends the line as text.
    pub(super) fn text(&self, out: &mut Vec<u8>, now: SystemTime) -> io::Result<()> {
        write!(out, "{}  INFO client={}", humantime::format_rfc3339_micros(now), self.client)?;
        quoted(out, "method", Some(self.method))?;
        quoted(out, "host", Some(self.host))?;
        quoted(out, "path", Some(self.path))?;
        write!(out, " status={} bytes={} ms={:?}", self.status, self.bytes, self.ms)?;
        plain(out, "upstream_ms", self.upstream_ms)?;
        quoted(out, "service", self.service)?;
        quoted(out, "backend", self.backend)?;
        plain(out, "upstream", self.upstream)?;
        quoted(out, "affinity", self.affinity)?;
        quoted(out, "request_id", Some(self.request_id))?;
        writeln!(out, " complete={}", self.complete)
    }
}

fn plain(out: &mut Vec<u8>, name: &str, value: Option<impl fmt::Debug>) -> io::Result<()> {
    value.map_or(Ok(()), |value| write!(out, " {name}={value:?}"))
}

fn quoted(out: &mut Vec<u8>, name: &str, value: Option<&str>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        for part in [" ", name, "=\"", value, "\""] {
            out.extend_from_slice(part.as_bytes());
        }
        return Ok(());
    }
    write!(out, " {name}={value:?}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(entry: &Entry<'_>) -> (String, serde_json::Value) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500);
        let (mut text, mut json) = (Vec::new(), Vec::new());
        entry.text(&mut text, now).unwrap();
        entry.json(&mut json, now).unwrap();
        assert_eq!(json.pop(), Some(b'\n'));
        (String::from_utf8(text).unwrap(), serde_json::from_slice(&json).unwrap())
    }

    const REFUSED: Entry<'_> = Entry {
        client: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        method: "GET",
        host: "a\"b\\c\n",
        path: "/ü",
        status: 400,
        bytes: 7,
        ms: 0.512,
        upstream_ms: None,
        service: None,
        backend: None,
        upstream: None,
        affinity: None,
        request_id: "-",
        complete: true,
    };

    #[test]
    fn text_escapes_and_leaves_out() {
        let (text, _) = lines(&REFUSED);
        assert_eq!(
            text,
            "2027-01-15T08:00:00.500000Z  INFO client=::1 method=\"GET\" host=\"a\\\"b\\\\c\\n\" path=\"/ü\" \
             status=400 bytes=7 ms=0.512 request_id=\"-\" complete=true\n"
        );
    }

    #[test]
    fn json_says_the_same() {
        let upstream = Some(SocketAddr::from(([203, 0, 113, 1], 80)));
        let entry = Entry { upstream_ms: Some(2.0), upstream, affinity: Some("new"), ..REFUSED };
        let (text, json) = lines(&entry);
        assert!(
            text.contains(" upstream_ms=2.0 upstream=203.0.113.1:80 affinity=\"new\" "),
            "{text}"
        );
        assert_eq!(
            json,
            serde_json::json!({
                "timestamp": "2027-01-15T08:00:00.500000Z", "level": "INFO", "target": "access", "client": "::1",
                "method": "GET", "host": "a\"b\\c\n", "path": "/ü", "status": 400, "bytes": 7, "ms": 0.512,
                "upstream_ms": 2.0, "upstream": "203.0.113.1:80", "affinity": "new", "request_id": "-", "complete": true,
            })
        );
    }
}
