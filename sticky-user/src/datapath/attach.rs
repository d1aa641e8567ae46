//! Puts the programs on interfaces, by links that are pinned and later only updated.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::{XdpLink, XdpMode as Flags};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, tc::SchedClassifierLink};
use tracing::{debug, info, warn};

use super::load::{Programs, chain};
use super::netlink::{Link, Netlink};
use super::pins::Pins;
use super::{Error, Settings};
use crate::control::Interface;

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver's if it can, otherwise the kernel's generic one; which it was is said.
    Auto,
    Native,
    Generic,
}

impl XdpMode {
    const fn tries(self) -> &'static [Mode] {
        match self {
            Self::Auto => &[Mode::Native, Mode::Generic],
            Self::Native => &[Mode::Native],
            Self::Generic => &[Mode::Generic],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Native,
    Generic,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> Flags {
        match self {
            Self::Native => Flags::Driver,
            Self::Generic => Flags::Skb,
        }
    }
}

/// The programs and where they are.
pub struct Hooks {
    programs: Programs,
    pins: Pins,
    /// Interfaces that clients come in by.
    clients: HashSet<u32>,
    /// Interfaces with the reply hook.
    replies: HashSet<u32>,
}

impl Hooks {
    pub fn new(programs: Programs, pins: Pins) -> Self {
        Self { programs, pins, clients: HashSet::new(), replies: HashSet::new() }
    }

    /// Attaches XDP and delivery where clients come in; takes them off interfaces that are no longer named.
    pub fn attach_clients_side(
        &mut self,
        settings: &Settings,
        netlink: &Netlink,
    ) -> Result<Vec<Interface>, Error> {
        let links = netlink.links().map_err(|e| Error::failed("cannot list the interfaces", e))?;
        let mut attached = Vec::new();
        let mut keep = HashSet::new();
        for name in &settings.interfaces {
            let found = links.iter().find(|(_, l)| l.name == *name);
            let (index, _) = found.ok_or_else(|| Error::NoInterface(name.clone()))?;
            // Delivery first: a choice that nobody delivers would fall through to the host.
            let deliver = format!("deliver-{index}");
            let program =
                self.programs.deliver().map_err(|e| Error::failed("program", chain(&e)))?;
            attach_tc(program, &self.pins.link(&deliver), name)
                .map_err(|e| attach_error(name, "tc", e))?;
            let (mode, pin) = self.attach_xdp(name, *index, settings.mode)?;
            info!(interface = %name, mode = mode.as_str(), "XDP attached");
            if settings.mode == XdpMode::Auto && mode == Mode::Generic {
                warn!(interface = %name, "the driver has no native XDP; generic mode works but is slower");
            }
            self.clients.insert(*index);
            keep.extend([deliver, pin]);
            attached.push(Interface {
                name: name.clone(),
                mode: mode.as_str().into(),
                pinned: true,
            });
        }
        for stale in self.pins.links() {
            let ours = stale.starts_with("deliver-") || stale.starts_with("xdp-");
            if ours && !keep.contains(&stale) {
                unpin(&self.pins.link(&stale));
            }
        }
        Ok(attached)
    }

    fn attach_xdp(
        &mut self,
        name: &str,
        index: u32,
        wanted: XdpMode,
    ) -> Result<(Mode, String), Error> {
        for mode in [Mode::Native, Mode::Generic] {
            let pin = format!("xdp-{index}-{}", mode.as_str());
            let path = self.pins.link(&pin);
            let Some(old) = pinned(&path) else { continue };
            if !wanted.tries().contains(&mode) {
                drop(old);
                unpin(&path);
                continue;
            }
            let program = self.program(mode)?;
            match XdpLink::try_from(old)
                .map_err(|e| chain(&e))
                .and_then(|l| program.attach_to_link(l).map_err(|e| chain(&e)))
            {
                Ok(_) => return Ok((mode, pin)),
                Err(e) => {
                    debug!(interface = name, error = %e, "the pinned link is of an interface that is gone");
                    unpin(&path);
                }
            }
        }
        let mut last = String::new();
        for mode in wanted.tries() {
            let pin = format!("xdp-{index}-{}", mode.as_str());
            let program = self.program(*mode)?;
            let attached = program
                .attach_to_if_index(index, mode.flags())
                .and_then(|id| program.take_link(id))
                .map_err(|e| attach_error(name, mode.as_str(), chain(&e)))
                .and_then(|link| pin_link(FdLink::try_from(link), &self.pins.link(&pin)));
            match attached {
                Ok(()) => return Ok((*mode, pin)),
                Err(e @ (Error::Foreign { .. } | Error::NotPermitted { .. })) => return Err(e),
                Err(e) => last = e.to_string(),
            }
        }
        Err(Error::failed(format!("interface {name}"), last))
    }

