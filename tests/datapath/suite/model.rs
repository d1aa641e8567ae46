//! The decision at XDP as one would explain it: maps, lists and branches. It knows nothing of how the programs do it.

use std::collections::HashMap;

use sticky_common::outcome::Outcome;

use super::places::{Family, Proto};

/// What a client's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first packet of a connection, or a datagram.
    Opens,
    Data,
    Fin,
    Reset,
    /// An ICMP error about a packet of the frontend.
    Error,
    /// The first fragment of the datagram of a number, and one behind it.
    FirstPiece(u8),
    LaterPiece(u8),
}

/// A client's frame.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub family: Family,
    pub proto: Proto,
    pub client: u8,
    pub port: u16,
    /// Which of the frontends: they lead to the same port of the backends.
    pub frontend: u8,
    pub kind: Kind,
}

/// A change of the maps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables {
    /// The backend of every slot, and whether records are asked.
    pub slot: Option<u32>,
    pub unsettled: bool,
    pub affine: bool,
}

/// One use of a backend's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    index: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    pub generation: u32,
    /// Connections go on.
    pub alive: bool,
    /// Known clients come back.
    pub keeps: bool,
}

/// A connection as its backend sees it.
type FlowKey = (Family, Proto, u8, u16, u32);

#[derive(Clone, Copy, Default)]
struct Flow {
    frontend: u8,
    /// Of its backend.
    generation: u32,
    client_done: bool,
    reset: bool,
}

#[derive(Default)]
pub struct Model {
    pub tables: Tables,
    pub backends: HashMap<u32, State>,
    /// Newest backend first.
    records: HashMap<(Family, u8), Vec<Use>>,
    flows: HashMap<FlowKey, Flow>,
    pieces: HashMap<(Family, Option<Proto>, u8, bool, u8), Use>,
}

/// What becomes of a frame, and the backend that gets it.
pub type Fate = (Outcome, Option<u32>);

impl Model {
    fn alive(&self, it: Use) -> bool {
        self.backends.get(&it.index).is_some_and(|b| b.alive && b.generation == it.generation)
    }

    fn current(&self, index: u32) -> Option<Use> {
        let state = self.backends.get(&index)?;
        state.alive.then_some(Use { index, generation: state.generation })
    }

    fn by_table(&self) -> Option<Use> {
        self.current(self.tables.slot?)
    }

    fn flow(&self, sent: &Sent, index: u32) -> Option<&Flow> {
        self.flows
            .get(&(sent.family, sent.proto, sent.client, sent.port, index))
            .filter(|f| f.frontend == sent.frontend)
    }

    /// Addresses of one IPv6 network are one client.
    fn client(sent: &Sent) -> (Family, u8) {
        (sent.family, if sent.family == Family::V4 { sent.client } else { 0 })
    }

    fn record(&self, sent: &Sent) -> &[Use] {
        self.records.get(&Self::client(sent)).map_or(&[], Vec::as_slice)
    }

    /// The living backend with which the frame's flow is.
    fn owner(&self, sent: &Sent) -> Option<Use> {
        let recorded = self.record(sent).iter().copied().filter(|u| self.alive(*u));
        recorded.chain(self.by_table()).find(|u| self.flow(sent, u.index).is_some())
    }

    pub fn receive(&mut self, sent: &Sent) -> Fate {
        let second = sent.frontend == 2;
        let piece = |id| {
            // The number of an IPv4 datagram counts per protocol.
            let proto = (sent.family == Family::V4).then_some(sent.proto);
            (sent.family, proto, sent.client, second, id)
        };
        match sent.kind {
            Kind::LaterPiece(id) => match self.pieces.get(&piece(id)) {
                Some(to) if self.alive(*to) => (Outcome::Fragment, Some(to.index)),
                _ => (Outcome::NotOurs, None),
            },
            Kind::Error => match self.owner(sent) {
                Some(to) => (Outcome::IcmpError, Some(to.index)),
                None => (Outcome::NotOurs, None),
            },
            _ => {
                let fate = self.choose(sent);
                if let (Kind::FirstPiece(id), Some(to)) =
                    (sent.kind, fate.1.and_then(|index| self.current(index)))
                {
                    self.pieces.insert(piece(id), to);
                }
                fate
            }
        }
    }

