//! One connection to Docker, from the first look at everything until it is lost.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use bollard::models::{EventMessage, EventMessageTypeEnum as Kind};
use tokio::time::{Instant as Clock, sleep_until};
use tracing::debug;

use super::api::Api;
use super::view::{Addresses, Changed, Cluster, TaskView};
use super::{Provider, build};
use crate::docker::engine;
use crate::docker::pace::Pace;
use crate::model::Snapshot;
use crate::provider::ProviderStatus;

/// A service is asked about for at least this long after an event named it.
const NAMED: Duration = Duration::from_secs(3);

/// What events ask for.
#[derive(Default)]
struct Asked {
    /// Services, and when an event named them last.
    named: HashMap<String, Instant>,
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
    let mut asked = Asked { whole: true, ..Asked::default() };
    let mut unsettled = HashSet::new();
    let all = Changed { all: true, ..Changed::default() };
    build::follow_unsettled(&mut unsettled, &cluster, &all, &provider.instance);
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.context("the stream of events ended")?.context("GET /events")?;
                note(event, &mut cluster, &mut asked, &mut pace);
                if std::mem::take(&mut asked.rebuild) {
                    let other = cluster.changed.clone();
                    publish(provider, &mut cluster, pace.event_at.unwrap_or_else(Instant::now));
                    build::follow_unsettled(&mut unsettled, &cluster, &other, &provider.instance);
                }
            }
            () = sleep_until(Clock::from_std(pace.next_look(!unsettled.is_empty()))) => {
                let began = Instant::now();
                let event_at = pace.event_at.unwrap_or(began);
                let whole = std::mem::take(&mut asked.whole) || pace.whole(began);
                if whole {
                    look_at_all(&api, provider, &mut cluster).await?;
                } else {
                    look_at(&api, provider, &mut cluster, &asked, &unsettled).await?;
                }
                asked.named.retain(|_, named_at| began.duration_since(*named_at) < NAMED);
                let other = cluster.changed.clone();
                let changed = publish(provider, &mut cluster, event_at);
                if other.any() {
                    build::follow_unsettled(&mut unsettled, &cluster, &other, &provider.instance);
                }
                debug!(whole, changed, took = ?began.elapsed(), "looked at the cluster");
                pace.sized(cluster.tasks.values().map(Vec::len).sum());
                pace.looked(began, whole, changed);
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
    let nobody = Addresses::new();
    let (tasks, gwbridge) = tokio::try_join!(tasks(api, cluster, &ours), api.gwbridge(&nobody))?;
    cluster.replace_tasks(None, tasks);
    cluster.forget_containers();
    cluster.add_addresses(gwbridge);
    other_addresses(api, cluster, None).await
}

/// Asks about the services that events named or that are changing.
async fn look_at(
    api: &Api,
    provider: &Provider,
    cluster: &mut Cluster,
    asked: &Asked,
    unsettled: &HashSet<String>,
) -> Result<()> {
    let named = asked.named.keys().filter(|id| !unsettled.contains(*id));
    let named: Vec<String> = unsettled.iter().chain(named).cloned().collect();
    let asked = if named.is_empty() {
        // A quiet cluster: the tasks alone tell of what no event announces, such as a node that is lost.
        let tasks = tasks(api, cluster, &ours(cluster, provider)).await?;
        cluster.replace_tasks(None, tasks);
        if !cluster.changed.any() {
            return Ok(());
        }
        None
    } else {
        cluster.replace_services(Some(&named), api.services(Some(&named)).await?);
        let ours = |id: &&String| {
            let service = cluster.services.get(*id);
            service.is_some_and(|service| build::is_ours(service, &provider.instance))
        };
        let ids: Vec<String> = named.iter().filter(ours).cloned().collect();
        let tasks = tasks(api, cluster, &ids).await?;
        cluster.replace_tasks(Some(&ids), tasks);
        Some(ids)
    };
    let asked = asked.as_deref();
    if cluster.without_address(asked) {
        cluster.add_addresses(api.gwbridge(&cluster.addresses).await?);
        other_addresses(api, cluster, asked).await?;
    }
    Ok(())
}

/// The tasks of these services. Docker does not answer for a service that it does not know any more, so where one is
/// removed all tasks are listed.
async fn tasks(api: &Api, cluster: &Cluster, ids: &[String]) -> Result<Vec<TaskView>> {
    let removed =
        ids.iter().any(|id| cluster.services.get(id).is_some_and(|service| service.removed));
    if !removed && let Some(tasks) = api.tasks(Some(ids)).await? {
        return Ok(tasks);
    }
    Ok(api.tasks(None).await?.unwrap_or_default())
}

/// The addresses of tasks that are on no overlay, if one of these services, or of all, needs them.
async fn other_addresses(
    api: &Api,
    cluster: &mut Cluster,
    services: Option<&[String]>,
) -> Result<()> {
    if !cluster.without_address(services) {
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
    cluster.add_addresses(found);
    Ok(())
}

/// What an event tells, and what it asks to be looked at.
fn note(event: EventMessage, cluster: &mut Cluster, asked: &mut Asked, pace: &mut Pace) {
    let now = Instant::now();
    let actor = event.actor.unwrap_or_default();
    let id = actor.id.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let action = event.action.unwrap_or_default();
    match event.typ {
        Some(Kind::SERVICE) => {
            asked.named.insert(id, now);
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
            asked.named.insert(service.clone(), now);
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
