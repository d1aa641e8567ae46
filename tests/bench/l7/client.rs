//! A client: one keep-alive connection that asks for the same things again and again, and checks every answer.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HEADERS: usize = 32;
const BUFFER: usize = 16 * 1024;
/// The host that every proxy knows.
pub const HOST: &str = "bench.example";

/// What a client asks for.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Bytes of the body.
    pub body: usize,
    /// It keeps its cookies: its session stays where it is. Otherwise each request begins one.
    pub session: bool,
}

/// A client with its connection.
pub struct Client {
    stream: TcpStream,
    body: usize,
    buffer: Vec<u8>,
    /// What it asks for in turn, one for each host.
    visits: Vec<Visit>,
    next: usize,
}

struct Visit {
    request: Vec<u8>,
    /// The backend of its session.
    backend: Option<String>,
}

/// The head of an answer.
struct Head {
    length: usize,
    backend: String,
    cookies: Vec<String>,
}

impl Client {
    /// Connects, and begins a session.
    pub async fn open(to: SocketAddr, wish: Wish) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect(to).await?, wish, &[HOST]).await
    }

    /// Begins a session with each of these hosts on a connection.
    pub async fn over(stream: TcpStream, wish: Wish, hosts: &[&str]) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let (visits, buffer) = (Vec::new(), vec![0; BUFFER]);
        let mut client = Self { stream, body: wish.body, buffer, visits, next: 0 };
        for host in hosts {
            let visit = client.begin(wish, host).await?;
            client.visits.push(visit);
        }
        Ok(client)
    }

    async fn begin(&mut self, wish: Wish, host: &str) -> anyhow::Result<Visit> {
        let mut visit = Visit { request: request(wish, host, ""), backend: None };
        let cookies = self.exchange(&visit.request).await?.cookies.join("; ");
        if wish.session {
            anyhow::ensure!(cookies.contains("session="), "no session came through");
            visit.request = request(wish, host, &format!("cookie: {cookies}\r\n"));
            // One that hashes the application's cookie moves the client now, and then no more.
            visit.backend = Some(self.exchange(&visit.request).await?.backend);
        }
        Ok(visit)
    }

    /// The backend of its first session; none without one.
    pub fn backend(&self) -> Option<&str> {
        self.visits.first()?.backend.as_deref()
    }

    /// One request and its answer, which must be right.
    pub async fn ask(&mut self) -> anyhow::Result<()> {
        let visits = std::mem::take(&mut self.visits);
        let visit = visits.get(self.next % visits.len().max(1)).context("a host to ask")?;
        self.next += 1;
        let head = self.exchange(&visit.request).await?;
        if let Some(backend) = &visit.backend {
            let now = head.backend;
            anyhow::ensure!(*backend == now, "a session moved from {backend} to {now}");
        }
        self.visits = visits;
        Ok(())
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Head> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let (head, end) = loop {
            let free = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = self.stream.read(free).await?;
            anyhow::ensure!(read > 0, "the connection ended before the answer");
            filled += read;
            if let Some(found) = parse(self.buffer.get(..filled).unwrap_or_default())? {
                break found;
            }
        };
        anyhow::ensure!(head.length == self.body, "a body of {} bytes", head.length);
        let mut left = (head.length + end).checked_sub(filled).context("more than the answer")?;
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            anyhow::ensure!(read > 0, "the connection ended within the answer");
            left = left.checked_sub(read).context("more than the answer")?;
        }
        Ok(head)
    }
}

fn request(wish: Wish, host: &str, cookies: &str) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\n{cookies}\r\n", wish.body)
        .into_bytes()
}

/// The head, and where it ends; `None` if it is not all here.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes)? else { return Ok(None) };
    anyhow::ensure!(response.code == Some(200), "status {:?}", response.code);
    let mut head = Head { length: 0, backend: String::new(), cookies: Vec::new() };
    for header in response.headers {
        let value = std::str::from_utf8(header.value)?;
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse()?;
        } else if header.name.eq_ignore_ascii_case("x-backend") {
            head.backend = value.to_owned();
        } else if header.name.eq_ignore_ascii_case("set-cookie") {
            head.cookies.push(value.split(';').next().unwrap_or_default().to_owned());
        }
    }
    Ok(Some((head, end)))
}
