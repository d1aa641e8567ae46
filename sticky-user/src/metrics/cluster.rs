//! What the data path and the cluster are like when somebody asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::status::{BackendStatus, Status};
use crate::views::Views;

/// Reads the views at each scrape.
pub(super) struct Cluster(pub Arc<Views>);

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Collector for Cluster {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, outcomes) = self.0.status_and_outcomes();
        let outcomes: Vec<_> = outcomes.into_iter().map(|(o, n)| (o.as_str(), n)).collect();
        encode(&status, &outcomes, encoder)
    }
}

fn encode(
    status: &Status,
    outcomes: &[(&'static str, u64)],
    mut to: DescriptorEncoder<'_>,
) -> fmt::Result {
    let version = [("version", status.version.as_str())];
    gauges(&mut to, "build_info", "The version that runs", [(&version[..], 1)])?;
    let generation = i64::try_from(status.generation).unwrap_or(i64::MAX);
    let help = "Map commits of this node";
    let metric = to.encode_descriptor("generation", help, None, MetricType::Gauge)?;
    ConstGauge::new(generation).encode(metric)?;
    let metric =
        to.encode_descriptor("drains", "Drains by the operator", None, MetricType::Gauge)?;
    ConstGauge::new(count(status.drains.len())).encode(metric)?;
    let help = "Client records that fit over all services";
    let metric = to.encode_descriptor("clients_max", help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::from(status.datapath.max_clients)).encode(metric)?;

    let outcomes: Vec<_> = outcomes.iter().map(|(o, n)| ([("outcome", *o)], *n)).collect();
    let rows = outcomes.iter().map(|(l, n)| (&l[..], *n));
    counters(&mut to, "packets", "Packets, by what became of them", rows)?;

    let mut backends = Vec::new();
    let mut services = Vec::new();
    for service in &status.services {
        services.push(([("service", service.name.as_str())], service));
        let shown = service.backends.iter().zip(series(&service.backends));
        backends.extend(shown.map(|(backend, series)| (service.name.as_str(), series, backend)));
    }
    let backends: Vec<_> = backends
        .iter()
        .map(|(service, series, backend)| {
            ([("service", *service), ("backend", series.as_str())], *backend)
        })
        .collect();
    let rows = backends.iter().map(|(l, b)| (&l[..], b.packets));
    counters(&mut to, "service_packets", "Packets to a backend at layer 4", rows)?;
    let rows = backends.iter().map(|(l, b)| (&l[..], b.bytes));
    counters(&mut to, "service_bytes", "Bytes to a backend at layer 4", rows)?;
    let rows = backends.iter().map(|(l, b)| (&l[..], i64::from(b.state == "up")));
    gauges(&mut to, "backend_up", "Whether a backend takes new clients", rows)?;
    let rows = services.iter().map(|(l, s)| (&l[..], i64::try_from(s.clients).unwrap_or(i64::MAX)));
    gauges(&mut to, "clients", "Clients with a record", rows)?;
    let rows = services.iter().map(|(l, s)| (&l[..], count(s.errors.len())));
    gauges(&mut to, "config_errors", "Mistakes in the configuration of a service", rows)
}

/// The names under which backends are counted. In an update two tasks have one name, and no series may come twice: the one
/// that stays has the name, others have their id with it, as Docker names a task.
fn series(backends: &[BackendStatus]) -> Vec<String> {
    let rank = |backend: &BackendStatus| match backend.state.as_str() {
        "up" => 0,
        "starting" => 1,
        _ => 2,
    };
    let mut first: HashMap<&str, &BackendStatus> = HashMap::new();
    for backend in backends {
        let holder = first.entry(&backend.name).or_insert(backend);
        if rank(backend) < rank(holder) {
            *holder = backend;
        }
    }
    let name = |backend: &BackendStatus| match first.get(backend.name.as_str()) {
        Some(holder) if holder.id != backend.id => format!("{}.{}", backend.name, backend.id),
        _ => backend.name.clone(),
    };
    backends.iter().map(name).collect()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn gauges<'a>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels<'a>, i64)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<'a>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_series_comes_twice_while_an_update_replaces_a_task() {
        let task = |id: &str, state: &str| BackendStatus {
            id: id.to_owned(),
            name: "demo.1".to_owned(),
            addr: None,
            node: String::new(),
            state: state.to_owned(),
            weight: 1,
            slots: 0,
            packets: 0,
            bytes: 0,
            requests: 0,
            reason: None,
        };
        let all = [task("old", "up"), task("new", "starting")];
        assert_eq!(series(&all), ["demo.1", "demo.1.new"]);
        let all = [task("old", "draining"), task("new", "up")];
        assert_eq!(series(&all), ["demo.1.old", "demo.1"]);
    }
}
