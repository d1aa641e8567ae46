//! A server that keeps sessions in memory, tells what it saw, and misbehaves where the path says so.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// One instance. It stops accepting when dropped.
pub struct Backend {
    pub name: String,
    pub addr: SocketAddr,
    pub state: Arc<State>,
}

#[derive(Default)]
pub struct State {
    name: String,
    sessions: Mutex<HashMap<String, u64>>,
    /// Requests by method and path.
    seen: Mutex<HashMap<String, u64>>,
    pub connections: AtomicU64,
    stopped: AtomicBool,
    pub open: Mutex<Vec<TcpStream>>,
    /// Of a killed one: bound and not listening, so that it refuses and nobody else gets its port.
    port: Mutex<Option<Socket>>,
}

struct Request {
    method: String,
    target: String,
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.iter().filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn number(&self) -> u64 {
        self.target.split('=').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Backend {
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State { name: name.to_owned(), ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, state) = (stream.unwrap(), shared.clone());
                state.connections.fetch_add(1, Ordering::SeqCst);
                state.open.lock().unwrap().push(stream.try_clone().unwrap());
                // A client that goes away in the middle is not this thread's trouble.
                std::thread::spawn(move || converse(stream, &state));
            }
        });
        Self { name: name.to_owned(), addr, state }
    }

    /// Refuses connections and cuts those it has, as a killed process does.
    pub fn kill(&self) {
        if !self.state.stopped.swap(true, Ordering::SeqCst) {
            // The accepting thread wakes up, and drops the listener.
            drop(TcpStream::connect(self.addr));
            self.cut();
            while TcpStream::connect(self.addr).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            port.set_reuse_address(true).unwrap();
            // Whoever was quicker has the port.
            let _ = port.bind(&self.addr.into());
            *self.state.port.lock().unwrap() = Some(port);
        }
    }

    /// Cuts the connections it has and takes new ones.
    pub fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many requests came.
    pub fn total(&self) -> u64 {
        self.state.seen.lock().unwrap().values().sum()
    }

    /// How many requests of this method and path (without query) came.
    pub fn seen(&self, request: &str) -> u64 {
        self.state.seen.lock().unwrap().get(request).copied().unwrap_or(0)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

fn converse(mut stream: TcpStream, state: &State) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut preface = None;
    loop {
        let mut request = read(&mut reader, &mut stream)?;
        if request.method == "PROXY" {
            preface = request.head.first().cloned();
            request = read(&mut reader, &mut stream)?;
        }
        request.head.extend(preface.iter().map(|line| format!("x-preface: {line}")));
        let path = request.target.split('?').next().unwrap_or_default().to_owned();
        *state.seen.lock().unwrap().entry(format!("{} {path}", request.method)).or_default() += 1;
        match path.as_str() {
            "/ping" => ping(&mut stream, &request, state)?,
            "/headers" if request.all("x-dies-at").any(|name| name == state.name) => {
                return stream.shutdown(Shutdown::Both).ok();
            }
            "/headers" => send(&mut stream, "200 OK", &[], request.head.join("\n").as_bytes())?,
            "/set" => {
                let lines: Vec<_> =
                    request.all("x-set").map(|line| format!("Set-Cookie: {line}")).collect();
                send(&mut stream, "200 OK", &lines, state.name.as_bytes())?;
            }
            "/reply" => {
                let lines: Vec<_> = request.all("x-reply").map(str::to_owned).collect();
                send(&mut stream, "200 OK", &lines, b"")?;
            }
            "/die" => return stream.shutdown(Shutdown::Both).ok(),
            "/half" => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").ok()?;
                return stream.shutdown(Shutdown::Both).ok();
            }
            "/quiet" | "/quiet-events" => {
                let kind = if path == "/quiet" { "text/plain" } else { "Text/Event-Stream; x=y" };
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 8\r\n\r\nhalf"
                )
                .ok()?;
                std::thread::sleep(Duration::from_millis(request.number()));
                write!(stream, "rest").ok()?;
            }
            "/huge-head" => {
                let line = format!("X: {}", "a".repeat(70_000));
                send(&mut stream, "200 OK", &[line], b"")?;
            }
            "/raw" => {
                let line = request.all("x-raw").next()?.replace("\\r", "\r").replace("\\n", "\n");
                stream.write_all(line.as_bytes()).ok()?;
                return stream.shutdown(Shutdown::Both).ok();
            }
            "/say" => {
                let pieces: Vec<_> = request.all("x-raw").collect();
                for (at, text) in pieces.iter().enumerate() {
                    if at > 0 {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    let text = text.replace("\\r", "\r").replace("\\n", "\n");
                    let size = request.number().max(1) as usize;
                    for piece in text.as_bytes().chunks(size) {
                        stream.write_all(piece).ok()?;
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            }
            "/soon" => {
                send(&mut stream, "200 OK", &[], b"soon")?;
                return std::io::copy(&mut reader, &mut std::io::sink()).map(|_| ()).ok();
            }
            "/garbage" => {
                stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").ok()?;
                return stream.shutdown(Shutdown::Both).ok();
            }
            "/deaf" | "/silent" => std::thread::sleep(Duration::from_secs(30)),
            "/slow" => {
                std::thread::sleep(Duration::from_millis(request.number()));
                send(&mut stream, "200 OK", &[], state.name.as_bytes())?;
            }
            "/large" => large(&mut stream, request.number())?,
            "/echo" => send(&mut stream, "200 OK", &[], &request.body)?,
            "/upload" => {
                let length = request.body.len().to_string();
                send(&mut stream, "200 OK", &[], length.as_bytes())?;
            }
            "/early" => {
                send(&mut stream, "413 Payload Too Large", &["Connection: close".into()], b"no")?;
                stream.shutdown(Shutdown::Write).ok()?;
                return std::io::copy(&mut reader, &mut std::io::sink()).map(|_| ()).ok();
            }
            "/events" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
                for number in 0..3 {
                    // In one piece: the proxy makes a chunk of whatever has come.
                    stream.write_all(format!("event {number}\n").as_bytes()).ok()?;
                    std::thread::sleep(Duration::from_millis(300));
                }
                return stream.shutdown(Shutdown::Both).ok();
            }
            "/ws" => return echo(reader, stream),
            _ => send(
                &mut stream,
                "200 OK",
                &[],
                format!("{} {}", state.name, request.target).as_bytes(),
            )?,
        }
    }
}

