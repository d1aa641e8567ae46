//! XDP on one interface: native or generic, and never in place of someone else's.

use std::os::fd::AsFd as _;

use aya::programs::Xdp;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode as Flags;
use tracing::debug;

use super::held::{Held, Hook};
use super::{errno, refused};
use crate::datapath::load::{self, Programs, chain};
use crate::datapath::{Error, foreign};

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver's if it can, otherwise the kernel's generic one; which it was is said.
    Auto,
    Native,
    Generic,
}

impl XdpMode {
    pub const fn tries(self) -> &'static [Mode] {
        match self {
            Self::Auto => &[Mode::Native, Mode::Generic],
            Self::Native => &[Mode::Native],
            Self::Generic => &[Mode::Generic],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Native,
    Generic,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The program for it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Native => "sticky_xdp",
            Self::Generic => "sticky_xdp_generic",
        }
    }

    const fn flags(self) -> Flags {
        match self {
            Self::Native => Flags::Driver,
            Self::Generic => Flags::Skb,
        }
    }
}

/// Attaches, or updates what an earlier process attached; `there` is the XDP program that was seen on the interface.
pub fn put(
    programs: &mut Programs,
    held: &mut Held,
    wanted: XdpMode,
    name: &str,
    index: u32,
    there: Option<u32>,
) -> Result<Mode, Error> {
    for mode in wanted.tries() {
        let pin = Hook::Xdp(*mode).pin(index);
        match held.get(&pin) {
            Some((_, true)) => return Ok(*mode),
            Some((_, false)) => {
                let program = program(programs, *mode)?;
                let fd = program.fd().map_err(|e| Error::failed("program", chain(&e)))?;
                held.update(&pin, fd.as_fd()).map_err(|e| refused(name, mode.as_str(), &e))?;
                return Ok(*mode);
            }
            None => {}
        }
    }
    let mut last = None;
    for mode in wanted.tries() {
        let program = program(programs, *mode)?;
        let attached =
            program.attach_to_if_index(index, mode.flags()).and_then(|id| program.take_link(id));
        match attached {
            Ok(link) => {
                let link = FdLink::try_from(link).map_err(|e| refused(name, mode.as_str(), &e))?;
                held.insert(Hook::Xdp(*mode), index, link)?;
                return Ok(*mode);
            }
            // The kernel never replaces a program by a link.
            Err(e) if matches!(errno(&e), Some(libc::EBUSY | libc::EEXIST)) => {
                return Err(foreign::on(name, index, there));
            }
            Err(e) => {
                debug!(interface = name, mode = mode.as_str(), error = %chain(&e), "XDP does not attach");
                let error = refused(name, mode.as_str(), &e);
                if matches!(error, Error::NotPermitted { .. } | Error::NoInterface(_)) {
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::failed(format!("interface {name}"), "no mode to attach in")))
}

fn program(programs: &mut Programs, mode: Mode) -> Result<&mut Xdp, Error> {
    programs.xdp(mode).map_err(|e| load::refused(&e))
}
