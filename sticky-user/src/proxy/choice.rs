//! The backend of a request: cookie, then hash, then the client table, then load (contract, section 5).

use std::net::IpAddr;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sticky_common::hash::{self, HashKey};
use sticky_common::maglev;

use super::cookies;
use super::presented::Presented;
use super::random::Random;
use super::reason::Reason;
use super::routes::Route;
use super::service::{Backend, Service};
use crate::clients::ClientTable;
use crate::model::{CookieMode, State};

/// A backend, and why.
pub(super) struct Choice {
    pub service: Arc<Service>,
    pub backend: usize,
    pub reason: Reason,
}

impl Choice {
    pub(super) fn backend(&self) -> &Backend {
        self.service.backends.get(self.backend).expect("chosen among them")
    }

    /// What a cookie says of it: hash of the service, and id of the backend.
    pub(super) fn place(&self) -> (u64, &str) {
        (self.service.hash, &self.backend().id)
    }
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// No service of the route has a backend just now.
    Nobody,
    /// Every one that would do has as many requests as it takes (`sticky.max_connections`).
    Full,
    /// The client's own is lost, and the service wants no other (`sticky.on_loss=strict`).
    Lost,
}

/// A backend that Swarm ends hands its clients over, also where none may be lost (contract, section 6.1).
fn ordered_to_end(service: &Service, task: &str) -> bool {
    let backend = service.position(task).and_then(|at| service.backends.get(at));
    backend.is_some_and(|backend| matches!(backend.state, State::Draining(_)))
}

/// Everything a choice depends on besides the route.
pub(super) struct Chooser<'a> {
    pub clients: &'a dyn ClientTable,
    pub random: &'a Random,
    pub key: HashKey,
    pub now_ms: u64,
    pub client: IpAddr,
    pub headers: &'a HeaderMap,
    /// Pools of the backends that this request failed at.
    pub failed: &'a [u64],
}

