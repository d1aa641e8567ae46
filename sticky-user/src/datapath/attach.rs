//! Puts the programs on interfaces, by links that are pinned and later only updated, and keeps them there while
//! interfaces come and go.

mod held;
mod tc;
mod xdp;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aya::programs::{ProgramError, TcError};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::load::{self, Programs, chain};
use super::migrate::Earlier;
use super::pins::Pins;
use super::{Error, Settings};
use crate::control::Interface;
use crate::netlink::Link;
use held::{Held, Hook};
pub use xdp::{Mode, XdpMode};

/// The programs and where they are.
pub struct Hooks {
    programs: Programs,
    pins: Pins,
    settings: Settings,
    runtime: Handle,
    held: Held,
    /// Another version, while its programs are not all replaced.
    earlier: Option<Earlier>,
    /// Whom a hook was moved in front of already.
    contested: HashMap<String, u32>,
    /// The interfaces that clients come in by, as they were last found.
    sides: BTreeMap<String, Result<(u32, Mode), String>>,
    shown: Arc<ArcSwap<Vec<Interface>>>,
}

impl Hooks {
    pub fn new(
        programs: Programs,
        pins: Pins,
        settings: Settings,
        runtime: Handle,
        earlier: Option<Earlier>,
    ) -> Self {
        let held = Held::adopt(pins.clone(), earlier.as_ref().map(Earlier::links).as_deref());
        Self {
            programs,
            pins,
            settings,
            runtime,
            held,
            earlier,
            contested: HashMap::new(),
            sides: BTreeMap::new(),
            shown: Arc::default(),
        }
    }

    /// The interfaces that clients come in by, now and after each change.
    pub fn shown(&self) -> Arc<ArcSwap<Vec<Interface>>> {
        Arc::clone(&self.shown)
    }

    /// Attaches for the first time. An interface that is not there is waited for; any other failure takes back what was
    /// attached anew.
    ///
    /// Not before the first commit where another version's maps could not be taken over: with nothing in ours, packets
    /// would go to the host.
    pub fn begin(&mut self, links: &HashMap<u32, Link>) -> Result<(), Error> {
        if self.waits() {
            return Ok(());
        }
        // Replies first: an earlier program does not know all places where ours notes a flow.
        self.put_replies(self.held.indices(Hook::Reply), links);
        let mut problems = self.look_at_clients(links).into_iter();
        match problems.find(|problem| !matches!(problem, Error::NoInterface(_))) {
            None => Ok(()),
            Some(fatal) => {
                self.held.take_back();
                Err(fatal)
            }
        }
    }

    /// Follows what became of the interfaces that clients come in by. What fails is told, shown, and tried again at the next
    /// look.
    pub fn follow_clients(&mut self, links: &HashMap<u32, Link>) {
        if !self.waits() {
            self.look_at_clients(links);
        }
    }

