//! Where the programs find a frontend on IPv4 without a call, and see that there is none: [`maps::PLACES`].
//!
//! The hash [`maps::FRONTENDS_V4`] stays what counts. At each place is one of the frontends that belong there, so that an
//! empty place says that the packet is not ours, and another's entry that the hash has to be asked.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::AsFd;

use sticky_common::maps;
use sticky_common::types::{Frontend, FrontendKeyV4, Placed};

use super::load::Maps;
use super::sys;
use crate::control::plan::FrontendKey;

const CHUNK: u32 = 4096;

/// What is at each place.
pub struct Places {
    /// As in the map.
    which: Vec<u8>,
    /// The frontends that belong to a place; the first is the one that is there.
    keys: HashMap<u32, Vec<FrontendKeyV4>>,
}

impl Places {
    /// Puts every frontend in its place, whatever was there.
    pub fn begin(maps: &Maps) -> io::Result<Self> {
        let which = sys::read_single(maps.places.as_fd(), 1 << maps::PLACE_BITS)?;
        let mut places = Self { which, keys: HashMap::new() };
        maps.frontends_v4.for_each(CHUNK, |key, _| places.add(*key))?;
        let all = (0..1 << maps::PLACE_BITS).collect();
        places.commit(maps, &all)?;
        Ok(places)
    }

    /// Follows a change of the hash, after it.
    pub fn follow(
        &mut self,
        maps: &Maps,
        set: &[(FrontendKey, Frontend)],
        gone: &[FrontendKey],
    ) -> io::Result<()> {
        let mut changed = BTreeSet::new();
        for key in gone.iter().filter_map(v4) {
            changed.insert(key.place(maps::PLACE_BITS));
            self.remove(key);
        }
        for key in set.iter().filter_map(|(key, _)| v4(key)) {
            changed.insert(key.place(maps::PLACE_BITS));
            self.add(key);
        }
        if changed.is_empty() { Ok(()) } else { self.commit(maps, &changed) }
    }

    fn add(&mut self, key: FrontendKeyV4) {
        let keys = self.keys.entry(key.place(maps::PLACE_BITS)).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    fn remove(&mut self, key: FrontendKeyV4) {
        let place = key.place(maps::PLACE_BITS);
        if let Some(keys) = self.keys.get_mut(&place) {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                self.keys.remove(&place);
            }
        }
    }

    /// Writes the entries that nobody reads, and then, in one step, that they count.
    fn commit(&mut self, maps: &Maps, changed: &BTreeSet<u32>) -> io::Result<()> {
        let (mut indices, mut entries) = (Vec::new(), Vec::new());
        for place in changed {
            let Some(which) = self.which.get_mut(*place as usize) else { continue };
            let first = self.keys.get(place).and_then(|keys| keys.first());
            let Some(key) = first else {
                *which = 0;
                continue;
            };
            let Some(frontend) = maps.frontends_v4.get(key)? else { continue };
            *which = if *which == 1 { 2 } else { 1 };
            indices.push(Placed::index(*place, *which));
            entries.push(Placed { key: key.packed(), frontend });
        }
        maps.placed.set_all(&indices, &entries)?;
        sys::fill_single(maps.places.as_fd(), &self.which)
    }
}

fn v4(key: &FrontendKey) -> Option<FrontendKeyV4> {
    match key {
        FrontendKey::V4(key) => Some(*key),
        FrontendKey::V6(_) => None,
    }
}