impl Chooser<'_> {
    pub(super) fn choose(&self, route: &Route, presented: &Presented) -> Result<Choice, NoChoice> {
        let mut service = None;
        if let Some(pin) = presented.known() {
            let pinned = |service: &&Arc<Service>| service.hash == pin.service;
            if let Some(pinned) = self.admitted(route).find(pinned) {
                match pinned.position(&pin.task).filter(|at| self.keeps(pinned, *at)) {
                    Some(at) if pinned.full(at) => return Err(NoChoice::Full),
                    Some(backend) => {
                        let service = pinned.clone();
                        return Ok(Choice { service, backend, reason: Reason::Pinned });
                    }
                    None if pinned.strict && !ordered_to_end(pinned, &pin.task) => {
                        return Err(NoChoice::Lost);
                    }
                    // Sticky to the version before the task.
                    None => service = Some(pinned).filter(|s| s.takes_new(self.failed)),
                }
            }
        }
        let service = service.or_else(|| self.version(route, presented)).ok_or(NoChoice::Nobody)?;
        if service.strict && service.ip_hash && presented.known().is_none() && self.lost(service) {
            return Err(NoChoice::Lost);
        }
        match self.within(service, presented) {
            Some((at, _)) if service.full(at) => Err(NoChoice::Full),
            Some((backend, reason)) => Ok(Choice { service: service.clone(), backend, reason }),
            None if service.takes_new(self.failed) => Err(NoChoice::Full),
            None => Err(NoChoice::Nobody),
        }
    }

    /// Whether the client has a record of a backend that does not serve it just now.
    fn lost(&self, service: &Service) -> bool {
        let home = self.clients.home(&service.id, self.client);
        home.is_some_and(|home| {
            let at = service.position(&home);
            !at.is_some_and(|at| self.keeps(service, at)) && !ordered_to_end(service, &home)
        })
    }

    /// Whether a backend goes on with the clients it has.
    fn keeps(&self, service: &Service, at: usize) -> bool {
        let Some(backend) = service.backends.get(at) else { return false };
        (backend.state.keeps() || service.awaits_successor(at))
            && !self.failed.contains(&backend.pool)
            && (!service.ejected(at, self.now_ms)
                || !service.has_other(at, self.failed, self.now_ms))
    }

    /// The services of a route that are for this client at all.
    fn admitted<'r>(&self, route: &'r Route) -> impl Iterator<Item = &'r Arc<Service>> + use<'r> {
        let client = self.client;
        route.services.iter().filter(move |service| service.admits(client))
    }

    /// One of the services that share a route, by weight: the one that knows the client, or by hash where that decides.
    fn version<'r>(&self, route: &'r Route, presented: &Presented) -> Option<&'r Arc<Service>> {
        if let [only] = route.services.as_slice() {
            return Some(only);
        }
        let known = |service: &&Arc<Service>| {
            service.ip_hash
                && self
                    .clients
                    .look(&service.id, self.client)
                    .is_some_and(|c| Reason::from(c.reason) == Reason::Pinned)
        };
        if let Some(service) = self.admitted(route).find(known) {
            return Some(service);
        }
        let usable = || self.admitted(route).filter(|service| service.takes_new(self.failed));
        let total: u32 = usable().fold(0, |sum, service| sum.saturating_add(service.weight));
        let value = self.admitted(route).find_map(|service| self.value(service, presented));
        let by_client = || {
            let service = self.admitted(route).find(|service| service.ip_hash)?;
            Some(service.client_hash(self.key, self.client))
        };
        let hash = value.map(|value| maglev::identity(self.key, value)).or_else(by_client);
        // The other half of the hash chooses the slot.
        let mut rest =
            hash.map_or_else(|| self.random.below(total), |hash| hash::slot(hash << 32, total));
        for service in usable() {
            if rest < service.weight {
                return Some(service);
            }
            rest -= service.weight;
        }
        // All weights are 0, or the client table still knows somebody.
        usable().next().or_else(|| self.admitted(route).next())
    }

    fn within(&self, service: &Service, presented: &Presented) -> Option<(usize, Reason)> {
        if let Some(at) = self.by_value(service, presented) {
            return Some((at, Reason::Hash));
        }
        if service.ip_hash
            && let Some(choice) = self.clients.choose(&service.id, self.client)
        {
            let reason = match (Reason::from(choice.reason), presented.reason()) {
                (reason, Reason::New) | (reason @ Reason::Pinned, Reason::Invalid) => reason,
                (_, reason) => reason,
            };
            match service.position(&choice.backend) {
                Some(at) if self.keeps(service, at) => return Some((at, reason)),
                _ => {
                    let hash = service.client_hash(self.key, self.client);
                    let at = service.stand_in(hash, self.failed, self.now_ms);
                    if let Some(at) = at {
                        return Some((at, Reason::Repinned));
                    }
                }
            }
        }
        let reason = presented.reason();
        let (random, failed, now_ms) = (self.random, self.failed, self.now_ms);
        let at = match reason {
            Reason::Repinned => service.lasting(random, failed, now_ms)?,
            _ => service.better_of_two(random, failed, now_ms)?,
        };
        Some((at, reason))
    }

    /// What the shared hash goes by: the first of the named cookies in `hash` mode, or a header without a part of ours.
    /// What is empty tells nobody from another.
    fn value(&self, service: &Service, presented: &Presented) -> Option<&[u8]> {
        let cookie = service.cookie.as_ref().filter(|cookie| cookie.mode == CookieMode::Hash);
        let named = |wanted: &String| {
            let is_it =
                |(name, value): &(&[u8], &[u8])| *name == wanted.as_bytes() && !value.is_empty();
            cookies::pairs(self.headers.get_all(COOKIE)).find(is_it).map(|(_, value)| value)
        };
        let header = || {
            let name = service.header.as_ref().filter(|_| presented.tag.is_none())?;
            self.headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty())
        };
        cookie.and_then(|cookie| cookie.names.iter().find_map(named)).or_else(header)
    }

    fn by_value(&self, service: &Service, presented: &Presented) -> Option<usize> {
        let (hash, at) = service.owner(self.value(service, presented)?)?;
        if self.keeps(service, at) {
            return Some(at);
        }
        service.stand_in(hash, self.failed, self.now_ms)
    }
}
