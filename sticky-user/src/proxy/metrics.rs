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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arc_swap::ArcSwap;

    use crate::clients::memory::MemoryTable;
    use crate::keys::Keys;
    use crate::model::{HostPattern, Service, ServiceConfig, Snapshot};
    use crate::proxy::{Proxy, Reason, Settings};

    #[test]
    fn names_and_labels_of_the_contract() {
        let keys = Keys::random().unwrap();
        let table = MemoryTable::new(keys.hash, 251, 10);
        let keys = std::sync::Arc::new(ArcSwap::from_pointee(keys));
        let settings = Settings { http: None, ..Settings::default() };
        let proxy = Proxy::start(settings, keys, std::sync::Arc::new(table), Vec::new()).unwrap();
        let config = ServiceConfig {
            hosts: vec![HostPattern::Exact("demo.local".to_owned())],
            ..ServiceConfig::default()
        };
        let service = Service {
            id: "id".to_owned(),
            name: "demo".to_owned(),
            config,
            publish: Vec::new(),
            backends: Vec::new(),
            errors: Vec::new(),
        };
        proxy.publish(&Snapshot { services: vec![service.into()] });
        let stats = proxy.service("id").unwrap();
        stats.finished(200, Duration::from_millis(3));
        stats.finished(503, Duration::from_secs(70));
        stats.chosen(Reason::Repinned);
        let mut registry = prometheus_client::registry::Registry::with_prefix("sticky");
        proxy.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "sticky_http_requests_total{service=\"demo\",code=\"200\"} 1",
            "sticky_http_requests_total{service=\"demo\",code=\"503\"} 1",
            "sticky_http_request_seconds_count{service=\"demo\"} 2",
            "sticky_http_request_seconds_bucket{le=\"0.005\",service=\"demo\"} 1",
            "sticky_http_request_seconds_bucket{le=\"+Inf\",service=\"demo\"} 2",
            "sticky_affinity_total{service=\"demo\",reason=\"repinned\"} 1",
            "sticky_retries_total{service=\"demo\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
