//! Every metric, in one registry that is made once and handed around; no globals.
//!
//! What can be read when it is asked for (packets, clients, states) is read then, by `cluster`; what happens is
//! counted as it happens, by [`Metrics::updated`].

mod cluster;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::views::Views;

/// The registry, and the histogram of updates.
pub struct Metrics {
    registry: Registry,
    update_seconds: Histogram,
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new(views: Arc<Views>) -> Self {
        let mut registry = Registry::with_prefix("sticky");
        let update_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        registry.register(
            "update_seconds",
            "From the event that was seen to the maps in force",
            update_seconds.clone(),
        );
        views.proxy.register(&mut registry);
        if let Some(relay) = &views.relay {
            relay.register(&mut registry);
        }
        registry.register_collector(Box::new(cluster::Cluster(views)));
        Self { registry, update_seconds }
    }

    /// A change is in force.
    pub fn updated(&self, took: Duration) {
        self.update_seconds.observe(took.as_secs_f64());
    }

    /// The text of `/metrics`, in the OpenMetrics format.
    ///
    /// # Errors
    /// A metric could not be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
