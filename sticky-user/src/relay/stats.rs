//! What the relay counts.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sticky_common::outcome::Outcome;

/// Why a connection or datagram was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No backend was up.
    NoBackend,
    /// None of those tried could be connected to.
    Unreachable,
    /// `sticky.allow` or `sticky.deny`.
    Denied,
    /// `sticky.rate`.
    Rate,
    /// As many as can be carried at once.
    Full,
}

impl Refusal {
    const ALL: [Self; 5] =
        [Self::NoBackend, Self::Unreachable, Self::Denied, Self::Rate, Self::Full];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Rate => "rate_limited",
            Self::Full => "full",
        }
    }
}

/// Of one service, as long as it is there.
pub(super) struct ServiceStats {
    pub(super) name: String,
    open: AtomicI64,
    retries: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// By reason.
    choices: [AtomicU64; Outcome::COUNT as usize],
    backends: Mutex<BTreeMap<String, Arc<BackendStats>>>,
}

/// Of one backend.
#[derive(Default)]
pub(super) struct BackendStats {
    pub(super) connections: AtomicU64,
    pub(super) to_backend: AtomicU64,
    pub(super) to_client: AtomicU64,
}

impl ServiceStats {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            open: AtomicI64::default(),
            retries: AtomicU64::default(),
            refused: Default::default(),
            choices: [const { AtomicU64::new(0) }; Outcome::COUNT as usize],
            backends: Mutex::default(),
        }
    }

    pub(super) fn backend(&self, name: &str) -> Arc<BackendStats> {
        Arc::clone(self.backends().entry(name.to_owned()).or_default())
    }

    /// Forgets all other backends.
    pub(super) fn keep<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let names: HashSet<&str> = names.collect();
        self.backends().retain(|name, _| names.contains(name.as_str()));
    }

    pub(super) fn refuse(&self, why: Refusal) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn chose(&self, why: Outcome) {
        if let Some(count) = self.choices.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts something that is open while the value lives.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    fn backends(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<BackendStats>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Open(Arc<ServiceStats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The numbers of all services, replaced at each commit.
pub(super) type All = Arc<Mutex<Vec<Arc<ServiceStats>>>>;

/// Shows them at each scrape.
pub(super) struct Shown(pub(super) All);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("relay")
    }
}

impl Collector for Shown {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let help = "Connections and UDP sessions that the relay carries now";
        let mut family = to.encode_descriptor("relay_open", help, None, MetricType::Gauge)?;
        for service in &services {
            let open = ConstGauge::new(service.open.load(Ordering::Relaxed));
            open.encode(family.encode_family(&[("service", service.name.as_str())])?)?;
        }
        let help = "Connections and UDP sessions that the relay carried to a backend";
        let mut family =
            to.encode_descriptor("relay_connections", help, None, MetricType::Counter)?;
        each_backend(&services, |labels, stats| counter(&mut family, &labels, &stats.connections))?;
        let help = "Bytes that the relay carried, by direction";
        let mut family = to.encode_descriptor("relay_bytes", help, None, MetricType::Counter)?;
        each_backend(&services, |[service, backend], stats| {
            let directions = [("to_backend", &stats.to_backend), ("to_client", &stats.to_client)];
            directions.into_iter().try_for_each(|(direction, bytes)| {
                counter(&mut family, &[service, backend, ("direction", direction)], bytes)
            })
        })?;
        let help = "Choices that the relay made, by reason";
        let mut family = to.encode_descriptor("relay_choices", help, None, MetricType::Counter)?;
        for service in &services {
            for (why, count) in Outcome::ALL.iter().zip(&service.choices) {
                if count.load(Ordering::Relaxed) > 0 {
                    let labels = [("service", service.name.as_str()), ("reason", why.as_str())];
                    counter(&mut family, &labels, count)?;
                }
            }
        }
        let help = "Backends that refused a connection of the relay, which then tried another";
        let mut family = to.encode_descriptor("relay_retries", help, None, MetricType::Counter)?;
        for service in &services {
            counter(&mut family, &[("service", &service.name)], &service.retries)?;
        }
        let help = "Connections and datagrams that the relay refused, by reason";
        let mut family = to.encode_descriptor("relay_refused", help, None, MetricType::Counter)?;
        for service in &services {
            for (why, count) in Refusal::ALL.into_iter().zip(&service.refused) {
                let labels = [("service", service.name.as_str()), ("reason", why.as_str())];
                counter(&mut family, &labels, count)?;
            }
        }
        Ok(())
    }
}

fn each_backend<'a>(
    services: &'a [Arc<ServiceStats>],
    mut each: impl FnMut([(&str, &str); 2], &BackendStats) -> fmt::Result,
) -> fmt::Result {
    services.iter().try_for_each(|service: &'a Arc<ServiceStats>| {
        service.backends().iter().try_for_each(|(name, stats)| {
            each([("service", service.name.as_str()), ("backend", name.as_str())], stats)
        })
    })
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    count: &AtomicU64,
) -> fmt::Result {
    let count = ConstCounter::new(count.load(Ordering::Relaxed));
    count.encode(family.encode_family(labels)?)
}
