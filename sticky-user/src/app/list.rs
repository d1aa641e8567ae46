//! `sticky app list`: the services with labels of sticky.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::progress::Task;
use super::spec::Mode;
use super::{Error, Swarm};
use crate::docker::client::filters;
use crate::labels::{self, Instance};
use crate::status;

/// One service; the names of the fields are part of the interface to users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct App {
    pub name: String,
    pub id: String,
    pub hosts: Vec<String>,
    /// `ip-hash`, `cookie`, `header` or `none`; `unknown` where a label is wrong.
    pub affinity: String,
    /// Cookies of the application that make a session.
    pub cookies: Vec<String>,
    pub replicas: Replicas,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Replicas {
    pub running: u64,
    pub wanted: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    name: String,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    mode: Mode,
}

impl Swarm {
    /// The services with labels of sticky, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self) -> Result<Vec<App>, Error> {
        let services = self.docker.get("/services", &[]);
        let running = [filters("desired-state", &["running"])];
        let tasks = self.docker.get("/tasks", &running);
        let found: Result<(Vec<Service>, Vec<Task>), _> = tokio::try_join!(services, tasks);
        let (services, tasks) = found.map_err(|error| self.explain(error))?;
        let mut counts: HashMap<&str, (u64, u64)> = HashMap::new();
        for task in &tasks {
            let (running, wanted) = counts.entry(&task.service).or_default();
            *wanted += 1;
            *running += u64::from(task.runs());
        }
        let mut apps: Vec<App> = services
            .into_iter()
            .filter_map(|service| {
                let (running, tasks) = counts.get(service.id.as_str()).copied().unwrap_or_default();
                app(service, running, tasks)
            })
            .collect();
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(apps)
    }
}

/// `None`: it has no label of sticky.
fn app(service: Service, running: u64, tasks: u64) -> Option<App> {
    let Service { id, spec } = service;
    let labels = spec.labels.unwrap_or_default();
    if !labels.keys().any(|label| labels::is_ours(label)) {
        return None;
    }
    let config = labels::read(&labels, &Instance { cluster: None, https: true }).config;
    let wanted = match spec.mode.replicated {
        Some(replicated) => replicated.replicas.unwrap_or(1),
        None => tasks,
    };
    let config = config.as_ref();
    let cookies = config.and_then(|config| config.cookie.as_ref());
    Some(App {
        name: spec.name,
        id,
        hosts: config
            .map(|config| config.hosts.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        affinity: config.map_or("unknown", status::affinity).to_owned(),
        cookies: cookies.map(|cookies| cookies.names.clone()).unwrap_or_default(),
        replicas: Replicas { running, wanted },
    })
}

const HEADINGS: [&str; 5] = ["NAME", "HOSTS", "AFFINITY", "COOKIES", "REPLICAS"];

/// The list for people, columns under their headings.
#[must_use]
pub fn table(apps: &[App]) -> String {
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(apps.iter().map(|app| {
        let Replicas { running, wanted } = app.replicas;
        [
            app.name.clone(),
            list(&app.hosts),
            app.affinity.clone(),
            list(&app.cookies),
            format!("{running}/{wanted}"),
        ]
    }));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        })
        .collect()
}