/// A line, whatever bytes are in it.
fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn read(reader: &mut BufReader<TcpStream>, stream: &mut TcpStream) -> Option<Request> {
    let first = line(reader)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut head = vec![first.clone()];
    if method == "PROXY" {
        return Some(Request { method, target, head, body: Vec::new() });
    }
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut request = Request { method, target, head, body: Vec::new() };
    if request.all("expect").next().is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if matches!(&*request.target, "/early" | "/deaf" | "/soon") {
        return Some(request);
    }
    let length: Option<u64> = request.all("content-length").next().and_then(|n| n.parse().ok());
    // A big upload is counted, not kept.
    let counted = request.target.starts_with("/upload?");
    if let Some(mut length) = length {
        let mut piece = vec![0; 65_536];
        let mut total = 0_u64;
        while length > 0 {
            let n = reader.read(&mut piece[..length.min(65_536) as usize]).ok()?;
            if n == 0 {
                return None;
            }
            total += n as u64;
            length -= n as u64;
            if !counted {
                request.body.extend_from_slice(&piece[..n]);
            }
        }
        if counted {
            request.body = total.to_string().into_bytes();
        }
    } else if request.all("transfer-encoding").next().is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size as usize + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            request.body.extend_from_slice(&chunk[..size as usize]);
        }
    }
    Some(request)
}

fn send(stream: &mut TcpStream, status: &str, lines: &[String], body: &[u8]) -> Option<()> {
    let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for line in lines {
        out += &format!("{line}\r\n");
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    stream.write_all(&out).ok()
}

/// As docker-demo: a new session has attributes, a known one is sent again bare.
fn ping(stream: &mut TcpStream, request: &Request, state: &State) -> Option<()> {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let sent = request
        .all("cookie")
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix("session=").map(str::to_owned))
        .next();
    let mut sessions = state.sessions.lock().unwrap();
    let known = sent.as_ref().is_some_and(|id| sessions.contains_key(id));
    let id = sent.clone().unwrap_or_else(|| NUMBERS.fetch_add(1, Ordering::Relaxed).to_string());
    *sessions.entry(id.clone()).or_default() += 1;
    drop(sessions);
    let attributes = if sent.is_some() { "" } else { "; Path=/; Max-Age=86400" };
    let lines = [format!("Set-Cookie: session={id}{attributes}")];
    let body = format!("{} {}", state.name, if known { "known" } else { "new" });
    send(stream, "200 OK", &lines, body.as_bytes())
}

fn large(stream: &mut TcpStream, mut length: u64) -> Option<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").ok()?;
    let piece = vec![b'x'; 65_536];
    while length > 0 {
        let n = stream.write(&piece[..length.min(65_536) as usize]).ok()?;
        length -= n as u64;
    }
    Some(())
}

fn echo(mut reader: BufReader<TcpStream>, mut stream: TcpStream) -> Option<()> {
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        .ok()?;
    let mut piece = [0; 4096];
    loop {
        let n = reader.read(&mut piece).ok()?;
        if n == 0 {
            for last in [b"good", b"bye!"] {
                std::thread::sleep(Duration::from_millis(200));
                stream.write_all(last).ok()?;
            }
            return stream.shutdown(Shutdown::Write).ok();
        }
        stream.write_all(&piece[..n]).ok()?;
    }
}
