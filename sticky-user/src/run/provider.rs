//! The provider that the user chose, on a thread of its own: most of what it does is to ask and to wait, and there neither
//! the asking nor the answer wakes another thread. A long list that is read keeps nothing else waiting, either.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use tokio::sync::watch;

use crate::config::{Config, ProviderKind};
use crate::labels::Instance;
use crate::model::{Snapshot, State};
use crate::provider::Found;
use crate::state::Saved;
use crate::{docker, drains, file_provider, swarm};

/// Made, but not looking yet.
pub(super) struct Provider(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Provider {
    /// The provider, and what it finds; until then what was `saved`.
    pub(super) fn new(
        config: &Config,
        saved: Option<Saved>,
    ) -> (Self, watch::Receiver<Arc<Found>>) {
        let instance = Instance { cluster: config.service_cluster.clone(), https: false };
        let kind = match &config.provider {
            ProviderKind::Swarm => "swarm",
            ProviderKind::Docker => "docker",
            ProviderKind::File(_) => "file",
        };
        let initial = match saved {
            Some(Saved { read_at, snapshot }) => {
                Found::before_first_look(kind, running(snapshot), read_at)
            }
            None => Found::before_first_look(kind, Snapshot::default(), SystemTime::UNIX_EPOCH),
        };
        match &config.provider {
            ProviderKind::File(path) => {
                let (provider, found) =
                    file_provider::Provider::new(path.clone(), instance, initial);
                (Self(Box::pin(provider.run())), found)
            }
            ProviderKind::Swarm => {
                let (provider, found) =
                    swarm::Provider::new(config.docker_host.clone(), instance, initial);
                (Self(Box::pin(provider.run())), found)
            }
            ProviderKind::Docker => {
                let (provider, found) =
                    docker::Provider::new(config.docker_host.clone(), instance, initial);
                (Self(Box::pin(provider.run())), found)
            }
        }
    }

    /// Begins to look; ends with the process.
    pub(super) fn start(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the provider")?;
        std::thread::Builder::new()
            .name("provider".to_owned())
            .spawn(move || runtime.block_on(self.0))
            .context("no thread for the provider")?;
        Ok(())
    }
}

/// A saved snapshot as a provider would find it: whether a backend was up or down was the word of checks, which are made
/// anew, and what is drained is marked anew.
fn running(mut saved: Snapshot) -> Snapshot {
    drains::unmark(&mut saved);
    let all = saved.services.iter_mut();
    for backend in all.flat_map(|service| &mut Arc::make_mut(service).backends) {
        // Nothing can check one without an address.
        if backend.addr.is_some() && matches!(backend.state, State::Starting | State::Down) {
            (backend.state, backend.reason) = (State::Up, None);
        }
    }
    saved
}
