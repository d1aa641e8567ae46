//! Names for the numbers in the maps: from the snapshot that was saved at the last change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use crate::config::Places;
use crate::control::desired::identity;
use crate::datapath::{Directory, Tuple};
use crate::state::{self, Saved};
use sticky_common::types::capture::Event;

/// An unknown number has the snapshot read again, but not more often than this: a change is saved a moment after it is in
/// force.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whose a packet is.
#[derive(Clone, Copy, Default)]
pub struct Who<'a> {
    pub service: Option<&'a str>,
    pub backend: Option<&'a Backend>,
    /// It is of the service that is asked for.
    pub wanted: bool,
}

/// A backend, for a reader.
pub struct Backend {
    pub name: String,
    pub id: String,
    pub addr: String,
}

/// The maps and the names.
pub struct Names {
    directory: Directory,
    state_dir: std::path::PathBuf,
    wanted: Option<String>,
    services: HashMap<u64, (String, bool)>,
    backends: HashMap<u64, Backend>,
    read: Instant,
    interfaces: HashMap<u32, String>,
}

impl Names {
    /// # Errors
    /// Nothing is loaded, or there is no service of the name that is asked for.
    pub fn open(places: &Places, wanted: Option<&str>) -> Result<Self, Failure> {
        let mut names = Self {
            directory: Directory::open(&places.pin_dir)?,
            state_dir: places.state_dir.clone(),
            wanted: wanted.map(str::to_owned),
            services: HashMap::new(),
            backends: HashMap::new(),
            read: Instant::now(),
            interfaces: HashMap::new(),
        };
        names.read();
        if let Some(wanted) = wanted
            && !names.services.values().any(|(_, is)| *is)
        {
            let mut known: Vec<_> = names.services.values().map(|(name, _)| name.clone()).collect();
            known.sort();
            return Err(Failure::Usage(format!(
                "there is no service {wanted} in {}; known are: {}",
                names.state_dir.display(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        Ok(names)
    }

    fn read(&mut self) {
        self.read = Instant::now();
        let Some(Saved { snapshot, .. }) = state::read(&self.state_dir) else { return };
        for service in snapshot.services.into_iter().map(Arc::unwrap_or_clone) {
            let wanted = self.wanted.as_ref();
            let is = wanted.is_some_and(|wanted| *wanted == service.name || *wanted == service.id);
            self.services.insert(identity(&service.id), (service.name, is));
            for backend in service.backends {
                let addr = backend.addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string());
                let entry = Backend { name: backend.name, id: backend.id.clone(), addr };
                self.backends.insert(identity(&backend.id), entry);
            }
        }
    }

    /// Whose a packet is.
    pub fn who(&mut self, event: &Event, tuple: Option<Tuple>) -> Who<'_> {
        let whose = self.directory.whose(event, tuple);
        let unknown = whose.service.is_some_and(|id| !self.services.contains_key(&id))
            || whose.backend.is_some_and(|id| !self.backends.contains_key(&id));
        if unknown && self.read.elapsed() >= PATIENCE {
            self.read();
        }
        let service = whose.service.and_then(|id| self.services.get(&id));
        Who {
            service: service.map(|(name, _)| name.as_str()),
            backend: whose.backend.and_then(|id| self.backends.get(&id)),
            wanted: service.is_some_and(|(_, is)| *is),
        }
    }

    /// The name of an interface; its number if it is gone.
    pub fn interface(&mut self, index: u32) -> String {
        let name = || {
            nix::net::if_::if_indextoname(index)
                .map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
        };
        self.interfaces.entry(index).or_insert_with(name).clone()
    }
}
