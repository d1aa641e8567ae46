//! Who the client is, and how a backend is told.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::header::{FORWARDED, HOST, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::headers::{X_REQUEST_ID, owned};
use super::host;
use super::recall::Recall;

static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The other end of a client's connection; what its requests have in common is made once.
pub(super) struct Peer {
    pub addr: IpAddr,
    pub trusted: bool,
    pub https: bool,
    /// Port of the peer, and the address it connected to.
    from: u16,
    local: SocketAddr,
    ip: HeaderValue,
    last: RefCell<Option<Rc<PerHost>>>,
    pub recall: Recall,
}

/// What follows from a host that is asked for, made again only when that of a connection changes.
pub(super) struct PerHost {
    pub host: HeaderValue,
    /// `None`: it is no host.
    pub name: Option<String>,
    told: Told,
}

/// What a backend is told of the peer.
enum Told {
    /// The same with each request, as lines of its head.
    Lines(Box<[u8]>),
    /// What is added to the word of a trusted peer.
    Added { port: HeaderValue, forwarded: HeaderValue },
}

impl PerHost {
    /// Lines to be written behind the headers.
    pub(super) fn lines(&self) -> &[u8] {
        match &self.told {
            Told::Lines(lines) => lines,
            Told::Added { .. } => &[],
        }
    }
}

