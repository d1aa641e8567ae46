//! A proxy in this process, with its services.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sticky::clients::ClientTable;
use sticky::clients::memory::MemoryTable;
use sticky::keys::Keys;
use sticky::model::{
    self, CookieAffinity, CookieMode, HostPattern, Service, ServiceConfig, Snapshot, State,
};
use sticky::proxy::{Proxy, Settings, Timeouts};

use crate::backend::Backend;
use crate::client::HOST;

pub struct Bench {
    pub proxy: Proxy,
    pub table: Arc<MemoryTable>,
    pub keys: Arc<sticky::keys::Shared>,
    pub addr: SocketAddr,
}

/// Settings for tests: a free port, two workers.
pub fn settings() -> Settings {
    Settings {
        http: Some("127.0.0.1:0".parse().unwrap()),
        workers: NonZeroUsize::new(2).unwrap(),
        proxy_id: "proxy-under-test".to_owned(),
        timeouts: Timeouts { gap: Duration::from_millis(700), ..Timeouts::default() },
        ..Settings::default()
    }
}

pub fn keys() -> Keys {
    Keys::random().unwrap()
}

impl Bench {
    pub fn start(settings: Settings, keys: Keys) -> Self {
        let table = Arc::new(MemoryTable::new(keys.hash, 251, 100_000));
        let keys = Arc::new(arc_swap(keys));
        let clients: Arc<dyn ClientTable> = table.clone();
        let proxy = Proxy::start(settings, keys.clone(), clients, Vec::new()).unwrap();
        let addr = proxy.http_addr().unwrap();
        Self { proxy, table, keys, addr }
    }

    pub fn new(services: Vec<Service>) -> Self {
        let bench = Self::start(settings(), keys());
        bench.publish(services);
        bench
    }

    pub fn publish(&self, services: Vec<Service>) {
        let services = services.into_iter().map(Arc::new).collect();
        let snapshot = Snapshot { services };
        self.table.publish(&snapshot);
        self.proxy.publish(&snapshot);
    }
}

fn arc_swap(keys: Keys) -> sticky::keys::Shared {
    sticky::keys::Shared::from_pointee(keys)
}

/// A service on [`HOST`].
pub fn service(
    name: &str,
    backends: &[&Backend],
    edit: impl FnOnce(&mut ServiceConfig),
) -> Service {
    let mut config = ServiceConfig {
        hosts: vec![HostPattern::Exact(HOST.to_owned())],
        ..ServiceConfig::default()
    };
    edit(&mut config);
    Service {
        id: name.to_owned(),
        name: name.to_owned(),
        config,
        publish: Vec::new(),
        backends: backends.iter().map(|backend| task(backend, State::Up)).collect(),
        errors: Vec::new(),
    }
}

pub fn task(backend: &Backend, state: State) -> model::Backend {
    model::Backend {
        id: format!("id-{}", backend.name),
        name: backend.name.clone(),
        addr: Some(backend.addr),
        node: String::new(),
        addr_v6: None,
        layer4: true,
        weight: 1,
        state,
        reason: None,
        outgoing: false,
    }
}

/// Cookie affinity by these names.
pub fn cookie(mode: CookieMode, names: &[&str]) -> Option<CookieAffinity> {
    Some(CookieAffinity {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        mode,
        own_name: Some("sticky_lb".to_owned()),
    })
}

/// Learns from `session`.
pub fn learn(config: &mut ServiceConfig) {
    config.cookie = cookie(CookieMode::Learn, &["session"]);
}
