//! HTTP to a Docker engine. Answers are read into the few fields that somebody asks for, and what is sent back is what came:
//! complete models of the API would be slow on long lists, and would lose what they do not know.
//!
//! Calls that follow one another share a connection; one that nobody needed for a while is not trusted any more.

mod reader;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::address::{Address, Stream};
pub(crate) use reader::Reader;

/// A call that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that nobody used for this long may be gone without anybody having said so.
const FRESH: Duration = Duration::from_secs(5);
/// The newest version of the API that this program knows.
const NEWEST: Version = Version(1, 47);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address makes no sense.
    #[error("{0}")]
    Address(String),
    #[error("Docker at {host} cannot be reached: {error}")]
    Unreachable { host: String, error: io::Error },
    #[error("{call} is not allowed: let the proxy of the socket pass this call")]
    Denied { call: String },
    /// Docker says no.
    #[error("{call}: {}: {message}", status.as_u16())]
    Refused { call: String, status: StatusCode, message: String },
    #[error("{call} {reason}")]
    NoAnswer { call: String, reason: String },
    #[error("Docker at {host}: {error}")]
    At { host: String, error: Box<Error> },
}

impl Error {
    /// What Docker answered instead, if it did.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// `1.41`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// One engine, and the version of the API that is spoken with it.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    address: Address,
    /// `/v1.41`; empty until it is known.
    prefix: String,
    /// A connection without a call.
    idle: Arc<Mutex<Option<Idle>>>,
}

/// A connection, and since when it has no call.
#[derive(Debug)]
struct Idle(Connection, Instant);

/// What drives it is the call itself: there is no other task to be woken for each step.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None`: the engine closed it.
    driver: Option<Driver>,
}