    /// Whether clients come in by this interface.
    pub fn faces_clients(&self, index: u32) -> bool {
        self.clients.contains(&index)
    }

    fn program(&mut self, mode: Mode) -> Result<&mut Xdp, Error> {
        self.programs.xdp(mode == Mode::Native).map_err(|e| Error::failed("program", chain(&e)))
    }

    /// Puts the reply hook on the devices that backends answer through; forgets devices that are gone.
    pub fn attach_replies(
        &mut self,
        devices: &HashSet<u32>,
        links: &HashMap<u32, Link>,
    ) -> Result<(), Error> {
        self.replies.retain(|index| links.contains_key(index));
        for stale in self.pins.links() {
            let index = stale.strip_prefix("reply-").and_then(|i| i.parse().ok());
            if index.is_some_and(|i| !links.contains_key(&i)) {
                unpin(&self.pins.link(&stale));
            }
        }
        for index in ends(devices, links) {
            if self.replies.contains(&index) {
                continue;
            }
            let Some(link) = links.get(&index) else { continue };
            let program = self.programs.reply().map_err(|e| Error::failed("program", chain(&e)))?;
            match attach_tc(program, &self.pins.link(&format!("reply-{index}")), &link.name) {
                Ok(()) => {
                    self.replies.insert(index);
                }
                // A container's end may vanish between the list and the attachment.
                Err(e) => {
                    warn!(interface = %link.name, error = %e, "cannot attach to a backend's link yet")
                }
            }
        }
        Ok(())
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

fn attach_tc(program: &mut SchedClassifier, pin: &Path, name: &str) -> Result<(), String> {
    if let Some(old) = pinned(pin) {
        let link = SchedClassifierLink::try_from(old).map_err(|e| chain(&e));
        match link.and_then(|l| program.attach_to_link(l).map_err(|e| chain(&e))) {
            Ok(_) => return Ok(()),
            Err(e) => {
                debug!(interface = name, error = %e, "the pinned link is of an interface that is gone");
                unpin(pin);
            }
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let attached = program
        .attach_with_options(name, TcAttachType::Ingress, options)
        .and_then(|id| program.take_link(id))
        .map_err(|e| chain(&e))?;
    let link = FdLink::try_from(attached).map_err(|e| chain(&e))?;
    link.pin(pin).map(drop).map_err(|e| chain(&e))
}

fn pinned(path: &Path) -> Option<FdLink> {
    PinnedLink::from_pin(path).ok().map(FdLink::from)
}

fn pin_link(link: Result<FdLink, LinkError>, path: &Path) -> Result<(), Error> {
    let link = link.map_err(|e| Error::failed("cannot keep the link", chain(&e)))?;
    link.pin(path)
        .map(drop)
        .map_err(|e| Error::failed(format!("cannot pin {}", path.display()), chain(&e)))
}

fn unpin(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        warn!(path = %path.display(), error = %e, "cannot remove a pin");
    }
}

fn attach_error(name: &str, mode: &'static str, cause: String) -> Error {
    let os = |code: i32| cause.contains(&format!("os error {code})"));
    if os(libc::EPERM) {
        return Error::NotPermitted {
            capability: "CAP_NET_ADMIN",
            what: format!("attach to {name}"),
        };
    }
    if os(libc::EBUSY) || os(libc::EEXIST) {
        return Error::Foreign { name: name.into(), program: foreign_program(name) };
    }
    Error::Attach { name: name.into(), mode, cause }
}

/// Name of the XDP program that is on an interface, as far as the kernel says.
fn foreign_program(_interface: &str) -> String {
    String::from("(see `ip link`)")
}
