//! The kernel, what it takes of us, memory and permissions.

use procfs::process::Process;
use procfs::sys::kernel::Version;
use procfs::{Current, Meminfo};
use tokio::runtime::Handle;

use super::{Check, Patient};
use crate::config::Interfaces;
use crate::{datapath, permissions};

/// tcx links came with it; everything else that is used is older.
const OLDEST: Version = Version { major: 6, minor: 6, patch: 0 };
/// Kernel memory per remembered client: its record, its flow, and what the hash maps add.
const BYTES_PER_CLIENT: u64 = 350;

pub fn checks(patient: &Patient<'_>, runtime: &Handle) -> Vec<Check> {
    let mut checks = vec![kernel()];
    if patient.config.interfaces == Interfaces::None {
        return checks;
    }
    checks.push(btf());
    checks.push(capabilities());
    checks.push(programs(patient, runtime));
    checks.push(memory(patient));
    checks
}

fn kernel() -> Check {
    match Version::current() {
        Ok(version) => {
            let text = format!("{}.{}.{}", version.major, version.minor, version.patch);
            match version >= OLDEST {
                true => Check::ok("kernel", text),
                false => Check::fail(
                    "kernel",
                    format!("{text} is older than 6.6, which brought tcx links"),
                    "use a newer kernel, or `--iface none` for layer 7 only",
                ),
            }
        }
        Err(e) => {
            Check::warn("kernel", format!("its version cannot be read: {e}"), "6.6 is needed")
        }
    }
}

fn btf() -> Check {
    const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
    match std::path::Path::new(VMLINUX).exists() {
        true => Check::ok("BTF", VMLINUX),
        // What decides is whether the kernel takes the programs.
        false => Check::warn(
            "BTF",
            format!("{VMLINUX} is not there"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF if the programs are refused",
        ),
    }
}

fn capabilities() -> Check {
    let Ok(status) = Process::myself().and_then(|process| process.status()) else {
        return Check::warn("permissions", "they cannot be read", "run as root");
    };
    let missing = permissions::missing(status.capeff);
    match missing.is_empty() {
        true => Check::ok("permissions", "this process may load and attach the data path"),
        false => Check::fail(
            "permissions",
            format!("missing {}", missing.join(" and ")),
            "run as root or grant the capability",
        ),
    }
}

/// The kernel itself says whether it takes the programs.
fn programs(patient: &Patient<'_>, runtime: &Handle) -> Check {
    match datapath::probe(&patient.config.places.pin_dir, runtime) {
        Ok(()) => Check::ok("programs", "the kernel takes sticky's programs and maps"),
        Err(e @ datapath::Error::NotPermitted { .. }) => {
            Check::fail("programs", "they cannot be tried", e.to_string())
        }
        Err(e) => Check::fail(
            "programs",
            format!("the kernel refuses them: {e}"),
            "the README's table says which release brought what they use",
        ),
    }
}

fn memory(patient: &Patient<'_>) -> Check {
    let needed = u64::from(patient.config.max_clients) * BYTES_PER_CLIENT;
    let (name, mb) = ("memory", |bytes: u64| format!("{} MB", bytes / 1_000_000));
    if patient.running.is_some() {
        return Check::ok(name, "the maps of the running sticky are there");
    }
    match Meminfo::current().ok().and_then(|meminfo| meminfo.mem_available) {
        Some(free) if free < needed => Check::fail(
            name,
            format!("the maps take {}, {} are free", mb(needed), mb(free)),
            "lower --max-clients",
        ),
        Some(free) => Check::ok(name, format!("the maps take {} of {} free", mb(needed), mb(free))),
        None => Check::warn(name, "it cannot be read", format!("the maps take {}", mb(needed))),
    }
}