impl Peer {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr, https: bool, trusted: &[IpNet]) -> Self {
        let addr = peer.ip().to_canonical();
        Self {
            addr,
            trusted: trusted.iter().any(|net| net.contains(&addr)),
            https,
            from: peer.port(),
            local,
            ip: text(&addr.to_string()),
            last: RefCell::new(None),
            recall: Recall::default(),
        }
    }

    /// The client: the peer itself, or who a trusted one says it is.
    pub(super) fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
        if !self.trusted {
            return self.addr;
        }
        let lines: Vec<&str> =
            headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        let mut client = self.addr;
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(addr) = address(hop.trim()) else { break };
            client = addr;
            if !trusted.iter().any(|net| net.contains(&addr)) {
                break;
            }
        }
        client
    }

    /// Ends of the client's connection, as the PROXY protocol tells them; another client than the peer has no port.
    pub(super) fn ends(&self, client: IpAddr) -> (SocketAddr, SocketAddr) {
        let from = if client == self.addr { self.from } else { 0 };
        (SocketAddr::new(client, from), self.local)
    }

    /// Whether the client's own connection was encrypted, by us or by what a trusted peer says. Each proxy of a chain may
    /// have added its own word, so the first one is about the client.
    pub(super) fn secure(&self, headers: &HeaderMap) -> bool {
        let told = || headers.get(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
        let first = |all: &[u8]| {
            let end = all.iter().position(|byte| *byte == b',').unwrap_or(all.len());
            all.get(..end).is_some_and(|one| one.trim_ascii().eq_ignore_ascii_case(b"https"))
        };
        self.https || (self.trusted && told().is_some_and(first))
    }

    /// The request id that a trusted peer gave.
    pub(super) fn request_id(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.trusted {
            return None;
        }
        let id = headers.get(&X_REQUEST_ID)?;
        (!id.is_empty() && id.len() <= 128).then(|| id.clone())
    }

    /// What follows from the host that a request asks for.
    pub(super) fn per_host(&self, host: &HeaderValue) -> Rc<PerHost> {
        let mut last = self.last.borrow_mut();
        match last.as_ref().filter(|known| known.host == *host) {
            Some(known) => known.clone(),
            None => last.insert(Rc::new(self.read_host(host))).clone(),
        }
    }

    /// Has the headers say what is true, together with the id and the lines that are written behind them.
    pub(super) fn tell(&self, headers: &mut HeaderMap, known: &PerHost, client: IpAddr) {
        let is_false = |name: &HeaderName| {
            is_lookalike(name) || *name == X_REQUEST_ID || (!self.trusted && is_claim(name))
        };
        let false_ones: Vec<_> = headers.keys().filter(|name| is_false(name)).cloned().collect();
        for name in false_ones {
            headers.remove(name);
        }
        let mut hosts = headers.get_all(HOST).iter();
        // Behind a target with a host of its own there may be any number of them.
        if hosts.next() != Some(&known.host) || hosts.next().is_some() {
            headers.insert(HOST, known.host.clone());
        }
        if let Told::Added { port, forwarded } = &known.told {
            self.tell_on(headers, (&known.host, port, forwarded), client);
        }
    }

    /// Behind a trusted proxy: its word stays, ours is added.
    fn tell_on(
        &self,
        headers: &mut HeaderMap,
        (host, port, forwarded): (&HeaderValue, &HeaderValue, &HeaderValue),
        client: IpAddr,
    ) {
        append(headers, &X_FORWARDED_FOR, &self.ip);
        append(headers, &FORWARDED, forwarded);
        let ip = if client == self.addr { self.ip.clone() } else { text(&client.to_string()) };
        headers.insert(&X_REAL_IP, ip);
        let proto = HeaderValue::from_static(self.proto());
        headers.entry(&X_FORWARDED_PROTO).or_insert(proto);
        headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
        headers.entry(&X_FORWARDED_PORT).or_insert_with(|| port.clone());
    }

    const fn proto(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    fn read_host(&self, host: &HeaderValue) -> PerHost {
        let name = host.to_str().unwrap_or_default();
        let port = port_of(name).unwrap_or(self.local.port());
        let mut forwarded = String::with_capacity(name.len() + 64);
        // A node that is not plain IPv4, and a host with a port, must be quoted (RFC 7239, section 6).
        let written = match self.addr {
            IpAddr::V4(addr) => write!(forwarded, "for={addr}"),
            IpAddr::V6(addr) => write!(forwarded, "for=\"[{addr}]\""),
        };
        written.expect("a String takes every write");
        if !name.is_empty() && !name.contains(['"', '\\']) {
            let token =
                name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            let quote = if token { "" } else { "\"" };
            forwarded.extend([";host=", quote, name, quote]);
        }
        forwarded.extend([";proto=", self.proto()]);
        let (port, forwarded) = (HeaderValue::from(port), text(&forwarded));
        PerHost {
            host: owned(host),
            name: host::name(host).map(Cow::into_owned),
            told: match self.trusted {
                true => Told::Added { port, forwarded },
                false => Told::Lines(self.lines(host, &port, &forwarded)),
            },
        }
    }

    fn lines(&self, host: &HeaderValue, port: &HeaderValue, forwarded: &HeaderValue) -> Box<[u8]> {
        let proto = HeaderValue::from_static(self.proto());
        let all = [
            (&X_REAL_IP, &self.ip),
            (&X_FORWARDED_FOR, &self.ip),
            (&X_FORWARDED_PROTO, &proto),
            (&X_FORWARDED_HOST, host),
            (&X_FORWARDED_PORT, port),
            (&FORWARDED, forwarded),
        ];
        let lines =
            all.map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        lines.concat().concat().into()
    }
}

/// What only a trusted peer may say.
fn is_claim(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-real-ip"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-prefix"
            | "forwarded"
    )
}

/// `X_Real_IP` is `X-Real-IP` to an application that gets headers as variables (RFC 3875, section 4.1.18).
fn is_lookalike(name: &HeaderName) -> bool {
    name.as_str().contains('_') && {
        let name = name.as_str().replace('_', "-");
        name.starts_with("x-forwarded-") || matches!(name.as_str(), "x-real-ip" | "x-request-id")
    }
}

