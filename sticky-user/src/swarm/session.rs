//! One connection to Docker, from the first look at everything until it is lost.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use bollard::models::{EventMessage, EventMessageTypeEnum as Kind};
use tokio::time::{Instant as Clock, sleep_until};
use tracing::debug;

use super::api::Api;
use super::decode::Listed;
use super::view::{Changed, Cluster, TaskView};
use super::watched::{Due, Watched};
use super::{Provider, build};
use crate::docker::engine;
use crate::docker::pace::{Extent, Pace};
use crate::model::Snapshot;
use crate::provider::ProviderStatus;

/// Time to the second look at everything.
const AGAIN: Duration = Duration::from_millis(100);

/// What events ask for.
#[derive(Default)]
struct Asked {
    whole: bool,
    /// Only what is known needs to be put together again.
    rebuild: bool,
}

/// Follows the cluster; never ends but by an error.
pub(super) async fn follow(provider: &mut Provider) -> Result<Infallible> {
    let api = Api::connect(provider.docker_host.as_deref()).await?;
    let own_node = api.own_node().await?;
    let mut cluster = Cluster { own_node, ..Cluster::default() };
    cluster.changed.all = true;
    // Asked for before the lists are, so that nothing falls between.
    let mut events = engine::read_ahead(api.events());
    look_at_all(&api, provider, &mut cluster).await?;
    provider.reached();
    publish(provider, &mut cluster, Instant::now());
    let mut pace = Pace::new(Instant::now());
    // The answer to the lists may have been quicker than that to the events: everything is looked at once more.
    let (mut asked, again) = (Asked { whole: true, ..Asked::default() }, Instant::now() + AGAIN);
    let (mut unsettled, mut watched) = (HashSet::new(), Watched::default());
    let all = Changed { all: true, ..Changed::default() };
    build::follow_unsettled(&mut unsettled, &cluster, &all, &provider.instance);
    watched.asked(None, &unsettled, Instant::now());
    loop {
        let due = if asked.whole { Some(again) } else { watched.next() };
        tokio::select! {
            event = events.next() => {
                let event = event.context("the stream of events ended")?.context("GET /events")?;
                note(event, &mut cluster, &mut asked, &mut watched, &mut pace);
                if std::mem::take(&mut asked.rebuild) {
                    let other = cluster.changed.clone();
                    publish(provider, &mut cluster, pace.event_at.unwrap_or_else(Instant::now));
                    build::follow_unsettled(&mut unsettled, &cluster, &other, &provider.instance);
                }
            }
            () = sleep_until(Clock::from_std(pace.next_look(due))) => {
                let began = Instant::now();
                let event_at = pace.event_at.unwrap_or(began);
                let due = watched.due(began);
                let extent = if std::mem::take(&mut asked.whole) || pace.whole(began) {
                    look_at_all(&api, provider, &mut cluster).await?;
                    pace.sized(cluster.tasks.values().map(Vec::len).sum());
                    Extent::Whole
                } else if due.services.is_empty() {
                    look_at_tasks(&api, provider, &mut cluster).await?;
                    Extent::Tasks
                } else {
                    look_at(&api, provider, &mut cluster, &due).await?;
                    Extent::Some
                };
                let other = cluster.changed.clone();
                let changed = publish(provider, &mut cluster, event_at);
                if other.any() {
                    build::follow_unsettled(&mut unsettled, &cluster, &other, &provider.instance);
                }
                let some = (extent == Extent::Some).then_some(&*due.services);
                watched.asked(some, &unsettled, began);
                other.services.iter().for_each(|id| watched.changed(id, began));
                debug!(?extent, changed, took = ?began.elapsed(), "looked at the cluster");
                pace.looked(began, extent, changed);
            }
        }
    }
}

/// Lists everything.
async fn look_at_all(api: &Api, provider: &Provider, cluster: &mut Cluster) -> Result<()> {
    let (services, nodes, networks, unhealthy) =
        tokio::try_join!(api.services(None), api.nodes(), api.networks(), api.unhealthy())?;
    cluster.replace_services(None, services);
    cluster.replace_surroundings(nodes, networks);
    // Events that are still to be read are newer than this list, or lead to the same.
    cluster.changed.all |= cluster.containers.unhealthy != unhealthy;
    cluster.containers.unhealthy = unhealthy;
    let ours = ours(cluster, provider);
    // What is known is looked at again, now and then.
    let mut listed = std::mem::take(&mut cluster.listed);
    let tasks = tasks(api, cluster, &ours, &mut listed);
    let (tasks, gwbridge) = tokio::try_join!(tasks, api.gwbridge(None))?;
    cluster.listed = listed;
    cluster.replace_tasks(None, tasks);
    cluster.forget_containers();
    cluster.add_addresses(None, gwbridge);
    other_addresses(api, cluster, None).await
}

/// Lists the tasks of a quiet cluster: they alone tell of what no event announces, such as a node that is lost.
async fn look_at_tasks(api: &Api, provider: &Provider, cluster: &mut Cluster) -> Result<()> {
    let mut listed = std::mem::take(&mut cluster.listed);
    let tasks = tasks(api, cluster, &ours(cluster, provider), &mut listed).await?;
    cluster.listed = listed;
    cluster.replace_tasks(None, tasks);
    if cluster.changed.any() { missing_addresses(api, cluster, None).await } else { Ok(()) }
}

