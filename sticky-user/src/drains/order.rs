//! What an operator writes after `sticky drain`, and what it names.

use serde::{Deserialize, Serialize};

use super::Drain;
use crate::model::Snapshot;

/// Letters of an id that stand for the whole: `status` shows twelve.
const SHORTEST_ID: usize = 6;

/// `sticky drain WHAT`, or `undrain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Name or id of a backend or service, or name of a node; `service:demo` where a name alone says too little.
    pub what: String,
    pub undo: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// `service demo`.
    pub what: Vec<String>,
    /// The backends that are there now.
    pub backends: Vec<String>,
}

/// Why an order is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no backend, service or node {0}; `sticky status` shows them")]
    Unknown(String),
    #[error("{what} may be {}; write {}", list(.kinds, " or "), list(.ways, " or "))]
    Ambiguous { what: String, kinds: Vec<String>, ways: Vec<String> },
    #[error("{what} is not drained; drained are: {}", if .drained.is_empty() { "none".to_owned() } else { list(.drained, ", ") })]
    NotDrained { what: String, drained: Vec<String> },
    #[error("the order cannot be kept over a restart: {0}; make room in the state directory")]
    NotKept(String),
}

fn list(items: &[String], by: &str) -> String {
    items.join(by)
}

impl Done {
    pub(super) fn new(what: &[Drain], snapshot: &Snapshot) -> Self {
        let all = snapshot.services.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b)));
        let covered = all.filter(|(s, b)| what.iter().any(|drain| drain.covers(s, b)));
        Self {
            what: what.iter().map(ToString::to_string).collect(),
            backends: covered.map(|(_, backend)| backend.name.clone()).collect(),
        }
    }
}

impl Order {
    /// The drains after this order, and those that it names.
    pub(super) fn apply(
        &self,
        before: &[Drain],
        snapshot: &Snapshot,
    ) -> Result<(Vec<Drain>, Vec<Drain>), Refused> {
        let mut after = before.to_vec();
        if self.undo {
            let mut what = self.named(before)?;
            if what.is_empty() {
                // By another name than it was drained by.
                let now = self.named(&drainable(snapshot))?;
                what = before.iter().filter(|b| now.iter().any(|n| n.is(b))).cloned().collect();
            }
            if what.is_empty() {
                return Err(Refused::NotDrained {
                    what: self.what.clone(),
                    drained: before.iter().map(ToString::to_string).collect(),
                });
            }
            after.retain(|drain| !what.contains(drain));
            return Ok((after, what));
        }
        let what = self.named(&drainable(snapshot))?;
        if what.is_empty() {
            return Err(Refused::Unknown(self.what.clone()));
        }
        after.extend(
            what.iter().filter(|drain| !before.iter().any(|other| other.is(drain))).cloned(),
        );
        Ok((after, what))
    }

    /// Those of `all` that are meant: by their whole name or id, or else by the beginning of it.
    fn named(&self, all: &[Drain]) -> Result<Vec<Drain>, Refused> {
        let exact: fn(&str, &str) -> bool = |id, what| id == what;
        let begins: fn(&str, &str) -> bool =
            |id, what| what.len() >= SHORTEST_ID && id.starts_with(what);
        for is in [exact, begins] {
            let mut found: Vec<Drain> = Vec::new();
            for drain in all.iter().filter(|drain| self.names(drain, is)) {
                // A backend may be in several services, under several names, and is drained in all of them.
                if !found.iter().any(|other| other.is(drain)) {
                    found.push(drain.clone());
                }
            }
            if !found.is_empty() {
                return self.of_one_kind(found);
            }
        }
        Ok(Vec::new())
    }

    fn names(&self, drain: &Drain, is: fn(&str, &str) -> bool) -> bool {
        let (kind, what) = match self.what.split_once(':') {
            Some((kind @ ("backend" | "service" | "node"), what)) => (Some(kind), what),
            _ => (None, self.what.as_str()),
        };
        kind.is_none_or(|kind| kind == kind_of(drain))
            && match drain {
                Drain::Backend { id, name } | Drain::Service { id, name } => {
                    what == name || is(id, what)
                }
                Drain::Node { name } => what == name,
            }
    }

    /// A name must stand for one thing.
    fn of_one_kind(&self, found: Vec<Drain>) -> Result<Vec<Drain>, Refused> {
        if found.len() < 2 {
            return Ok(found);
        }
        let way = |drain: &Drain| match drain {
            Drain::Backend { id, .. } => format!("backend:{id}"),
            Drain::Service { name, .. } => format!("service:{name}"),
            Drain::Node { name } => format!("node:{name}"),
        };
        Err(Refused::Ambiguous {
            what: self.what.clone(),
            kinds: found.iter().map(ToString::to_string).collect(),
            ways: found.iter().map(way).collect(),
        })
    }
}

fn kind_of(drain: &Drain) -> &'static str {
    match drain {
        Drain::Backend { .. } => "backend",
        Drain::Service { .. } => "service",
        Drain::Node { .. } => "node",
    }
}

/// Everything in a snapshot that can be drained, each once.
fn drainable(snapshot: &Snapshot) -> Vec<Drain> {
    let mut all: Vec<Drain> = Vec::new();
    let mut add = |drain: Drain| {
        if !all.contains(&drain) {
            all.push(drain);
        }
    };
    for service in &snapshot.services {
        add(Drain::Service { id: service.id.clone(), name: service.name.clone() });
        for backend in &service.backends {
            add(Drain::Backend { id: backend.id.clone(), name: backend.name.clone() });
            if !backend.node.is_empty() {
                add(Drain::Node { name: backend.node.clone() });
            }
        }
    }
    all
}
