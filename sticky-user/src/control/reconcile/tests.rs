use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::control::settle::Known;
use crate::control::{Census, DataPath, Error, Moved, Reach};
use crate::model::{Backend, Frontend, LabelError, Proto, Publish, ServiceConfig, State};
use crate::provider::ProviderStatus;

/// A data path without a kernel.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Host>>);

#[derive(Clone, Default)]
struct Host {
    /// The interface that leads to an address; none leads to another.
    devices: HashMap<IpAddr, u32>,
    moved: Moved,
    /// The kernel does not tell the links.
    blind: bool,
    refuses: bool,
}

impl Fake {
    fn new(host: Host) -> Self {
        Self(Arc::new(Mutex::new(host)))
    }

    fn host(&self) -> std::sync::MutexGuard<'_, Host> {
        self.0.lock().unwrap()
    }
}

impl DataPath for Fake {
    fn loaded(&mut self) -> Result<Loaded, Error> {
        Ok(Loaded::default())
    }
    fn look(&mut self) -> Result<Moved, Error> {
        let mut host = self.host();
        if host.blind {
            Err(Error("blind".to_owned()))
        } else {
            Ok(std::mem::take(&mut host.moved))
        }
    }
    fn reach(&mut self, addrs: &[IpAddr]) -> Result<HashMap<IpAddr, Reach>, Error> {
        let host = self.host();
        let lost = || Reach::Not("it is nowhere".to_owned());
        let reach = |addr| host.devices.get(addr).map_or_else(lost, |at| Reach::Device(*at));
        Ok(addrs.iter().map(|addr| (*addr, reach(addr))).collect())
    }
    fn apply(&mut self, _: &Plan, _: &Loaded) -> Result<(), Error> {
        if self.host().refuses { Err(Error("full".to_owned())) } else { Ok(()) }
    }
    fn census(&self) -> Result<Arc<Census>, Error> {
        Ok(Arc::default())
    }
    fn records(&self, _: &mut dyn FnMut(&Known)) -> Result<(), Error> {
        Ok(())
    }
    fn forget(&self, _: &[Known]) -> Result<(), Error> {
        Ok(())
    }
    fn sweep(&self, _: &HashSet<u32>, _: u32) -> Result<(), Error> {
        Ok(())
    }
    fn table_size(&self) -> u32 {
        251
    }
    fn rekeyed(&self) -> bool {
        false
    }
}

struct Nobody;

impl Occupied for Nobody {
    fn holder(&self, _: &Frontend) -> Option<String> {
        None
    }
}

fn inputs(host: Host) -> (Inputs, Fake) {
    let fake = Fake::new(host);
    let inputs = Inputs {
        found: watch::channel(found(Arc::default())).1,
        vips: watch::channel(vec![IpAddr::from([198, 51, 100, 1])]).1,
        links: watch::channel(0).1,
        occupied: Box::new(Nobody),
        hash_key: HashKey { k0: 1, k1: 2 },
        data_path: Some(Box::new(fake.clone())),
    };
    (inputs, fake)
}

fn found(snapshot: Arc<Snapshot>) -> Arc<Found> {
    let (event_at, last_update) = (Instant::now(), SystemTime::UNIX_EPOCH);
    let status = ProviderStatus { kind: "file", connected: true, error: None, last_update };
    Arc::new(Found { snapshot, event_at, status })
}

/// What is found of one service.
#[derive(Clone, Debug)]
struct Seen {
    id: u8,
    backends: std::collections::BTreeSet<u8>,
    port: u16,
    ip_hash: bool,
    down: bool,
    wrong: bool,
}

