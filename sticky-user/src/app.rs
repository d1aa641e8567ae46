//! `sticky app`: sticky sessions of Swarm services, by their labels and nothing else.

mod list;
mod progress;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

pub use list::{App, table};
pub use progress::Progress;
pub use spec::Change;

use crate::docker::client::{Docker, Error as Call, decode, segment};
use crate::labels::{self, Instance};
use crate::model::LabelError;
use spec::Inspected;

/// How often a change is tried that others come before with theirs.
const TRIES: u32 = 20;
/// Pause before the first of these, and by how much each is longer.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "Docker at {host} is no Swarm manager: run this on a manager, or name one with --docker-host"
    )]
    NoManager { host: String },
    #[error("Docker's socket {host} is not for this user: run as root or as a member of its group")]
    NotPermitted { host: String },
    #[error("there is no service {0}; `sticky app list` shows those with labels of sticky")]
    Unknown(String),
    #[error("there is a service {0} already; `sticky app update {0}` changes it")]
    Taken(String),
    #[error(
        "service {0} has no label of sticky, so it is not removed here; `docker service rm {0}` does that"
    )]
    NotOurs(String),
    #[error("service {0} runs once on every node: it has no number of replicas to set")]
    Global(String),
    /// The label would not be understood.
    #[error("{label}={value}: {message}; {hint}")]
    Label { label: String, value: String, message: String, hint: String },
    #[error("service {0} is changed by others all the time; try again")]
    Contested(String),
    /// The order is given, but the tasks do not run.
    #[error(
        "service {service} has {running} of {wanted} tasks running: {reason}; Swarm goes on trying, `docker service ps {service}` tells more"
    )]
    NotRunning { service: String, running: u64, wanted: u64, reason: String },
    #[error("{0}")]
    Docker(String),
}

/// What to create.
#[derive(Clone, Debug)]
pub struct New {
    pub name: String,
    pub image: String,
    pub network: Option<String>,
    pub replicas: u64,
    pub labels: BTreeMap<String, String>,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Each label that is another now, with its value if it has one.
    pub labels: Vec<(String, Option<String>)>,
    /// The number of replicas, if it is another now.
    pub replicas: Option<u64>,
    /// What is odd about the labels together.
    pub remarks: Vec<LabelError>,
}

/// The manager of a Swarm.
#[derive(Debug)]
pub struct Swarm {
    docker: Docker,
}

