//! A `Cookie` header through the whole proxy: never a 5xx, and never a backend that a client chose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex};

use sticky::clients::memory::MemoryTable;
use sticky::model::{
    Backend, CookieAffinity, CookieMode, HostPattern, Service, ServiceConfig, Snapshot, State,
};
use sticky::proxy::{Proxy, Reason, Settings};

use crate::cookie::SEALED;
use crate::keys;

struct Bench {
    proxy: Proxy,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::start);

/// Sends `data` as the cookies of a request to a service that learns.
pub fn request(data: &[u8]) {
    if String::from_utf8_lossy(data).contains(SEALED) {
        return;
    }
    // Anything but the end of the line is the header's to hold.
    let cookies: Vec<u8> = data.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let pinned = BENCH.pinned();
    let status = BENCH.ask(&cookies);
    assert!((200..500).contains(&status), "{status}");
    assert_eq!(BENCH.pinned(), pinned, "a client chose its backend");
}

impl Bench {
    fn start() -> Self {
        let keys = keys();
        let table = Arc::new(MemoryTable::new(keys.hash, 251, 1000));
        let settings = Settings {
            http: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            workers: NonZeroUsize::MIN,
            ..Settings::default()
        };
        let keys = Arc::new(sticky::keys::Shared::from_pointee(keys));
        let proxy = Proxy::start(settings, keys, table, Vec::new()).unwrap();
        proxy.publish(&Snapshot { services: vec![service().into()] });
        Self { proxy, connection: Mutex::new(None) }
    }

    /// Requests so far that went where a cookie said.
    fn pinned(&self) -> u64 {
        let stats = self.proxy.service("demo").unwrap();
        stats.reasons().filter(|(reason, _)| *reason == Reason::Pinned).map(|(_, n)| n).sum()
    }

    /// One request on the connection of all, a new one where the last ended; its status.
    fn ask(&self, cookies: &[u8]) -> u16 {
        let mut kept = self.connection.lock().unwrap();
        let mut connection = kept.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.proxy.http_addr().unwrap()).unwrap();
            stream.set_nodelay(true).unwrap();
            BufReader::new(stream)
        });
        let line = b"GET / HTTP/1.1\r\nHost: demo.local\r\nCookie: session=1; ";
        let request = [&line[..], cookies, b"\r\n\r\n"].concat();
        connection.get_mut().write_all(&request).unwrap();
        let (status, length, open) = head(&mut connection);
        connection.read_exact(&mut vec![0; length]).unwrap();
        *kept = open.then_some(connection);
        status
    }
}

/// Status, length of the body, and whether the connection stays.
fn head(connection: &mut impl BufRead) -> (u16, usize, bool) {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let (mut length, mut open) = (0, true);
    loop {
        line.clear();
        connection.read_line(&mut line).unwrap();
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("connection", value)) => open = value != "close",
            Some(_) => {}
            None => return (status, length, open),
        }
    }
}

fn service() -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that the proxy lets go of is no matter.
            std::thread::spawn(move || serve(stream));
        }
    });
    let backend = |id: &str| Backend {
        id: id.to_owned(),
        name: id.to_owned(),
        addr: Some(addr),
        addr_v6: None,
        outgoing: false,
        node: String::new(),
        layer4: true,
        weight: 1,
        state: State::Up,
        reason: None,
    };
    let config = ServiceConfig {
        hosts: vec![HostPattern::Exact("demo.local".to_owned())],
        cookie: Some(CookieAffinity {
            names: vec!["session".to_owned()],
            mode: CookieMode::Learn,
            own_name: Some("sticky_lb".to_owned()),
        }),
        ..ServiceConfig::default()
    };
    Service {
        id: "demo".to_owned(),
        name: "demo".to_owned(),
        config,
        publish: Vec::new(),
        backends: ["a", "b", "seed"].map(backend).to_vec(),
        errors: Vec::new(),
    }
}

/// Answers every request with nothing.
fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line == b"\r\n" {
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        line.clear();
    }
    Ok(())
}

/// Without this the target would find nothing even where a client could choose.
#[cfg(test)]
pub(crate) fn what_was_sealed_pins() {
    let pinned = BENCH.pinned();
    assert_eq!(BENCH.ask(format!("sticky_lb={SEALED}").as_bytes()), 200);
    assert_eq!(BENCH.pinned(), pinned + 1);
}
