//! An HTTP/1.1 client that shows every byte it was sent, and a cookie jar.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const HOST: &str = "demo.local";

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `Set-Cookie` of this name, whole.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.all("set-cookie").find(|line| line.split('=').next() == Some(name))
    }

    /// Value of the cookie of this name.
    pub fn value(&self, name: &str) -> Option<String> {
        let pair = self.cookie(name)?.split(';').next()?;
        Some(pair.split_once('=')?.1.to_owned())
    }
}

/// A connection to the proxy.
pub struct Connection {
    pub reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn write(&self, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
    }

    /// Sends a request; `None` when the connection ends before a whole response.
    pub fn request(
        &mut self,
        head: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Response> {
        let mut out = format!("{head} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            out += &format!("Host: {HOST}\r\n");
        }
        for (name, value) in headers {
            out += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            out += &format!("Content-Length: {}\r\n", body.len());
        }
        out += "\r\n";
        let mut out = out.into_bytes();
        out.extend_from_slice(body);
        self.stream().write_all(&out).ok()?;
        self.response(head.starts_with("HEAD"))
    }

    /// Reads head and body of a response.
    pub fn response(&mut self, headless: bool) -> Option<Response> {
        let mut response = self.head()?;
        if headless || response.status == 204 || response.status == 304 {
            return Some(response);
        }
        if let Some(length) = response.header("content-length") {
            response.body = vec![0; length.parse().ok()?];
            self.reader.read_exact(&mut response.body).ok()?;
        } else if response.header("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                self.reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let mut chunk = vec![0; size + 2];
                self.reader.read_exact(&mut chunk).ok()?;
                if size == 0 {
                    break;
                }
                response.body.extend_from_slice(&chunk[..size]);
            }
        } else if response.status != 101 {
            self.reader.read_to_end(&mut response.body).ok()?;
        }
        Some(response)
    }

    /// Reads the head of a response.
    pub fn head(&mut self) -> Option<Response> {
        let mut first = String::new();
        self.reader.read_line(&mut first).ok()?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Response { status, headers, body: Vec::new() })
    }
}

/// One request on a connection of its own.
pub fn send(addr: SocketAddr, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    Connection::open(addr).request(head, headers, body).expect("a whole response")
}

pub fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    send(addr, &format!("GET {path}"), headers, b"")
}

/// Cookies as a browser keeps them, as far as these tests need: by name.
#[derive(Clone, Default)]
pub struct Jar(Vec<(String, String)>);

impl Jar {
    pub fn store(&mut self, response: &Response) {
        for line in response.all("set-cookie") {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').unwrap();
            self.0.retain(|(known, _)| known != name);
            if !attributes.to_ascii_lowercase().contains("max-age=0") {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub fn line(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    pub fn get(&mut self, addr: SocketAddr, path: &str) -> Response {
        let line = self.line();
        let headers: &[(&str, &str)] = if line.is_empty() { &[] } else { &[("Cookie", &line)] };
        let response = get(addr, path, headers);
        self.store(&response);
        response
    }
}
