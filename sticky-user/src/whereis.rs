//! `sticky where`: the backend a client gets, and why, from what is loaded. Asking changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sticky_common::outcome::Outcome;

use crate::clients::{Choice, ClientTable};
use crate::control::{FrontendInForce, InForce, InForceService, Path};
use crate::model::{Backend, Service, State};
use crate::proxy::{CookieView, Reason};

/// Who is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    pub client: IpAddr,
    /// Name or id; `None`: every service.
    pub service: Option<String>,
    /// Value of our cookie.
    pub cookie: Option<String>,
}

/// Where a new request or connection of the client would go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub service: String,
    /// `None`: none is up, or the choice is made by load when the request comes.
    pub backend: Option<Located>,
    pub reason: String,
    /// `xdp`, `proxy` or `relay`.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Located {
    pub id: String,
    pub name: String,
    pub addr: Option<String>,
}

/// No service has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no service {}; known are: {}", service.as_deref().unwrap_or("at all"), known.join(", "))]
pub struct UnknownService {
    pub service: Option<String>,
    pub known: Vec<String>,
}

/// `inside`: the client's packets come by no interface that XDP is on.
pub(crate) fn answer(
    question: &Question,
    in_force: &InForce,
    clients: &dyn ClientTable,
    inside: bool,
    cookies: &dyn Fn(&str, &str) -> Option<CookieView>,
) -> Result<Vec<Answer>, UnknownService> {
    let services = &in_force.snapshot.services;
    let asked =
        |s: &&Arc<Service>| question.service.as_ref().is_none_or(|q| *q == s.name || *q == s.id);
    let answers: Vec<_> = services
        .iter()
        .filter(asked)
        .map(|service| {
            let cookie = question.cookie.as_deref().and_then(|value| cookies(&service.id, value));
            let path = path(service, question.client, inside, in_force);
            one(service, question.client, cookie, path, clients)
        })
        .collect();
    if answers.is_empty() && question.service.is_some() {
        return Err(UnknownService {
            service: question.service.clone(),
            known: services.iter().map(|service| service.name.clone()).collect(),
        });
    }
    Ok(answers)
}

fn one(
    service: &Service,
    client: IpAddr,
    cookie: Option<CookieView>,
    path: Path,
    clients: &dyn ClientTable,
) -> Answer {
    let answer = |backend, reason: &str| Answer {
        service: service.name.clone(),
        backend,
        reason: reason.to_owned(),
        path: path.as_str().to_owned(),
    };
    let new = service.backends.iter().any(|backend| backend.state.takes_new());
    // A cookie comes first, and only requests have one.
    if let Some(CookieView { reason, backend }) = cookie {
        let named = backend.filter(|_| reason == Reason::Pinned);
        let backend = named.and_then(|id| service.backends.iter().find(|b| b.id == id));
        if let Some(backend) = backend {
            let reason = if draining(backend) { "draining" } else { reason.as_str() };
            return Answer {
                path: Path::Proxy.as_str().to_owned(),
                ..answer(Some(located(backend)), reason)
            };
        }
        if !service.config.ip_hash && new {
            return answer(None, reason.as_str());
        }
    }
    if !service.config.ip_hash {
        return answer(None, if new { Outcome::New } else { Outcome::NoBackend }.as_str());
    }
    let Some(Choice { backend, reason }) = clients.look(&service.id, client) else {
        return answer(None, Outcome::NoBackend.as_str());
    };
    match service.backends.iter().find(|b| b.id == backend) {
        Some(found) => {
            answer(Some(located(found)), if draining(found) { "draining" } else { reason.as_str() })
        }
        // The record is newer than the snapshot: what is loaded counts.
        None => answer(
            Some(Located { name: backend.clone(), id: backend, addr: None }),
            reason.as_str(),
        ),
    }
}

fn draining(backend: &Backend) -> bool {
    matches!(backend.state, State::Draining(_))
}

fn located(backend: &Backend) -> Located {
    Located {
        id: backend.id.clone(),
        name: backend.name.clone(),
        addr: backend.addr.map(|addr| addr.to_string()),
    }
}

/// How the client reaches the service first.
fn path(service: &Service, client: IpAddr, inside: bool, in_force: &InForce) -> Path {
    let of = |s: &&Arc<InForceService>| s.id == service.id;
    let frontends = in_force.services.iter().find(of).map_or(&[][..], |s| &s.frontends);
    let family =
        |f: &&FrontendInForce| f.frontend.addr.is_ipv4() == client.to_canonical().is_ipv4();
    match frontends.iter().find(family).or(frontends.first()) {
        Some(_) if inside => Path::Relay,
        Some(frontend) => frontend.path,
        None => Path::Proxy,
    }
}

impl Answer {
    /// One line for people.
    #[must_use]
    pub fn line(&self, client: IpAddr) -> String {
        let Self { service, backend, reason, path } = self;
        let why = explain(reason, backend.is_some());
        match backend {
            Some(Located { id, name, addr }) => {
                let addr = addr.as_deref().unwrap_or("no address");
                format!(
                    "{service}: {client} -> {name} ({addr}, id {id}), by {path}: {reason}, {why}"
                )
            }
            None => format!("{service}: {client} -> no backend yet, by {path}: {reason}, {why}"),
        }
    }
}

fn explain(reason: &str, chosen: bool) -> &'static str {
    match reason {
        "pinned" | "recorded" => "the record of this client says so",
        "draining" => "the record of this client says so, and new clients go elsewhere",
        "hash" => "the slot of this client says so",
        "new" if chosen => "a client with no record goes where its slot says",
        "new" => "the choice is made by load when a request comes",
        "repinned" if !chosen => "the backend of the cookie takes no new requests any more",
        "repinned" => "the recorded backend takes no new connections any more",
        "invalid" => "the cookie is not one of ours for this service",
        "expired" if !chosen => "the cookie is too old",
        "expired" => "the record is older than the affinity time, so its slot says",
        "no_backend" => "no backend is up",
        _ => "as the loaded tables say",
    }
}

#[cfg(test)]
mod tests;
