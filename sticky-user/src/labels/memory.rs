//! The last good configuration of each service.

use std::collections::{HashMap, HashSet};

use super::Reading;
use crate::model::{LabelError, ServiceConfig, Snapshot};

/// Remembers what a service was served with while its labels were right.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    good: HashMap<String, ServiceConfig>,
}

impl Memory {
    /// What an earlier run of sticky served.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let nothing = ServiceConfig::default();
        let served = snapshot.services.iter().filter(|service| service.config != nothing);
        Self { good: served.map(|service| (service.id.clone(), service.config.clone())).collect() }
    }

    /// The configuration to serve: what was read, or else the last good one. With neither, the service is left out.
    pub fn settle(&mut self, id: &str, reading: Reading) -> Settled {
        match reading.config {
            Some(config) => {
                self.good.insert(id.to_owned(), config.clone());
                Settled { config: Some(config), errors: reading.errors }
            }
            None => Settled { config: self.good.get(id).cloned(), errors: reading.errors },
        }
    }

    /// Forgets the services that are gone.
    pub fn keep(&mut self, ids: &HashSet<&str>) {
        self.good.retain(|id, _| ids.contains(id.as_str()));
    }
}

/// What a service is served with.
#[derive(Clone, Debug)]
pub struct Settled {
    /// `None`: it is left out.
    pub config: Option<ServiceConfig>,
    pub errors: Vec<LabelError>,
}