    fn waits(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| !earlier.carried)
    }

    /// Puts the reply hook where the backends on `devices` answer.
    pub fn follow_backends(&mut self, devices: &HashSet<u32>, links: &HashMap<u32, Link>) {
        if self.waits() {
            return;
        }
        self.put_replies(ends(devices, links), links);
    }

    fn put_replies(&mut self, indices: Vec<u32>, links: &HashMap<u32, Link>) {
        for index in indices {
            let Some(link) = links.get(&index) else { continue };
            if let Err(e) = self.put_tc(Hook::Reply, &link.name, index) {
                // A container's end may vanish between the list and the attachment.
                warn!(interface = %link.name, error = %e, "cannot attach to a backend's link yet");
            }
        }
    }

    /// What was wanted is in the maps: the programs of another version are replaced now, if they still are there.
    pub fn committed(&mut self, devices: &HashSet<u32>, links: &HashMap<u32, Link>) {
        let Some(earlier) = &mut self.earlier else { return };
        earlier.carried = true;
        self.look_at_clients(links);
        self.follow_backends(devices, links);
        // Hooks that nothing of ours is behind any more.
        self.held.retain_ours();
        if let Some(earlier) = self.earlier.take() {
            earlier.finish();
        }
    }

    /// Whether clients come in by the interface of this name.
    pub fn faces_clients(&self, name: &str) -> bool {
        self.settings.interfaces.iter().any(|named| named == name)
    }

    fn look_at_clients(&mut self, links: &HashMap<u32, Link>) -> Vec<Error> {
        self.held.sweep();
        let wanted: HashMap<u32, &str> = links
            .iter()
            .filter(|(_, link)| self.settings.interfaces.contains(&link.name))
            .map(|(index, link)| (*index, link.name.as_str()))
            .collect();
        let modes = self.settings.mode.tries();
        self.held.retain(|hook, index| match hook {
            Hook::Xdp(mode) => wanted.contains_key(&index) && modes.contains(&mode),
            Hook::Deliver => wanted.contains_key(&index),
            Hook::Reply => true,
        });
        let mut problems = Vec::new();
        for name in self.settings.interfaces.clone() {
            let found = wanted.iter().find(|(_, there)| **there == name);
            let side = match found {
                None => Err(Error::NoInterface(name.clone())),
                Some((index, _)) => self
                    .one(&name, *index, links.get(index).and_then(|link| link.xdp))
                    .map(|mode| (*index, mode)),
            };
            self.tell(&name, &side);
            self.sides.insert(
                name,
                match side {
                    Ok(at) => Ok(at),
                    Err(e) => {
                        let text = e.to_string();
                        problems.push(e);
                        Err(text)
                    }
                },
            );
        }
        self.show();
        problems
    }

    fn one(&mut self, name: &str, index: u32, there: Option<u32>) -> Result<Mode, Error> {
        let deliver = Hook::Deliver.pin(index);
        let fresh = !self.held.has(&deliver);
        // Delivery first: a choice that nobody delivers would fall through to the host.
        self.put_tc(Hook::Deliver, name, index)?;
        let mode =
            xdp::put(&mut self.programs, &mut self.held, self.settings.mode, name, index, there);
        if mode.is_err() && fresh {
            self.held.remove(&deliver);
        }
        mode
    }

    fn put_tc(&mut self, hook: Hook, name: &str, index: u32) -> Result<(), Error> {
        match tc::look(&self.held, hook, index)? {
            tc::Place::None => tc::attach(&mut self.programs, &mut self.held, hook, name, index),
            tc::Place::First { ours: true } => Ok(()),
            tc::Place::First { ours: false } => {
                tc::update(&mut self.programs, &mut self.held, hook, index)
            }
            tc::Place::Behind { ours, program } => {
                let pin = hook.pin(index);
                if self.contested.insert(pin, program) == Some(program) {
                    return Ok(());
                }
                warn!(
                    interface = name,
                    program = %super::foreign::describe(program),
                    "another tc program saw the packets of sticky first; sticky's is first again"
                );
                // The kernel takes a program at a hook only once, and the one that is there must stay until then.
                if ours {
                    self.reload()?;
                }
                tc::attach(&mut self.programs, &mut self.held, hook, name, index)
            }
        }
    }

    fn reload(&mut self) -> Result<(), Error> {
        self.programs = load::load(&self.settings, &self.pins, &self.runtime)?.programs;
        Ok(())
    }

    fn tell(&self, name: &str, side: &Result<(u32, Mode), Error>) {
        let before = self.sides.get(name);
        match side {
            Ok((index, mode)) => {
                if before.is_some_and(|b| b.as_ref().is_ok_and(|b| b == &(*index, *mode))) {
                    return;
                }
                info!(interface = %name, mode = mode.as_str(), "XDP attached");
                if self.settings.mode == XdpMode::Auto && *mode == Mode::Generic {
                    warn!(interface = %name, "the driver has no native XDP; generic mode works but is slower");
                }
            }
            Err(e) => {
                let text = e.to_string();
                if before.is_some_and(|b| b.as_ref().err() == Some(&text)) {
                    return;
                }
                warn!(interface = %name, error = %text, "nothing is balanced on this interface");
            }
        }
    }

    fn show(&self) {
        let interfaces = self.settings.interfaces.iter().filter_map(|name| {
            Some(match self.sides.get(name)? {
                Ok((_, mode)) => Interface {
                    name: name.clone(),
                    mode: mode.as_str().into(),
                    pinned: true,
                    problem: None,
                },
                Err(e) => Interface {
                    name: name.clone(),
                    mode: "none".into(),
                    pinned: false,
                    problem: Some(e.clone()),
                },
            })
        });
        self.shown.store(Arc::new(interfaces.collect()));
    }
}

/// The links at which replies first come in: the ports of a bridge (netfilter may drop them before the bridge itself
/// sees them), or the device itself.
fn ends(devices: &HashSet<u32>, links: &HashMap<u32, Link>) -> Vec<u32> {
    let mut ends = Vec::new();
    for device in devices {
        if links.get(device).is_some_and(|l| l.bridge) {
            ends.extend(
                links.iter().filter(|(_, l)| l.master == Some(*device)).map(|(index, _)| *index),
            );
        } else {
            ends.push(*device);
        }
    }
    ends
}

/// Why the kernel did not take a program, for a user.
fn refused(name: &str, mode: &'static str, error: &(dyn std::error::Error + 'static)) -> Error {
    match errno(error) {
        Some(libc::EPERM) => {
            Error::NotPermitted { capability: "CAP_NET_ADMIN", what: format!("attach to {name}") }
        }
        Some(libc::ENODEV) => Error::NoInterface(name.to_owned()),
        _ => Error::Attach { name: name.into(), mode, cause: chain(error) },
    }
}

/// The system's error at the bottom of one of aya's.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        // These pass for the system's error, and are not above it.
        match error.downcast_ref() {
            Some(ProgramError::IOError(io) | ProgramError::TcError(TcError::IoError(io))) => {
                return io.raw_os_error();
            }
            _ => next = error.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_goes_just_then_is_not_there() {
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let errors: [ProgramError; 2] = [gone().into(), TcError::from(gone()).into()];
        for error in errors {
            assert!(
                matches!(refused("late0", "tc", &error), Error::NoInterface(name) if name == "late0")
            );
        }
    }
}