/// All lines of a header and one value more, as one line.
fn append(headers: &mut HeaderMap, name: &HeaderName, last: &HeaderValue) {
    let mut line = Vec::new();
    for value in headers.get_all(name) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(last.as_bytes());
    // Made of valid values; were it none, the peer's own word would still be the truth.
    headers.insert(name, HeaderValue::from_bytes(&line).unwrap_or_else(|_| last.clone()));
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Port of an authority, if it names one.
fn port_of(host: &str) -> Option<u16> {
    let (_, port) = host.rsplit_once(':')?;
    port.parse().ok()
}

/// `198.51.100.7`, `198.51.100.7:1234`, `2001:db8::7`, `[2001:db8::7]:1234`.
fn address(hop: &str) -> Option<IpAddr> {
    let addr = hop
        .parse()
        .or_else(|_| hop.parse::<SocketAddr>().map(|a| a.ip()))
        .or_else(|_| hop.trim_start_matches('[').trim_end_matches(']').parse());
    addr.ok().map(|addr: IpAddr| addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets() -> Vec<IpNet> {
        vec!["198.51.100.0/24".parse().unwrap()]
    }

    fn peer(addr: &str) -> Peer {
        Peer::new(addr.parse().unwrap(), "127.0.0.1:8080".parse().unwrap(), false, &nets())
    }

    fn told(
        peer: &Peer,
        host: &'static str,
        lines: &[(&'static str, &'static str)],
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let client = peer.client(&headers, &nets());
        let known = peer.per_host(&HeaderValue::from_static(host));
        peer.tell(&mut headers, &known, client);
        let mut all: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        all.extend(str::from_utf8(known.lines()).unwrap().lines().map(str::to_owned));
        all.sort();
        all
    }

    const CLAIMS: &[(&str, &str)] = &[
        ("x-forwarded-for", "203.0.113.5"),
        ("x-forwarded-for", "203.0.113.9, 198.51.100.77"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "203.0.113.66"),
        ("forwarded", "for=203.0.113.9"),
        ("x_forwarded_for", "203.0.113.66"),
        ("x_real-ip", "203.0.113.66"),
        ("x-request-id", "mine"),
        ("x-request_id", "mine"),
    ];

    #[test]
    fn a_stranger_is_not_believed() {
        let all = told(&peer("[::ffff:203.0.113.7]:4000"), "demo.local", CLAIMS);
        assert_eq!(
            all,
            [
                "forwarded: for=203.0.113.7;host=demo.local;proto=http",
                "host: demo.local",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-host: demo.local",
                "x-forwarded-port: 8080",
                "x-forwarded-proto: http",
                "x-real-ip: 203.0.113.7",
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_and_we_add_ourselves() {
        let all = told(&peer("198.51.100.1:4000"), "demo.local:81", CLAIMS);
        assert_eq!(
            all,
            [
                "forwarded: for=203.0.113.9, for=198.51.100.1;host=\"demo.local:81\";proto=http",
                "host: demo.local:81",
                "x-forwarded-for: 203.0.113.5, 203.0.113.9, 198.51.100.77, 198.51.100.1",
                "x-forwarded-host: front",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 203.0.113.9",
            ]
        );
        let all = told(&peer("198.51.100.1:4000"), "demo.local:81", &[]);
        assert!(all.contains(&"x-forwarded-port: 81".to_owned()), "{all:?}");
    }

    #[test]
    fn ipv6_is_quoted_and_other_hosts_are_told_on_one_connection() {
        let p = peer("[2001:db8::7]:4000");
        let all = told(&p, "a", &[]);
        assert_eq!(all[0], "forwarded: for=\"[2001:db8::7]\";host=a;proto=http");
        assert_eq!(told(&p, "b", &[])[0], "forwarded: for=\"[2001:db8::7]\";host=b;proto=http");
    }

    #[test]
    fn one_host_is_told() {
        let lines = [("host", "a"), ("host", "b"), ("host", "a")];
        for lines in [&lines[..0], &lines[..1], &lines[1..2], &lines[..2], &lines[..]] {
            let all = told(&peer("203.0.113.7:4000"), "a", lines);
            let hosts: Vec<_> = all.iter().filter(|line| line.starts_with("host:")).collect();
            assert_eq!(hosts, ["host: a"], "{lines:?}");
        }
    }

    #[test]
    fn addresses_with_ports() {
        for (hop, addr) in
            [("1.2.3.4:5", "1.2.3.4"), ("[2001:db8::1]:5", "2001:db8::1"), ("[::1]", "::1")]
        {
            assert_eq!(address(hop), Some(addr.parse().unwrap()));
        }
        assert_eq!(address("unknown"), None);
    }
}