    fn choose(&mut self, sent: &Sent) -> Fate {
        let opens = sent.kind == Kind::Opens;
        if let Some(index) = self.tables.slot
            && !self.tables.unsettled
        {
            match sent.proto {
                Proto::Tcp if !opens => {
                    self.end(sent, index);
                    return (Outcome::Hash, Some(index));
                }
                Proto::Udp if self.by_table().is_some() && self.flow(sent, index).is_some() => {
                    return (Outcome::Hash, Some(index));
                }
                _ => {}
            }
        }
        let (to, why) = match sent.proto {
            Proto::Tcp if !opens => self.later(sent),
            Proto::Udp if self.owner(sent).is_some() => (self.owner(sent), Outcome::Recorded),
            _ => self.first(sent),
        };
        let Some(to) = to else { return (Outcome::NoBackend, None) };
        if !self.note(sent, to.index) {
            return (Outcome::Collision, None);
        }
        if why != Outcome::Recorded || self.record(sent).is_empty() {
            let mut record: Vec<Use> = self.record(sent).to_vec();
            record.retain(|u| *u != to && self.alive(*u));
            record.insert(0, to);
            record.truncate(4);
            self.records.insert(Self::client(sent), record);
        }
        (why, Some(to.index))
    }

    fn first(&self, sent: &Sent) -> (Option<Use>, Outcome) {
        match self.record(sent).first() {
            None => (self.by_table(), Outcome::New),
            Some(newest) if self.alive(*newest) && self.backends[&newest.index].keeps => {
                if self.tables.affine {
                    (Some(*newest), Outcome::Pinned)
                } else {
                    (self.by_table(), Outcome::Expired)
                }
            }
            Some(_) => (self.by_table(), Outcome::Repinned),
        }
    }

    fn later(&self, sent: &Sent) -> (Option<Use>, Outcome) {
        let living: Vec<Use> =
            self.record(sent).iter().copied().filter(|u| self.alive(*u)).collect();
        let with_flow = living.iter().find(|u| self.flow(sent, u.index).is_some());
        match with_flow.or(living.first()) {
            Some(to) => (Some(*to), Outcome::Recorded),
            None => (self.by_table(), Outcome::Hash),
        }
    }

    fn end(&mut self, sent: &Sent, index: u32) {
        if self.current(index).is_none() {
            return;
        }
        let key = (sent.family, sent.proto, sent.client, sent.port, index);
        if let Some(flow) = self.flows.get_mut(&key).filter(|f| f.frontend == sent.frontend) {
            flow.client_done |= sent.kind == Kind::Fin;
            flow.reset |= sent.kind == Kind::Reset;
        }
    }

    /// Whether the flow is noted, or another frontend's stands in its way.
    fn note(&mut self, sent: &Sent, index: u32) -> bool {
        let key = (sent.family, sent.proto, sent.client, sent.port, index);
        let generation = self.backends.get(&index).map_or(0, |backend| backend.generation);
        let fresh = Flow { frontend: sent.frontend, generation, ..Flow::default() };
        let Some(old) = self.flows.get(&key).copied() else {
            self.flows.insert(key, fresh);
            return true;
        };
        let ours = old.frontend == sent.frontend;
        let lives = self.alive(Use { index, generation: old.generation });
        if !ours && lives && (sent.proto == Proto::Udp || !old.reset) {
            return false;
        }
        if ours && sent.kind != Kind::Opens {
            self.flows.insert(key, Flow { generation, ..old });
            self.end(sent, index);
        } else if sent.proto == Proto::Tcp || !ours {
            self.flows.insert(key, fresh);
        }
        true
    }
}
