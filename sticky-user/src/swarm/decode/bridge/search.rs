//! A few containers in the text of the gateway bridge, looked for while it comes.

use std::collections::BTreeSet;

use memchr::memmem::{self, Finder};

use super::{BridgeEnd, address};
use crate::docker::client::Reader;
use crate::swarm::view::Addresses;

/// What the containers come after, if the text is as Docker writes it.
const CONTAINERS: &[u8] = b"\"Containers\":{";
/// What a piece has left is looked at together with so much of the next, in which an entry ends.
const NEAR: usize = 1024;

pub(in crate::swarm) struct Search<'a> {
    sought: Vec<Sought<'a>>,
    /// Whether the text has come to its containers.
    inside: bool,
    /// The end of what has come, if it may be the beginning of what is sought.
    rest: Vec<u8>,
}

struct Sought<'a> {
    id: &'a str,
    key: Finder<'static>,
    end: Option<BridgeEnd>,
}

impl<'a> Search<'a> {
    pub(in crate::swarm) fn new(wanted: &'a [String]) -> Self {
        let ids: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let sought = ids.into_iter().map(|id| Sought {
            id,
            key: Finder::new(&format!("\"{id}\":")).into_owned(),
            end: None,
        });
        Self { sought: sought.collect(), inside: false, rest: Vec::new() }
    }

    /// Those that are there and have an address; `None`: the text is not as Docker writes it.
    pub(in crate::swarm) fn found(self) -> Option<Addresses> {
        let ends = self.sought.into_iter();
        self.inside.then(|| ends.filter_map(|sought| address(sought.id, sought.end?)).collect())
    }

    /// Looks for what is missing, and says from where on this text is needed when there is more of it.
    fn look(&mut self, text: &[u8]) -> usize {
        let mut begin = 0;
        if !self.inside {
            let Some(place) = memmem::find(text, CONTAINERS) else {
                return cut_off(text, CONTAINERS);
            };
            begin = place + CONTAINERS.len();
            self.inside = true;
        }
        let (_, entries) = text.split_at(begin);
        let mut needed = text.len();
        for sought in self.sought.iter_mut().filter(|sought| sought.end.is_none()) {
            match sought.look(entries) {
                Ok(end) => sought.end = Some(end),
                Err(place) => needed = needed.min(begin + place),
            }
        }
        needed
    }
}

impl Reader for Search<'_> {
    fn begin(&mut self, _length: Option<u64>) {
        self.inside = false;
        self.rest.clear();
        for sought in &mut self.sought {
            sought.end = None;
        }
    }

    fn piece(&mut self, mut piece: &[u8]) {
        let mut rest = std::mem::take(&mut self.rest);
        while !rest.is_empty() && !piece.is_empty() {
            let before = rest.len();
            let (near, far) = piece.split_at(piece.len().min(NEAR));
            rest.extend_from_slice(near);
            let needed = self.look(&rest);
            if let Some(place) = needed.checked_sub(before) {
                // All of that is in the piece, so nothing has to be copied any more.
                rest.clear();
                (_, piece) = piece.split_at(place);
            } else {
                rest.drain(..needed);
                piece = far;
            }
        }
        if rest.is_empty() {
            let needed = self.look(piece);
            rest.extend_from_slice(piece.split_at(needed).1);
        }
        self.rest = rest;
    }
}

impl Sought<'_> {
    /// Its entry, or else from where on this text is needed.
    fn look(&self, text: &[u8]) -> Result<BridgeEnd, usize> {
        let key = self.key.needle();
        for place in self.key.find_iter(text) {
            let (_, value) = text.split_at(place + key.len());
            match serde_json::Deserializer::from_slice(value).into_iter().next() {
                Some(Ok(end)) => return Ok(end),
                // A label, say.
                Some(Err(error)) if !error.is_eof() => {}
                _ => return Err(place),
            }
        }
        Err(cut_off(text, key))
    }
}

/// From where on a text may be the beginning of `key`, which is not in it.
fn cut_off(text: &[u8], key: &[u8]) -> usize {
    (text.len() + 1).saturating_sub(key.len())
}
