//! The pinned links, kept open so that it is seen when their interface goes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use tracing::warn;

use super::xdp::Mode;
use crate::datapath::load::chain;
use crate::datapath::pins::{Pins, names};
use crate::datapath::sys::links::{self, Info};
use crate::datapath::{Error, foreign, sys};

/// What is attached; the name of its pin says to which interface. In the order in which they are taken off: without XDP no
/// packet waits for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    Xdp(Mode),
    Deliver,
    Reply,
}

impl Hook {
    pub fn pin(self, index: u32) -> String {
        match self {
            Self::Xdp(mode) => format!("xdp-{index}-{}", mode.as_str()),
            Self::Deliver => format!("deliver-{index}"),
            Self::Reply => format!("reply-{index}"),
        }
    }

    fn parse(pin: &str) -> Option<(Self, u32)> {
        let (kind, rest) = pin.split_once('-')?;
        match kind {
            "xdp" => {
                let (index, mode) = rest.split_once('-')?;
                let mode =
                    [Mode::Native, Mode::Generic].into_iter().find(|m| m.as_str() == mode)?;
                Some((Self::Xdp(mode), index.parse().ok()?))
            }
            "deliver" => Some((Self::Deliver, rest.parse().ok()?)),
            "reply" => Some((Self::Reply, rest.parse().ok()?)),
            _ => None,
        }
    }
}

struct Entry {
    /// Where it is pinned: at first in the directory of the version that made it.
    path: PathBuf,
    hook: Hook,
    index: u32,
    link: OwnedFd,
    /// It carries the program of this process.
    ours: bool,
    /// This process made it.
    fresh: bool,
}

/// The links under one pin directory, by the names of their pins.
pub struct Held {
    pins: Pins,
    links: BTreeMap<String, Entry>,
}

impl Held {
    /// Opens what an earlier process left, also one of another version whose links are in `earlier`.
    pub fn adopt(pins: Pins, earlier: Option<&Path>) -> Self {
        let mut held = Self { pins, links: BTreeMap::new() };
        let ours = held.pins.links().into_iter().map(|pin| (held.pins.link(&pin), pin));
        let theirs = earlier
            .into_iter()
            .flat_map(|dir| names(dir).into_iter().map(move |pin| (dir.join(&pin), pin)));
        for (path, pin) in ours.chain(theirs).collect::<Vec<_>>() {
            match (Hook::parse(&pin), sys::get(&path)) {
                (Some((hook, index)), Ok(link)) if !held.links.contains_key(&pin) => {
                    let entry = Entry { path, hook, index, link, ours: false, fresh: false };
                    held.links.insert(pin, entry);
                }
                // One that was to replace another when its process died.
                (_, Ok(link)) => take_off(&path, &link),
                (_, Err(error)) => warn!(pin, %error, "cannot open a pinned link"),
            }
        }
        held
    }

    pub fn has(&self, pin: &str) -> bool {
        self.links.contains_key(pin)
    }

    /// The interfaces that a hook is at.
    pub fn indices(&self, hook: Hook) -> Vec<u32> {
        self.links.values().filter(|held| held.hook == hook).map(|held| held.index).collect()
    }

    /// The link of a hook, and whether it carries the program of this process.
    pub fn get(&self, pin: &str) -> Option<(Info, bool)> {
        let entry = self.links.get(pin)?;
        links::info(entry.link.as_fd()).ok().map(|info| (info, entry.ours))
    }

    /// Puts the program of this process into a link, in one step.
    pub fn update(&mut self, pin: &str, program: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(entry) = self.links.get_mut(pin) {
            links::update(entry.link.as_fd(), program)?;
            entry.ours = true;
            let path = self.pins.link(pin);
            if entry.path != path {
                std::fs::rename(&entry.path, &path)?;
                entry.path = path;
            }
        }
        Ok(())
    }

    /// Pins a new link in place of the one that was there, which then goes.
    pub fn insert(&mut self, hook: Hook, index: u32, link: FdLink) -> Result<(), Error> {
        let pin = hook.pin(index);
        let path = self.pins.link(&pin);
        let hidden = self.pins.link(&format!("new-{pin}"));
        let failed =
            |e: &dyn std::error::Error| Error::failed(format!("cannot pin {pin}"), chain(e));
        link.pin(&hidden).map_err(|e| failed(&e))?;
        let link = sys::get(&hidden).map_err(|e| failed(&e))?;
        // An interface of that name and number may have gone and come between the list and the attachment.
        if links::info(link.as_fd()).map_err(|e| failed(&e))?.ifindex != index {
            take_off(&hidden, &link);
            return Err(Error::NoInterface(foreign::name(index)));
        }
        std::fs::rename(&hidden, &path).map_err(|e| failed(&e))?;
        let entry = Entry { path, hook, index, link, ours: true, fresh: true };
        if let Some(old) = self.links.insert(pin.clone(), entry)
            && let Err(error) = links::detach(old.link.as_fd())
        {
            warn!(pin, %error, "cannot take an old link off");
        }
        Ok(())
    }

    /// Takes a link off its interface and removes its pin.
    pub fn remove(&mut self, pin: &str) {
        if let Some(entry) = self.links.remove(pin) {
            take_off(&entry.path, &entry.link);
        }
    }

    /// Forgets the links whose interface is gone.
    pub fn sweep(&mut self) {
        let dead = |entry: &Entry| {
            links::info(entry.link.as_fd()).is_ok_and(|info| info.ifindex != entry.index)
        };
        self.remove_all(|entry| dead(entry));
    }

    /// Takes off what `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(Hook, u32) -> bool) {
        self.remove_all(|entry| !keep(entry.hook, entry.index));
    }

    /// Takes off what carries the program of another process.
    pub fn retain_ours(&mut self) {
        self.remove_all(|entry| !entry.ours);
    }

    /// Takes off what this process attached.
    pub fn take_back(&mut self) {
        self.remove_all(|entry| entry.fresh);
    }

    fn remove_all(&mut self, which: impl Fn(&Entry) -> bool) {
        let mut out: Vec<_> = self
            .links
            .iter()
            .filter(|(_, entry)| which(entry))
            .map(|(pin, entry)| (entry.hook, pin.clone()))
            .collect();
        out.sort();
        for (_, pin) in out {
            self.remove(&pin);
        }
    }
}

fn take_off(path: &Path, link: &OwnedFd) {
    if let Err(error) = links::detach(link.as_fd()) {
        warn!(pin = %path.display(), %error, "cannot take a link off");
    }
    if let Err(error) = std::fs::remove_file(path) {
        warn!(pin = %path.display(), %error, "cannot remove a pin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins() {
        for hook in [Hook::Xdp(Mode::Native), Hook::Xdp(Mode::Generic), Hook::Deliver, Hook::Reply]
        {
            assert_eq!(Hook::parse(&hook.pin(17)), Some((hook, 17)));
        }
        assert_eq!(Hook::parse("new-deliver-17"), None);
        assert_eq!(Hook::parse("deliver-x"), None);
    }
}
