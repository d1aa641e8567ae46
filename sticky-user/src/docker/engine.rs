//! A connection to a Docker engine, for both providers: only GET is ever asked.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use bollard::{BollardRequest, Docker};
use futures_util::{Stream, StreamExt};
use http::header::HOST;
use http::{HeaderValue, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::Address;

/// A call that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds in which an answer must begin, for bollard; ours is shorter.
const CALL_ENDS: u64 = 120;
/// More ids than this in a filter cost more than what they leave out.
const MOST_IDS: usize = 200;

type Event = Result<EventMessage, bollard::errors::Error>;
pub(crate) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Connects, and speaks the newest version that both sides know. `host` is a URL; `None` is what `DOCKER_HOST` says, or
/// else the local socket.
pub(crate) async fn connect(host: Option<&str>) -> Result<Docker> {
    reach(Address::find(host)?).await
}

pub(super) async fn reach(address: Address) -> Result<Docker> {
    let at = format!("Docker at {address}");
    let transport = move |request| exchange(address.clone(), request);
    let docker = Docker::connect_with_custom_transport(
        transport,
        Some("http://docker"),
        CALL_ENDS,
        bollard::API_DEFAULT_VERSION,
    )?;
    call("GET /version", docker.negotiate_version()).await.context(at)
}

/// One call, on a connection of its own.
async fn exchange(
    address: Address,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, bollard::errors::Error> {
    let stream = address.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also that of the request.
    tokio::spawn(connection);
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    Ok(sender.send_request(request).await?)
}

/// What happens from now on. The stream ends, or fails, when the connection does.
pub(crate) fn events(docker: &Docker, kinds: &[&str], actions: &[&str]) -> Events {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let filters =
        HashMap::from([("type".to_owned(), words(kinds)), ("event".to_owned(), words(actions))]);
    docker
        .events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }))
        .boxed()
}

/// Events that are read as they come, also while something else takes its time.
pub(crate) struct ReadAhead {
    events: mpsc::Receiver<Event>,
    /// Ends with this.
    _reader: JoinSet<()>,
}

pub(crate) fn read_ahead(mut events: Events) -> ReadAhead {
    let (sender, receiver) = mpsc::channel(256);
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        while let Some(event) = events.next().await {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    ReadAhead { events: receiver, _reader: reader }
}

impl ReadAhead {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// The filter of a list: these values, unless they are too many.
pub(crate) fn filter(key: &str, values: Option<&[String]>) -> Option<HashMap<String, Vec<String>>> {
    let values = values.filter(|values| values.len() <= MOST_IDS)?;
    Some(HashMap::from([(key.to_owned(), values.to_vec())]))
}

pub(crate) async fn call<T>(
    name: &str,
    answer: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.with_context(|| name.to_owned()),
        Err(_) => bail!("{name} got no answer in {PATIENCE:?}"),
    }
}

/// An error in few words: the call, and what Docker says or else what is at the bottom of it.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    use bollard::errors::Error::DockerResponseServerError;
    let mut words = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<bollard::errors::Error>() {
            None => words.push(cause.to_string()),
            Some(DockerResponseServerError { status_code: 403, .. }) => {
                words.push("is not allowed: let the proxy of the socket pass this call".to_owned());
                break;
            }
            Some(DockerResponseServerError { status_code, message }) => {
                words.push(format!("{status_code}: {message}"));
                break;
            }
            Some(_) => {
                let bottom = error.root_cause().to_string();
                words.push(bottom);
                break;
            }
        }
    }
    words.join(": ")
}
