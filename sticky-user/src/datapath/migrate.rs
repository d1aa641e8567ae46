//! What another version of sticky left: its links always go over, its maps if they are laid out as ours are.
//!
//! A map that is laid out alike is shared, not copied: while the programs are replaced one by one, the old and the new ones
//! see the same records and connections. Records say nothing without the backends that they name, so it is all maps or
//! none.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya_obj::Object;
use sticky_common::{ABI_VERSION, maps};
use tracing::{info, warn};

use super::load::{OBJECT, chain};
use super::pins::Pins;
use super::{Error, sys};

/// Maps whose contents nobody misses.
const DISPENSABLE: [&str; 6] = [
    maps::OUTCOMES,
    maps::BACKEND_STATS,
    maps::BACKEND_BASES,
    maps::CAPTURE,
    maps::CAPTURE_UNTIL,
    maps::CAPTURED,
];

/// Another version's directory, until nothing in it is needed any more.
pub struct Earlier {
    version: String,
    root: PathBuf,
    /// Its records and connections are ours now.
    pub carried: bool,
}

impl Earlier {
    /// Looks for what another version left, and takes its maps over where that is possible.
    pub fn find(pin_dir: &Path, pins: &Pins) -> Result<Option<Self>, Error> {
        let ours = format!("v{ABI_VERSION}");
        let other = |name: &String| {
            let number = name.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
            number && *name != ours && pin_dir.join(name).join("links").exists()
        };
        let Some(version) = super::pins::names(pin_dir).into_iter().find(other) else {
            return Ok(None);
        };
        let root = pin_dir.join(&version);
        let mut earlier = Self { version, root, carried: false };
        // One that died while it took over has made its maps.
        if pins.maps().is_empty() {
            let refused = earlier.different()?;
            match refused {
                None => earlier.share(pins)?,
                Some(map) => warn!(
                    from = %earlier.version,
                    to = %ours,
                    map,
                    "the maps of the version that ran before are laid out otherwise: its clients are forgotten, and \
                     its connections end unless their clients' slots are the same"
                ),
            }
        }
        Ok(Some(earlier))
    }

    /// Where its links are pinned.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The first map that is not laid out as ours.
    fn different(&self) -> Result<Option<String>, Error> {
        let object = Object::parse(OBJECT)
            .map_err(|e| Error::failed("the programs cannot be read", chain(&e)))?;
        for name in super::pins::names(&self.maps()) {
            // A table's size is in the name of the map of tables.
            if DISPENSABLE.contains(&name.as_str()) || name.starts_with(maps::TABLES) {
                continue;
            }
            let there = MapInfo::from_pin(self.maps().join(&name))
                .map_err(|e| Error::failed(format!("cannot look at the map {name}"), chain(&e)))?;
            let alike = object.maps.get(&name).is_some_and(|ours| {
                (ours.key_size(), ours.value_size()) == (there.key_size(), there.value_size())
                    && there.map_type().is_ok_and(|kind| kind as u32 == ours.map_type())
            });
            if !alike {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn share(&mut self, pins: &Pins) -> Result<(), Error> {
        for name in super::pins::names(&self.maps()) {
            if DISPENSABLE.contains(&name.as_str()) {
                continue;
            }
            sys::get(&self.maps().join(&name))
                .and_then(|map| sys::pin(&map, &pins.map(&name)))
                .map_err(|e| Error::failed(format!("cannot take over the map {name}"), e))?;
        }
        self.carried = true;
        info!(from = %self.version, to = ABI_VERSION, "records and connections of the version before are taken over");
        Ok(())
    }

    /// Its links are ours: what is left of it goes.
    pub fn finish(self) {
        let remove = |dir: PathBuf| {
            for name in super::pins::names(&dir) {
                if let Err(error) = fs::remove_file(dir.join(&name)) {
                    warn!(name, %error, "cannot remove a pin of the version before");
                }
            }
            if let Err(error) = fs::remove_dir(&dir) {
                warn!(dir = %dir.display(), %error, "cannot remove a directory of the version before");
            }
        };
        remove(self.maps());
        remove(self.links());
        if let Err(error) = fs::remove_dir(&self.root) {
            warn!(dir = %self.root.display(), %error, "cannot remove a directory of the version before");
        }
    }
}
