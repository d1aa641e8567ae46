//! `sticky app`: the Apcera commands, on Swarm services.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::app::{Change, Changed, Error, New, Progress, Swarm, table};
use crate::failure::Failure;
use crate::labels::{HOSTS, IP_HASH, PORT, SESSION_COOKIE};

pub(super) const HELP: &str = "\
Examples:
  sticky app create my-sticky-app --image shop --port 8080 --host shop.example.com --sticky-session-cookies=JSESSIONID
  sticky app update my-sticky-app --sticky-session-cookies=COOKIE_1,COOKIE_2
  sticky app update my-sticky-app --no-sticky-session-cookies
  sticky app list

Labels of the service are changed and nothing else; its tasks go on, and sticky follows within a moment.
For an image that needs a login, create the service with `docker service create` and update it here.";

#[derive(Debug, Args)]
pub(super) struct App {
    #[command(subcommand)]
    command: Command,
    /// Docker's API, of a manager [default: DOCKER_HOST and its TLS variables, else the local socket]
    #[arg(long, global = true, env = "STICKY_DOCKER_HOST", value_name = "URL")]
    docker_host: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a service with sticky sessions, and wait for its tasks
    Create(Create),
    /// Change the affinity or the replicas of a service
    Update(Update),
    /// Show the services with labels of sticky
    List {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Remove a service
    Remove { name: String },
}

#[derive(Debug, Args)]
struct Create {
    /// Name of the service
    name: String,
    #[arg(long, value_name = "IMG")]
    image: String,
    /// Port that the application listens on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Host name that requests come for, repeatable
    #[arg(long = "host", value_name = "H", value_delimiter = ',')]
    hosts: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: u64,
    /// Network of the Swarm for its tasks
    #[arg(long, value_name = "NET")]
    network: Option<String>,
    /// Cookies of the application that make a session
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    sticky_session_cookies: Vec<String>,
    /// Keep clients by their address
    #[arg(long)]
    ip_hash: bool,
}

#[derive(Debug, Args)]
struct Update {
    /// Name or id of the service
    name: String,
    /// Cookies of the application that make a session, in place of those before
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        conflicts_with = "no_sticky_session_cookies"
    )]
    sticky_session_cookies: Vec<String>,
    /// No cookie makes a session any more
    #[arg(long)]
    no_sticky_session_cookies: bool,
    /// Keep clients by their address
    #[arg(long, conflicts_with = "no_ip_hash")]
    ip_hash: bool,
    /// Keep no client by its address any more
    #[arg(long)]
    no_ip_hash: bool,
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
}

pub(super) fn run(app: App) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime for the command")?;
    let App { command, docker_host } = app;
    // Before Docker is asked for anything.
    if let Command::Update(update) = &command
        && update.change().is_none()
    {
        return Err(Failure::Usage(
            "nothing to change: give --sticky-session-cookies=A,B, --no-sticky-session-cookies, --ip-hash, --no-ip-hash or --replicas N".to_owned(),
        ));
    }
    runtime.block_on(async {
        let swarm = Swarm::connect(docker_host.as_deref()).await?;
        match command {
            Command::Create(create) => {
                let name = create.name.clone();
                let changed = swarm.create(&create.service(), &mut Progress::new()).await?;
                anstream::println!("{name}: created");
                tell(&name, &changed);
            }
            Command::Update(update) => {
                let change = update.change().unwrap_or_default();
                let changed = swarm.update(&update.name, &change, &mut Progress::new()).await?;
                if changed.labels.is_empty() && changed.replicas.is_none() {
                    anstream::println!("{}: is so already", update.name);
                }
                tell(&update.name, &changed);
            }
            Command::List { json } => {
                let apps = swarm.list().await?;
                if json {
                    let text = serde_json::to_string_pretty(&apps);
                    anstream::println!("{}", text.context("the list cannot be written")?);
                } else {
                    anstream::print!("{}", table(&apps));
                }
            }
            Command::Remove { name } => {
                swarm.remove(&name).await?;
                anstream::println!("{name}: removed");
            }
        }
        Ok(())
    })
}

fn tell(name: &str, changed: &Changed) {
    for (label, value) in &changed.labels {
        match value {
            Some(value) => anstream::println!("{name}: {label}={value}"),
            None => anstream::println!("{name}: {label} taken away"),
        }
    }
    if let Some(replicas) = changed.replicas {
        anstream::println!("{name}: {replicas} of {replicas} tasks run");
    }
    for remark in &changed.remarks {
        anstream::eprintln!("{name}: {} {}; {}", remark.label, remark.message, remark.hint);
    }
}

impl Create {
    fn service(self) -> New {
        let mut labels = BTreeMap::from([(PORT.to_owned(), self.port.to_string())]);
        if !self.hosts.is_empty() {
            labels.insert(HOSTS.to_owned(), self.hosts.join(","));
        }
        if !self.sticky_session_cookies.is_empty() {
            labels.insert(SESSION_COOKIE.to_owned(), self.sticky_session_cookies.join(","));
        }
        if self.ip_hash {
            labels.insert(IP_HASH.to_owned(), "true".to_owned());
        }
        let Self { name, image, network, replicas, .. } = self;
        New { name, image, network, replicas, labels }
    }
}

impl Update {
    /// `None`: nothing is asked for.
    fn change(&self) -> Option<Change> {
        let mut labels = Vec::new();
        if !self.sticky_session_cookies.is_empty() {
            labels.push((SESSION_COOKIE, Some(self.sticky_session_cookies.join(","))));
        }
        if self.no_sticky_session_cookies {
            labels.push((SESSION_COOKIE, None));
        }
        if self.ip_hash {
            labels.push((IP_HASH, Some("true".to_owned())));
        }
        if self.no_ip_hash {
            labels.push((IP_HASH, None));
        }
        let asked = !labels.is_empty() || self.replicas.is_some();
        asked.then_some(Change { labels, replicas: self.replicas })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotPermitted { .. } => Self::NotPermitted(error.to_string()),
            Error::Label { .. } | Error::Global(_) => Self::Usage(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}