/// Asks about these services.
async fn look_at(api: &Api, provider: &Provider, cluster: &mut Cluster, due: &Due) -> Result<()> {
    if !due.named.is_empty() {
        cluster.replace_services(Some(&due.named), api.services(Some(&due.named)).await?);
    }
    let ours = |id: &&String| {
        let service = cluster.services.get(*id);
        service.is_some_and(|service| build::is_ours(service, &provider.instance))
    };
    let ids: Vec<String> = due.services.iter().filter(ours).cloned().collect();
    let tasks = tasks(api, cluster, &ids, &mut Listed::default()).await?;
    cluster.replace_tasks(Some(&ids), tasks);
    missing_addresses(api, cluster, Some(&ids)).await
}

/// Asks for addresses if a task of these services, or of all, has none.
async fn missing_addresses(
    api: &Api,
    cluster: &mut Cluster,
    services: Option<&[String]>,
) -> Result<()> {
    let missing = cluster.without_address(services);
    if !missing.is_empty() {
        cluster.add_addresses(services, api.gwbridge(Some(&missing)).await?);
        other_addresses(api, cluster, services).await?;
    }
    Ok(())
}

/// The tasks of these services. Docker does not answer for a service that it does not know any more, so where one is
/// removed all tasks are listed.
async fn tasks(
    api: &Api,
    cluster: &Cluster,
    ids: &[String],
    listed: &mut Listed,
) -> Result<Vec<Arc<TaskView>>> {
    let removed =
        ids.iter().any(|id| cluster.services.get(id).is_some_and(|service| service.removed));
    if !removed && let Some(tasks) = api.tasks(Some(ids), listed).await? {
        return Ok(tasks);
    }
    Ok(api.tasks(None, listed).await?.unwrap_or_default())
}

/// The addresses of tasks that are on no overlay, if one of these services, or of all, needs them.
async fn other_addresses(
    api: &Api,
    cluster: &mut Cluster,
    services: Option<&[String]>,
) -> Result<()> {
    if cluster.without_address(services).is_empty() {
        return Ok(());
    }
    let overlays: HashSet<&str> = cluster
        .networks
        .values()
        .filter(|network| network.driver == "overlay")
        .map(|network| network.name.as_str())
        .collect();
    let mut found = api.containers().await?;
    found.retain(|container, addresses| {
        let on_overlay =
            addresses.iter().any(|address| overlays.contains(address.network.as_str()));
        addresses.retain(|address| !overlays.contains(address.network.as_str()));
        // One on an overlay will be on the gateway bridge in a moment.
        !on_overlay && !addresses.is_empty() && !cluster.addresses.contains_key(container)
    });
    cluster.add_addresses(services, found);
    Ok(())
}

/// What an event tells, and what it asks to be looked at.
fn note(
    event: EventMessage,
    cluster: &mut Cluster,
    asked: &mut Asked,
    watched: &mut Watched,
    pace: &mut Pace,
) {
    let now = Instant::now();
    let actor = event.actor.unwrap_or_default();
    let id = actor.id.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let action = event.action.unwrap_or_default();
    match event.typ {
        Some(Kind::SERVICE) => {
            watched.named(id, now);
        }
        Some(Kind::NODE | Kind::NETWORK) => asked.whole = true,
        Some(Kind::CONTAINER) => {
            let Some(service) = attributes.get("com.docker.swarm.service.id") else { return };
            let containers = &mut cluster.containers;
            match action.as_str() {
                "die" => asked.rebuild |= containers.dead.insert(id),
                // TERM and KILL, as numbers: other signals mean other things to an application.
                "kill"
                    if attributes
                        .get("signal")
                        .is_some_and(|signal| signal == "15" || signal == "9") =>
                {
                    asked.rebuild |= containers.stopping.insert(id);
                }
                "health_status: unhealthy" => asked.rebuild |= containers.unhealthy.insert(id),
                "health_status: healthy" => asked.rebuild |= containers.unhealthy.remove(&id),
                _ => {}
            }
            if asked.rebuild {
                cluster.changed.services.insert(service.clone());
            }
            watched.named(service.clone(), now);
        }
        _ => return,
    }
    pace.event(now);
}

/// Puts together what was seen and hands it over. Returns whether anything in it is new.
fn publish(provider: &mut Provider, cluster: &mut Cluster, event_at: Instant) -> bool {
    let changed = std::mem::take(&mut cluster.changed);
    if !changed.any() {
        provider.publisher.still(SystemTime::now());
        return false;
    }
    let services =
        provider.built.services(cluster, &changed, &provider.instance, &mut provider.memory);
    let status = ProviderStatus {
        kind: "swarm",
        connected: true,
        error: None,
        last_update: SystemTime::now(),
    };
    provider.publisher.found(Snapshot { services }, event_at, status)
}

/// The ids of the services of this instance.
fn ours(cluster: &Cluster, provider: &Provider) -> Vec<String> {
    let services = cluster.services.values();
    services
        .filter(|service| build::is_ours(service, &provider.instance))
        .map(|service| service.id.clone())
        .collect()
}
