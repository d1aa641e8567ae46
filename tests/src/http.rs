//! An HTTP/1.1 client that binds its source address and hides nothing of the answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header's value, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: not JSON: {}", self.status, self.text()))
    }
}

/// One keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    local: SocketAddr,
}

impl Connection {
    /// Connects to `to` from the address `source`, any port.
    pub async fn open(source: Option<IpAddr>, to: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(CONNECT, connect(source, to)).await.with_context(|| {
            format!("no connection to {to} from {source:?} within {CONNECT:?}")
        })??;
        let local = stream.local_addr()?;
        Ok(Self { sender: spawn(stream).await?, local })
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends one request, with `Host: host`, and reads the whole answer.
    pub async fn send(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        exchange(&mut self.sender, method, host, path, headers, body.into()).await
    }

    /// Sends one GET request.
    pub async fn get(
        &mut self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        self.send("GET", host, path, headers, Bytes::new()).await
    }
}

/// One GET request on a connection of its own.
pub async fn get(
    source: Option<IpAddr>,
    to: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    Connection::open(source, to).await?.get(host, path, headers).await
}

/// One GET request to a server on a Unix socket.
pub async fn get_unix(socket: &Path, path: &str) -> anyhow::Result<Answer> {
    let stream =
        UnixStream::connect(socket).await.with_context(|| format!("{}", socket.display()))?;
    exchange(&mut spawn(stream).await?, "GET", "unix", path, &[], Bytes::new()).await
}

async fn connect(source: Option<IpAddr>, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket
            .bind(SocketAddr::new(source, 0))
            .with_context(|| format!("cannot send from {source}"))?;
    }
    socket.connect(to).await.with_context(|| {
        format!(
            "cannot connect to {to} from {}",
            source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        )
    })
}

async fn spawn(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its errors come out of the requests.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<Answer> {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body))?;
    let answer = async {
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    timeout(ANSWER, answer)
        .await
        .with_context(|| format!("{method} {path}: no answer within {ANSWER:?}"))?
        .with_context(|| format!("{method} {path}"))
}

/// The cookies of one client, as `curl -c FILE -b FILE` keeps them; paths and domains are not looked at.
#[derive(Debug, Clone, Default)]
pub struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Takes in the cookies that an answer sets, and forgets those it deletes.
    pub fn absorb(&mut self, answer: &Answer) {
        for value in
            answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok())
        {
            let mut parts = value.split(';').map(str::trim);
            let Some((name, content)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            if parts.any(|part| part.eq_ignore_ascii_case("max-age=0")) {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), content.to_owned());
            }
        }
    }

    /// The `Cookie` header, `None` if there are no cookies.
    pub fn header(&self) -> Option<String> {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The value of a cookie.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sends a GET request with these cookies and absorbs the answer's.
    pub async fn get(
        &mut self,
        connection: &mut Connection,
        host: &str,
        path: &str,
    ) -> anyhow::Result<Answer> {
        let cookies = self.header();
        let headers: Vec<_> = cookies.iter().map(|cookies| ("cookie", cookies.as_str())).collect();
        let answer = connection.get(host, path, &headers).await?;
        self.absorb(&answer);
        Ok(answer)
    }
}
