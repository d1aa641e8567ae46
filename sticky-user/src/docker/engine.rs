//! A connection to a Docker engine, for both providers: only GET is ever asked.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A call that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// More ids than this in a filter cost more than what they leave out.
const MOST_IDS: usize = 200;

type Event = Result<EventMessage, bollard::errors::Error>;
pub(crate) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Connects, and speaks the newest version that both sides know. `host` is a URL; `None` is what `DOCKER_HOST` says, or
/// else the local socket.
pub(crate) async fn connect(host: Option<&str>) -> Result<Docker> {
    let host = host.map(ToOwned::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
    let host = host.filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    let at = || format!("Docker at {host}");
    let tls = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|verify| !verify.is_empty());
    if host.starts_with("https://") || (tls && host.starts_with("tcp://")) {
        bail!(
            "Docker at {host}: TLS to Docker is not served yet, use its local socket or a tunnel to it"
        );
    }
    let docker = Docker::connect_with_host(&host).with_context(at)?;
    call("GET /version", docker.negotiate_version()).await.with_context(at)
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

/// `None` for what Docker does not know.
pub(crate) fn known<T>(answer: Result<T>) -> Result<Option<T>> {
    use bollard::errors::Error::DockerResponseServerError;
    match answer {
        Err(error)
            if matches!(
                error.downcast_ref(),
                Some(DockerResponseServerError { status_code: 404, .. })
            ) =>
        {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// Whether a call was refused, as a proxy of the socket does.
pub(crate) fn denied(error: &anyhow::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError;
    matches!(error.downcast_ref(), Some(DockerResponseServerError { status_code: 403 | 405, .. }))
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
