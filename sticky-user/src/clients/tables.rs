//! The tables of one run: those that the data path has loaded, and one in memory for what it has not: everything where
//! no data path runs, else the services whose backends only the proxy reaches.

use std::net::IpAddr;
use std::sync::Arc;

use super::memory::MemoryTable;
use super::{Choice, ClientTable};
use crate::model::{Service, Snapshot};

/// Answers from whichever table has the service.
pub struct Tables {
    loaded: Option<Arc<dyn ClientTable>>,
    memory: MemoryTable,
}

impl Tables {
    /// `memory` has the hash key and the table size of `loaded`, so that the same client gets the same answer.
    #[must_use]
    pub fn new(loaded: Option<Arc<dyn ClientTable>>, memory: MemoryTable) -> Self {
        Self { loaded, memory }
    }

    /// Takes in the services of a commit of whose backends the data path has loaded none.
    pub fn publish(&self, rest: Vec<Arc<Service>>) {
        self.memory.publish(&Snapshot { services: rest });
    }

    fn of(&self, service: &str) -> &dyn ClientTable {
        match &self.loaded {
            Some(loaded) if loaded.knows(service) => &**loaded,
            _ => &self.memory,
        }
    }
}

impl ClientTable for Tables {
    fn choose(&self, service: &str, client: IpAddr) -> Option<Choice> {
        self.of(service).choose(service, client)
    }

    fn look(&self, service: &str, client: IpAddr) -> Option<Choice> {
        self.of(service).look(service, client)
    }

    fn home(&self, service: &str, client: IpAddr) -> Option<String> {
        self.of(service).home(service, client)
    }

    fn hashed(&self, service: &str, key: &[u8]) -> Option<Choice> {
        self.of(service).hashed(service, key)
    }

    fn knows(&self, service: &str) -> bool {
        self.of(service).knows(service)
    }
}

#[cfg(test)]
mod tests {
    use sticky_common::hash::HashKey;

    use super::*;
    use crate::model::{Backend, ServiceConfig, State};

    fn service(id: &str, layer4: bool) -> Service {
        let task = |name: &str| Backend {
            id: name.to_owned(),
            name: name.to_owned(),
            addr: Some(([198, 51, 100, 1], 80).into()),
            addr_v6: None,
            layer4,
            node: String::new(),
            weight: 1,
            state: State::Up,
            reason: None,
            outgoing: false,
        };
        Service {
            id: id.to_owned(),
            name: id.to_owned(),
            config: ServiceConfig { ip_hash: true, ..ServiceConfig::default() },
            publish: Vec::new(),
            backends: ["a", "b", "c"].map(task).to_vec(),
            errors: Vec::new(),
        }
    }

    /// P6: a node whose data path has the service, one that has not, and one without a data path.
    #[test]
    fn one_answer_whichever_table_has_the_service() {
        let memory = || MemoryTable::new(HashKey { k0: 1, k1: 2 }, 251, 1000);
        let kernel = memory();
        kernel.publish(&Snapshot { services: vec![service("near", true).into()] });
        let both = Tables::new(Some(Arc::new(kernel)), memory());
        let alone = Tables::new(None, memory());
        let all = [service("near", true).into(), service("far", false).into()];
        both.publish(all[1..].to_vec());
        alone.publish(all.to_vec());
        let mut seen = std::collections::HashSet::new();
        for last in 0..100 {
            let client = IpAddr::from([203, 0, 113, last]);
            for id in ["near", "far"] {
                let choice = both.choose(id, client).unwrap();
                assert_eq!(Some(&choice), alone.choose(id, client).as_ref(), "{id}");
                seen.insert(choice.backend);
                assert!(both.look(id, client).is_some());
            }
        }
        assert_eq!(seen.len(), 3);
        assert!(!both.memory.knows("near") && !both.knows("other"));
    }
}
