//! Whether this process may do what the configuration asks, found out before anything is begun.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;

use anyhow::{Context, anyhow};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::close;
use procfs::process::Process;

use crate::config::{Config, Interfaces};
use crate::failure::Failure;

/// Numbers of linux/capability.h.
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");
/// Includes CAP_BPF, from before there was one.
const SYS_ADMIN: u32 = 21;

/// # Errors
/// A capability is missing.
pub(crate) fn capabilities(config: &Config) -> Result<(), Failure> {
    if config.interfaces == Interfaces::None {
        return Ok(());
    }
    let status = Process::myself().and_then(|process| process.status());
    let missing = missing(status.context("/proc/self/status cannot be read")?.capeff);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::NotPermitted(format!(
        "missing {} to load and attach the data path; run as root or grant the capability, or use `--iface none` for layer 7 only",
        missing.join(" and ")
    )))
}

/// Descriptors that there is room for from the start: 8 bytes each, of the kernel's.
const ROOM: u64 = 1 << 16;

/// Takes as many file descriptors as may be had, since each connection of the proxy or the relay needs two, and makes room
/// for many while there is one thread: the kernel doubles their table each time it is full, and where threads share it,
/// whoever needs the next one waits for an RCU grace period.
///
/// # Errors
/// There are as few as before.
pub(super) fn descriptors() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let last = RawFd::try_from(most.min(ROOM).saturating_sub(1)).unwrap_or(RawFd::MAX);
    close(fcntl(io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(last))?)
}

/// # Errors
/// An address that we shall listen on is taken, or needs a capability.
pub(crate) fn addresses(config: &Config) -> Result<(), Failure> {
    for (flag, addr) in [("--http", config.http), ("--admin", config.admin)] {
        if let Some(addr) = addr {
            may_listen(flag, addr, config.takeover)?;
        }
    }
    Ok(())
}

/// The capabilities that the data path needs and the effective set lacks.
pub(crate) fn missing(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & (1 << number) != 0;
    [NET_ADMIN, BPF]
        .into_iter()
        .filter(|(number, _)| !(has(*number) || *number == BPF.0 && has(SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

/// Our listeners share their port, so that a successor can open it too: that nobody else has it must be asked for.
pub(crate) fn may_listen(flag: &str, addr: SocketAddr, takeover: bool) -> Result<(), Failure> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && takeover => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::Failed(anyhow!(
            "{flag} {addr} is in use by another process; `ss -ltnp` shows it, choose another address or stop it"
        ))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::NotPermitted(format!(
                "missing CAP_NET_BIND_SERVICE to listen on {flag} {addr}; run as root, grant the capability or choose a port from 1024 on"
            )))
        }
        Err(error) => Err(Failure::Failed(anyhow!(
            "{flag} {addr} cannot be listened on: {error}; choose another address"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_BPF"]);
        assert_eq!(missing(1 << 12), ["CAP_BPF"]);
        assert!(missing(1 << 12 | 1 << 39).is_empty());
        assert!(missing(1 << 12 | 1 << 21).is_empty());
    }

    #[test]
    fn a_port_of_somebody_else_is_refused_unless_we_succeed_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let refused = may_listen("--http", addr, false).unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
        may_listen("--http", addr, true).unwrap();
    }
}
