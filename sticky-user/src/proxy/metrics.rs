//! The proxy's metrics, read from its counters when they are asked for.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use super::Shared;

/// Registers `http_requests`, `http_request_seconds`, `affinity` and `retries`; the registry's prefix is `sticky`.
pub(super) fn register(shared: &Arc<Shared>, registry: &mut Registry) {
    registry.register_collector(Box::new(Counters(shared.clone())));
}

struct Counters(Arc<Shared>);

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let routes = self.0.routes.load();
        let services = &routes.services;
        let mut family = encoder.encode_descriptor(
            "http_requests",
            "Requests answered, by service and status code",
            None,
            MetricType::Counter,
        )?;
        for service in services {
            for (code, count) in service.stats.codes() {
                counter(
                    &mut family,
                    &[("service", &service.name), ("code", &code.to_string())],
                    count,
                )?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "http_request_seconds",
            "Time from a request's head to the end of its response",
            None,
            MetricType::Histogram,
        )?;
        for service in services {
            let (sum, count, buckets) = service.stats.times();
            let labels = [("service", service.name.as_str())];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
        }
        let mut family = encoder.encode_descriptor(
            "affinity",
            "Choices of a backend, by service and reason",
            None,
            MetricType::Counter,
        )?;
        for service in services {
            for (reason, count) in service.stats.reasons() {
                counter(
                    &mut family,
                    &[("service", &service.name), ("reason", reason.as_str())],
                    count,
                )?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "retries",
            "Requests tried again, by service",
            None,
            MetricType::Counter,
        )?;
        for service in services {
            counter(&mut family, &[("service", &service.name)], service.stats.retries())?;
        }
        Ok(())
    }
}

fn counter(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], count: u64) -> fmt::Result {
    ConstCounter::new(count).encode(family.encode_family(&labels)?)
}