impl Swarm {
    /// The engine at `host`, a URL; `None` is what `DOCKER_HOST` says, or else the local socket.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(host: Option<&str>) -> Result<Self, Error> {
        let docker = Docker::connect(host).await.map_err(|error| match error {
            Call::Unreachable { host, error }
                if error.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Error::NotPermitted { host }
            }
            error => Error::Docker(error.to_string()),
        })?;
        Ok(Self { docker })
    }

    /// Creates a service and waits for its tasks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(&self, new: &New, progress: &mut Progress) -> Result<Changed, Error> {
        let remarks = check(&new.labels, new.labels.keys().map(String::as_str))?;
        let networks: Vec<_> =
            new.network.iter().map(|network| json!({ "Target": network })).collect();
        let spec = json!({
            "Name": new.name,
            "Labels": new.labels,
            "TaskTemplate": {
                "ContainerSpec": { "Image": new.image },
                "Networks": networks,
            },
            "Mode": { "Replicated": { "Replicas": new.replicas } },
        });
        let body = Bytes::from(spec.to_string());
        let answer = self.docker.send(Method::POST, "/services/create", &[], body).await;
        let answer = answer.map_err(|error| match error.status() {
            Some(StatusCode::CONFLICT) => Error::Taken(new.name.clone()),
            _ => self.explain(error),
        })?;
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let Created { id } =
            decode("POST /services/create", &answer).map_err(|error| self.explain(error))?;
        self.settle(&new.name, &id, new.replicas, progress).await?;
        let labels = new.labels.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
        Ok(Changed { labels: labels.collect(), replicas: Some(new.replicas), remarks })
    }

    /// Changes labels and replicas of a service; the rest of it goes back as it came. Waits for tasks that are to come.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update(
        &self,
        name: &str,
        change: &Change,
        progress: &mut Progress,
    ) -> Result<Changed, Error> {
        for again in 1..=TRIES {
            let mut service = self.inspect(name).await?;
            let edited = service.spec.edit(change).map_err(|mistake| match mistake {
                spec::Mistake::Global => Error::Global(name.to_owned()),
                spec::Mistake::Unreadable(error) => {
                    Error::Docker(format!("service {name} is not understood: {error}"))
                }
            })?;
            let changed_names = change.labels.iter().map(|(label, _)| *label);
            let remarks = check(&edited.after, changed_names)?;
            let changed = Changed { labels: edited.labels, replicas: edited.replicas, remarks };
            if changed.labels.is_empty() && changed.replicas.is_none() {
                return Ok(changed);
            }
            match self.put(&service).await {
                Ok(()) => {
                    if let Some(replicas) = changed.replicas {
                        self.settle(name, &service.id, replicas, progress).await?;
                    }
                    return Ok(changed);
                }
                // Somebody else was first: their change stays, ours is made to what is there now.
                Err(Call::Refused { message, .. }) if message.contains("out of sequence") => {
                    sleep(PAUSE * again).await;
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
        Err(Error::Contested(name.to_owned()))
    }

    /// Removes a service that has labels of sticky.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let service = self.inspect(name).await?;
        let labels = service
            .spec
            .labels()
            .map_err(|error| Error::Docker(format!("service {name} is not understood: {error}")))?;
        if !labels.keys().any(|label| labels::is_ours(label)) {
            return Err(Error::NotOurs(name.to_owned()));
        }
        let path = format!("/services/{}", service.id);
        let removed = self.docker.send(Method::DELETE, &path, &[], Bytes::new()).await;
        removed.map(drop).map_err(|error| self.explain(error))
    }

    async fn inspect(&self, name: &str) -> Result<Inspected, Error> {
        let path = format!("/services/{}", segment(name));
        self.docker.get(&path, &[]).await.map_err(|error| match error.status() {
            Some(StatusCode::NOT_FOUND) => Error::Unknown(name.to_owned()),
            _ => self.explain(error),
        })
    }

    async fn put(&self, service: &Inspected) -> Result<(), Call> {
        let path = format!("/services/{}/update", service.id);
        let version = [("version", service.version.index.to_string())];
        let body = Bytes::from(service.spec.to_json());
        self.docker.send(Method::POST, &path, &version, body).await.map(drop)
    }

    fn explain(&self, error: Call) -> Error {
        match error {
            // 503, and 406 of old engines: no Swarm, or a worker of one.
            Call::Refused {
                status: StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_ACCEPTABLE,
                ..
            } => Error::NoManager { host: self.docker.host() },
            Call::Refused { message, .. } => Error::Docker(format!("Docker refuses: {message}")),
            error => Error::Docker(error.to_string()),
        }
    }
}

/// Refuses a label that would not be understood, and returns what is odd about all of them together.
fn check<'a>(
    labels: &BTreeMap<String, String>,
    ours: impl Iterator<Item = &'a str>,
) -> Result<Vec<LabelError>, Error> {
    // Nothing is known here of the instances that will read them.
    let reading = labels::read(labels, &Instance { cluster: None, https: true });
    let ours: Vec<&str> = ours.collect();
    if reading.config.is_none()
        && let Some(wrong) =
            reading.errors.iter().find(|error| ours.contains(&error.label.as_str()))
    {
        let LabelError { label, value, message, hint } = wrong.clone();
        return Err(Error::Label { label, value, message, hint });
    }
    Ok(reading.errors)
}
