//! tc hooks: at tcx ingress, in front of whatever else is there.
//!
//! In front, since a program that comes first and lets a packet go on to the host ends the chain: a packet that XDP chose
//! for, or a reply, would then fall through. What is not ours goes on to the next program, and to filters of clsact.

use std::os::fd::AsFd as _;

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::held::{Held, Hook};
use super::refused;
use crate::datapath::load::Programs;
use crate::datapath::sys::links;
use crate::datapath::{Error, foreign};

/// Where our program is among those of its hook.
pub enum Place {
    /// Not there.
    None,
    /// Sees packets first.
    First { ours: bool },
    /// After `program` of someone else.
    Behind { ours: bool, program: u32 },
}

/// Looks where a hook's program is.
pub fn look(held: &Held, hook: Hook, index: u32) -> Result<Place, Error> {
    let Some((info, ours)) = held.get(&hook.pin(index)) else { return Ok(Place::None) };
    let chain = links::tcx_ingress(index)
        .map_err(|e| Error::failed("cannot list the tc programs of an interface", e))?;
    Ok(match chain.first() {
        Some(first) if first.link != info.id => Place::Behind { ours, program: first.program },
        _ => Place::First { ours },
    })
}

/// Puts the program in front; an older link of ours goes once the new one is there.
pub fn attach(
    programs: &mut Programs,
    held: &mut Held,
    hook: Hook,
    name: &str,
    index: u32,
) -> Result<(), Error> {
    let program = program(programs, hook)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(name, TcAttachType::Ingress, options)
        .and_then(|id| program.take_link(id))
        .map_err(|e| refused(name, "tc", &e))?;
    let link = FdLink::try_from(link).map_err(|e| refused(name, "tc", &e))?;
    held.insert(hook, index, link)
}

/// Puts the program into the link that is there, in one step.
pub fn update(
    programs: &mut Programs,
    held: &mut Held,
    hook: Hook,
    index: u32,
) -> Result<(), Error> {
    let program = program(programs, hook)?;
    let fd = program.fd().map_err(|e| Error::failed("program", e))?;
    held.update(&hook.pin(index), fd.as_fd()).map_err(|e| refused(&foreign::name(index), "tc", &e))
}

fn program(programs: &mut Programs, hook: Hook) -> Result<&mut SchedClassifier, Error> {
    let program = match hook {
        Hook::Reply => programs.reply(),
        Hook::Deliver | Hook::Xdp(_) => programs.deliver(),
    };
    program.map_err(|e| Error::failed("program", e))
}
