//! A client: one keep-alive connection that asks for the same thing again and again, and checks every answer.

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
    wish: Wish,
    request: Vec<u8>,
    buffer: Vec<u8>,
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
        Self::over(TcpStream::connect(to).await?, wish).await
    }

    /// Begins a session on a connection.
    pub async fn over(stream: TcpStream, wish: Wish) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let (request, buffer) = (request(wish, ""), vec![0; BUFFER]);
        let mut client = Self { stream, wish, request, buffer, backend: None };
        let cookies = client.exchange().await?.cookies.join("; ");
        if wish.session {
            anyhow::ensure!(cookies.contains("session="), "no session came through");
            client.request = self::request(wish, &format!("cookie: {cookies}\r\n"));
            // One that hashes the application's cookie moves the client now, and then no more.
            client.backend = Some(client.exchange().await?.backend);
        }
        Ok(client)
    }

    /// The backend of its session; none without one.
    pub fn backend(&self) -> Option<&str> {
        self.backend.as_deref()
    }

    /// One request and its answer, which must be right.
    pub async fn ask(&mut self) -> anyhow::Result<()> {
        let head = self.exchange().await?;
        if let Some(backend) = &self.backend {
            let now = head.backend;
            anyhow::ensure!(*backend == now, "a session moved from {backend} to {now}");
        }
        Ok(())
    }

    async fn exchange(&mut self) -> anyhow::Result<Head> {
        self.stream.write_all(&self.request).await?;
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
        anyhow::ensure!(head.length == self.wish.body, "a body of {} bytes", head.length);
        let mut left = (head.length + end).checked_sub(filled).context("more than the answer")?;
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            anyhow::ensure!(read > 0, "the connection ended within the answer");
            left = left.checked_sub(read).context("more than the answer")?;
        }
        Ok(head)
    }
}

fn request(wish: Wish, cookies: &str) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: bench\r\n{cookies}\r\n", wish.body)
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
