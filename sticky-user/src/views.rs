//! One place that knows what runs now, for everyone who asks: the socket, the admin address, the metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sticky_common::outcome::Outcome;
use tokio::sync::watch;

use crate::clients::ClientTable;
use crate::control::{Counters, DataPathView, InForce, Path};
use crate::drains::{self, Done, Drains, Order, Refused};
use crate::firewall::{Bypassed, Firewall, Guarded};
use crate::model::Snapshot;
use crate::netinfo;
use crate::provider::Found;
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::status::{self, Status};
use crate::whereis::{self, Answer, Question, UnknownService};

/// What the views are made from. All of it is read, nothing changed.
pub struct Views {
    /// This host's name.
    pub node: String,
    pub table_size: u32,
    /// Client records over all services.
    pub max_clients: u32,
    pub found: watch::Receiver<Arc<Found>>,
    pub in_force: watch::Receiver<Option<Arc<InForce>>>,
    /// `None`: layer 7 only.
    pub data_path: Option<Arc<dyn DataPathView>>,
    pub clients: Arc<dyn ClientTable>,
    pub proxy: Arc<Proxy>,
    pub drains: Arc<Drains>,
    /// `None`: layer 7 only.
    pub relay: Option<Arc<Relay>>,
    pub firewall: Firewall,
}

impl Views {
    /// The state of this node. Reads maps: not for a thread that serves requests.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { firewall: self.bypassed(), ..self.status_and_outcomes().0 }
    }

    /// The host's rules that do not hold for a frontend at layer 4.
    fn bypassed(&self) -> Vec<Bypassed> {
        let Some(in_force) = self.in_force.borrow().clone() else { return Vec::new() };
        let interfaces = self.data_path.as_ref().map(|d| d.interfaces()).unwrap_or_default();
        let interfaces: Vec<_> = interfaces.into_iter().map(|interface| interface.name).collect();
        let named = in_force.snapshot.services.iter().zip(&in_force.services);
        let frontends: Vec<_> = named
            .flat_map(|(service, found)| {
                let at_layer_4 = found.frontends.iter().filter(|f| f.path != Path::Proxy);
                at_layer_4.map(|f| Guarded {
                    service: service.name.clone(),
                    addr: f.frontend.addr,
                    port: f.frontend.port,
                    target: f.target,
                    proto: f.frontend.proto,
                })
            })
            .collect();
        self.firewall.bypassed(&frontends, &interfaces)
    }

    /// The state, and the counters of packets by outcome.
    pub(crate) fn status_and_outcomes(&self) -> (Status, Vec<(Outcome, u64)>) {
        let counters = self.data_path.as_ref().map_or_else(Counters::default, |data_path| {
            data_path.counters().unwrap_or_else(|error| {
                tracing::warn!(%error, "the counters of the data path cannot be read");
                Counters::default()
            })
        });
        let found = self.found.borrow().clone();
        let in_force = self.in_force.borrow().clone();
        let counts = self.proxy.backends();
        let requests: HashMap<_, _> = counts
            .iter()
            .map(|count| ((count.service.as_str(), count.backend.as_str()), count.requests))
            .collect();
        let mut status = status::build(&status::Parts {
            node: &self.node,
            table_size: self.table_size,
            max_clients: self.max_clients,
            interfaces: self.data_path.as_ref().map(|d| d.interfaces()).unwrap_or_default(),
            provider: &found.status,
            found: &found.snapshot,
            in_force: in_force.as_deref(),
            counters: &counters,
            drains: &self.drains.now(),
            requests: &|service, backend| requests.get(&(service, backend)).copied().unwrap_or(0),
        });
        if let Some(trouble) = self.relay.as_ref().and_then(|relay| relay.trouble()) {
            status.without_relay(&trouble);
        }
        (status, counters.outcomes)
    }

    /// Follows an order to drain something of what is in force, or not to any more.
    ///
    /// # Errors
    /// It names nothing, or too much, or cannot be kept.
    pub fn drain(&self, order: &Order) -> Result<Done, Refused> {
        let in_force = self.in_force.borrow().clone();
        let nothing = Snapshot::default();
        self.drains.change(order, in_force.as_deref().map_or(&nothing, |f| &f.snapshot))
    }

    /// Waits until the drains are in force, at most for `limit`.
    pub async fn drained(&self, limit: Duration) {
        let drains = self.drains.now();
        let mut in_force = self.in_force.clone();
        let followed = in_force.wait_for(|in_force| {
            in_force.as_ref().is_some_and(|f| drains::in_force(&f.snapshot, &drains))
        });
        // An order that takes longer is followed all the same.
        let _ = tokio::time::timeout(limit, followed).await;
    }

    /// The backend of a client, of one service or of each.
    ///
    /// # Errors
    /// There is no service of that name.
    pub fn locate(&self, question: &Question) -> Result<Vec<Answer>, UnknownService> {
        match &*self.in_force.borrow() {
            Some(in_force) => {
                let cookie = |service: &str, value: &str| self.proxy.cookie(service, value);
                let outside: Vec<_> = self.data_path.iter().flat_map(|d| d.interfaces()).collect();
                let outside: Vec<_> =
                    outside.iter().map(|interface| interface.name.as_str()).collect();
                let inside = netinfo::is_inside(question.client, &outside);
                whereis::answer(question, in_force, &*self.clients, inside, &cookie)
            }
            None => Err(UnknownService { service: question.service.clone(), known: Vec::new() }),
        }
    }
}