fn service(seen: &Seen) -> Arc<Service> {
    let addr = |number: &u8| SocketAddr::from((Ipv4Addr::new(203, 0, 113, *number), 80));
    let backends = seen.backends.iter().map(|number| Backend {
        id: format!("{}.{number}", seen.id),
        name: format!("s{}.{number}", seen.id),
        addr: Some(addr(number)),
        addr_v6: None,
        node: String::new(),
        layer4: true,
        outgoing: false,
        weight: 1,
        state: if seen.down { State::Down } else { State::Up },
        reason: None,
    });
    let wrong = LabelError {
        label: "a".to_owned(),
        value: "b".to_owned(),
        message: "c".to_owned(),
        hint: "d".to_owned(),
    };
    Arc::new(Service {
        id: seen.id.to_string(),
        name: format!("s{}", seen.id),
        config: ServiceConfig { ip_hash: seen.ip_hash, ..ServiceConfig::default() },
        publish: vec![Publish { port: seen.port, target: 80, proto: Proto::Tcp }],
        backends: backends.collect(),
        errors: if seen.wrong { vec![wrong] } else { Vec::new() },
    })
}

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Step {
    /// In the place of the one with the same id, or as the last.
    Seen(Seen),
    Gone(u8),
    Turned,
    /// An address is behind this interface now, or nowhere.
    Moved(u8, Option<u32>),
    AllMoved,
    Blind(bool),
    Refused(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let bools = (prop::bool::weighted(0.9), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let backends = prop::collection::btree_set(0u8..6, 0..4);
    let seen = (0u8..4, backends, 80u16..83, bools).prop_map(
        |(id, backends, port, (ip_hash, down, wrong))| {
            Step::Seen(Seen { id, backends, port, ip_hash, down, wrong })
        },
    );
    prop_oneof![
        6 => seen,
        1 => (0u8..4).prop_map(Step::Gone),
        1 => Just(Step::Turned),
        2 => (0u8..6, prop::option::of(1u32..4)).prop_map(|(a, device)| Step::Moved(a, device)),
        1 => Just(Step::AllMoved),
        1 => any::<bool>().prop_map(Step::Blind),
        1 => any::<bool>().prop_map(Step::Refused),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever came before, the same is in force as if this had been the first that was found.
    #[test]
    fn what_is_in_force_follows_from_what_is_found(steps in prop::collection::vec(step(), 1..24)) {
        let (mut inputs_of_all, fake) = inputs(Host::default());
        let mut reconciler = Reconciler::new(Loaded::default());
        let (mut snapshot, mut published) = (Snapshot::default(), None);
        for step in steps {
            match step {
                Step::Seen(seen) => {
                    let new = service(&seen);
                    match snapshot.services.iter_mut().find(|known| known.id == new.id) {
                        Some(known) => *known = new,
                        None => snapshot.services.push(new),
                    }
                }
                Step::Gone(id) => snapshot.services.retain(|known| known.id != id.to_string()),
                Step::Turned => snapshot.services.reverse(),
                Step::Moved(number, device) => {
                    let addr = IpAddr::from([203, 0, 113, number]);
                    let mut host = fake.host();
                    match device {
                        Some(device) => host.devices.insert(addr, device),
                        None => host.devices.remove(&addr),
                    };
                    host.moved.and(Moved { all: false, addrs: [addr].into() });
                }
                Step::AllMoved => fake.host().moved.all = true,
                Step::Blind(blind) => fake.host().blind = blind,
                Step::Refused(refuses) => fake.host().refuses = refuses,
            }
            let now = found(Arc::new(snapshot.clone()));
            published = reconciler.step(&mut inputs_of_all, &now, Instant::now()).or(published);
            if let Some(is) = &published {
                prop_assert_eq!(&is.snapshot, &now.snapshot, "layer 7 goes on in any case");
                for (service, is) in now.snapshot.services.iter().zip(&is.services) {
                    prop_assert_eq!(&service.id, &is.id);
                    let names = |error: &LabelError| error.message.contains(&format!("s{}.", is.id));
                    let mut lost = is.errors.iter().filter(|error| error.label == "backend");
                    prop_assert!(lost.all(names), "{:?} of {}", is.errors, is.id);
                }
            }
            if fake.host().refuses || fake.host().blind {
                continue;
            }
            let host = Host { moved: Moved::default(), ..fake.host().clone() };
            let first = Reconciler::new(Loaded::default()).step(&mut inputs(host).0, &now, Instant::now());
            let (is, should) = (published.as_ref().unwrap(), first.unwrap());
            prop_assert_eq!(&is.snapshot, &should.snapshot);
            prop_assert_eq!(&is.services, &should.services);
            let wanted = |reconciler: &Reconciler| -> Vec<_> {
                let loaded = reconciler.loaded.services.values();
                loaded.map(|service| service.wanted.clone().unwrap()).collect()
            };
            let parts = (0..snapshot.services.len()).filter_map(|place| reconciler.parts.get(place));
            let mut desired: Vec<_> = parts.filter_map(|part| part.desired.clone()).collect();
            desired.sort_by_key(|desired| desired.identity);
            prop_assert_eq!(wanted(&reconciler), desired);
            let frontends = reconciler.loaded.frontends.len();
            prop_assert_eq!(frontends, should.services.iter().map(|s| s.frontends.len()).sum::<usize>());
        }
    }
}