type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Docker {
    /// Reaches the engine at `host`, a URL, and agrees on the newest version that both sides know. `None` is what
    /// `DOCKER_HOST` says, or else the local socket.
    ///
    /// # Errors
    /// It is not there, or it is no Docker.
    pub(crate) async fn connect(host: Option<&str>) -> Result<Self, Error> {
        Self::reach(Address::find(host)?).await
    }

    pub(super) async fn reach(address: Address) -> Result<Self, Error> {
        let mut docker = Self { address, prefix: String::new(), idle: Arc::default() };
        let versions: Versions =
            docker.get("/version", &[]).await.map_err(|error| match error {
                error @ Error::Unreachable { .. } => error,
                error => Error::At { host: docker.address.to_string(), error: Box::new(error) },
            })?;
        let theirs = Version::parse(&versions.api_version).unwrap_or(NEWEST);
        let oldest = versions.min_api_version.as_deref().and_then(Version::parse);
        let Version(major, minor) = theirs.min(NEWEST).max(oldest.unwrap_or(Version(1, 0)));
        docker.prefix = format!("/v{major}.{minor}");
        Ok(docker)
    }

    /// Where it is, as a user would write it.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Asks for `path`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        let (call, answer) = self.ask(path, query).await?;
        decode(&call, &answer)
    }

    /// Asks for `path`: the name of the call, and the answer as it came.
    pub(crate) async fn ask(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<(String, Bytes), Error> {
        let mut answer = Vec::new();
        self.read(path, query, &mut answer).await?;
        Ok((format!("GET {path}"), answer.into()))
    }

    /// Asks for `path`, and shows the answer while it comes.
    pub(crate) async fn read(
        &self,
        path: &str,
        query: &[(&str, String)],
        reader: &mut dyn Reader,
    ) -> Result<(), Error> {
        self.call(Method::GET, path, query, Bytes::new(), reader).await
    }

    /// Changes something; the answer is as it came.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let mut answer = Vec::new();
        self.call(method, path, query, body, &mut answer).await?;
        Ok(answer.into())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Bytes,
        reader: &mut dyn Reader,
    ) -> Result<(), Error> {
        let call = format!("{method} {path}");
        let answered = async {
            let request = self.request(&call, &method, path, query, body)?;
            let (status, refusal) = match self.again(&request, reader).await {
                Some(answer) => answer,
                None => self.once(&call, request, reader).await?,
            };
            checked(&call, method == Method::GET, status, &refusal)
        };
        let answered = timeout(PATIENCE, answered).await;
        answered.unwrap_or_else(|_| {
            Err(Error::NoAnswer { call, reason: format!("got no answer in {PATIENCE:?}") })
        })
    }

    /// The answer on the connection of the call before. What may be done only once has one of its own, and what is not
    /// answered there is asked again.
    async fn again(
        &self,
        request: &Request<Full<Bytes>>,
        reader: &mut dyn Reader,
    ) -> Option<(StatusCode, Vec<u8>)> {
        let Idle(mut connection, since) = self.idle().take()?;
        if request.method() != Method::GET || since.elapsed() > FRESH {
            return None;
        }
        let answer = connection.exchange(request.clone(), reader).await.ok()?;
        self.keep(connection).await;
        Some(answer)
    }

    /// The answer on a new connection.
    async fn once(
        &self,
        call: &str,
        request: Request<Full<Bytes>>,
        reader: &mut dyn Reader,
    ) -> Result<(StatusCode, Vec<u8>), Error> {
        let unreachable = |error| Error::Unreachable { host: self.address.to_string(), error };
        let stream = self.address.connect().await.map_err(unreachable)?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(call, &error))?;
        let mut connection = Connection { sender, driver: Some(driver) };
        let answer = connection.exchange(request, reader).await;
        let answer = answer.map_err(|error| broken(call, &error))?;
        self.keep(connection).await;
        Ok(answer)
    }

    /// Keeps a connection for the next call.
    async fn keep(&self, mut connection: Connection) {
        let Connection { sender, driver } = &mut connection;
        let Some(driver) = driver else { return };
        let ready = tokio::select! {
            ready = sender.ready() => ready.is_ok(),
            _ = driver => false,
        };
        if ready {
            *self.idle() = Some(Idle(connection, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(
        &self,
        call: &str,
        method: &Method,
        path: &str,
        query: &[(&str, String)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut uri = format!("{}{path}", self.prefix);
        for (index, (name, value)) in query.iter().enumerate() {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            uri.push_str(&format!("{}{name}={value}", if index == 0 { '?' } else { '&' }));
        }
        Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::NoAnswer {
                call: call.to_owned(),
                reason: format!("cannot be asked: {error}"),
            })
    }
}

impl Connection {
    /// The status, and the answer if it is none for the reader.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        reader: &mut dyn Reader,
    ) -> Result<(StatusCode, Vec<u8>), hyper::Error> {
        let Self { sender, driver } = self;
        let answer = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let mut refusal = Vec::new();
            let reader: &mut dyn Reader =
                if head.status.is_success() { reader } else { &mut refusal };
            reader::read(body, reader).await?;
            Ok((head.status, refusal))
        };
        tokio::pin!(answer);
        let end = async {
            match driver.as_mut() {
                Some(driver) => driver.await,
                None => Ok(()),
            }
        };
        tokio::select! {
            answer = &mut answer => answer,
            ended = end => {
                // What has come by now is the answer. A request that it had not taken yet would wait in it for ever.
                *driver = None;
                ended?;
                answer.await
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// `{"KEY":["a","b"]}`, the form of all filters.
pub(crate) fn filters(key: &str, values: &[impl AsRef<str>]) -> (&'static str, String) {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    ("filters", serde_json::json!({ key: values }).to_string())
}

/// A name of a user as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(call: &str, answer: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|error| something_else(call, &error))
}

/// Whoever answered is no Docker engine.
pub(crate) fn something_else(call: &str, error: &serde_json::Error) -> Error {
    Error::NoAnswer {
        call: call.to_owned(),
        reason: format!("is answered with something else: {error}"),
    }
}

fn checked(call: &str, reads: bool, status: StatusCode, refusal: &[u8]) -> Result<(), Error> {
    let call = call.to_owned();
    match status {
        status if status.is_success() => Ok(()),
        // Docker itself forbids no question, only orders.
        StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED if reads => {
            Err(Error::Denied { call })
        }
        status => {
            let message = serde_json::from_slice(refusal).map_or_else(
                |_| String::from_utf8_lossy(refusal).trim().to_owned(),
                |Message { message }| message,
            );
            Err(Error::Refused { call, status, message })
        }
    }
}

fn broken(call: &str, error: &hyper::Error) -> Error {
    let mut reason = format!("broke off: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        reason.push_str(&format!(": {cause}"));
    }
    Error::NoAnswer { call: call.to_owned(), reason }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}
