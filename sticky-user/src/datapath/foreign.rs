//! Programs of others, in words.

use aya::programs::loaded_programs;

use super::Error;
use super::sys::links;

/// A program's number and name.
pub fn describe(id: u32) -> String {
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    match program.as_ref().and_then(|program| program.name_as_str()) {
        Some(name) if !name.is_empty() => format!("{id} ({name})"),
        _ => id.to_string(),
    }
}

/// The name that an interface has now; its number if it is gone.
pub fn name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

/// That somebody else's XDP program is on an interface, and how it could be taken off.
pub fn on(name: &str, index: u32, program: Option<u32>) -> Error {
    let Some(program) = program else {
        return Error::Foreign {
            name: name.into(),
            program: String::new(),
            remedy: format!(
                "take it off first (`ip -details link show {name}` shows it, and the bond or bridge above it)"
            ),
        };
    };
    let link = links::of_xdp().into_iter().find(|link| link.ifindex == index);
    let remedy = match link {
        Some(link) => format!(
            "end the process that holds it, or take it off with `bpftool link detach id {}`",
            link.id
        ),
        None => {
            format!("take it off first with `ip link set dev {name} xdp off` (or xdpgeneric off)")
        }
    };
    Error::Foreign { name: name.into(), program: format!(" {}", describe(program)), remedy }
}
