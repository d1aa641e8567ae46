//! The interfaces that clients come in by.

use std::fs;

use tokio::runtime::Runtime;

use super::offloads::{self, Offloads};
use super::{Check, Patient};
use crate::config::XdpMode;
use crate::datapath::{self, InterfaceNow};

pub fn checks(patient: &Patient<'_>, runtime: &Runtime) -> Vec<Check> {
    if patient.interfaces.is_empty() {
        return Vec::new();
    }
    let now = match datapath::interfaces(runtime.handle()) {
        Ok(now) => now,
        Err(e) => return vec![Check::fail("interfaces", e.to_string(), "run on the host itself")],
    };
    let mut checks = Vec::new();
    for name in &patient.interfaces {
        match now.iter().find(|interface| interface.name == *name) {
            None => checks.push(Check::fail(
                format!("{name} link"),
                "it is not there",
                "`ip link` lists those that are; sticky attaches when it appears",
            )),
            Some(interface) => {
                let offloads = runtime.block_on(offloads::read(name));
                checks.push(link(interface));
                checks.push(xdp(patient, interface));
                checks.push(mtu(interface, &now));
                checks.extend(offloads.as_ref().map(|offloads| lro(name, offloads)));
                checks.extend(offloads.as_ref().map(|offloads| gro(name, offloads)));
                checks.extend(offloads.map(|offloads| queues(name, &offloads)));
                checks.push(rp_filter(name));
            }
        }
    }
    checks
}

fn link(interface: &InterfaceNow) -> Check {
    let name = format!("{} link", interface.name);
    match interface.up {
        true => Check::ok(name, format!("up, driver {}", driver(&interface.name))),
        false => Check::warn(name, "it is down", format!("`ip link set {} up`", interface.name)),
    }
}

fn driver(name: &str) -> String {
    let link = fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    let driver = link.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    driver.unwrap_or_else(|| "of a virtual device".to_owned())
}

fn xdp(patient: &Patient<'_>, interface: &InterfaceNow) -> Check {
    let name = format!("{} XDP", interface.name);
    let running = patient.running.iter().flat_map(|status| &status.datapath.interfaces);
    if let Some(found) = running.into_iter().find(|found| found.name == interface.name) {
        return match (&found.problem, found.mode.as_str()) {
            (Some(problem), _) => Check::fail(name, problem, "sticky attaches as soon as it can"),
            (None, "generic") => Check::warn(
                name,
                "sticky is attached in generic mode",
                "native mode is faster; a driver that has it is needed",
            ),
            (None, mode) => Check::ok(name, format!("sticky is attached in {mode} mode")),
        };
    }
    if let Some(foreign) = interface.foreign(&patient.config.places.pin_dir) {
        return Check::fail(name, foreign.to_string(), "sticky never replaces it");
    }
    match (interface.native_xdp, patient.config.xdp_mode) {
        (Some(true), _) => Check::ok(name, "the driver says that it has native mode"),
        (Some(false), XdpMode::Native) => {
            Check::fail(name, "the driver has no native mode", "use --xdp-mode auto or generic")
        }
        (Some(false), _) => Check::warn(
            name,
            "the driver has no native mode",
            "generic mode will be used, which is slower",
        ),
        (None, _) => {
            Check::ok(name, "the driver does not say what it has; it is tried at the start")
        }
    }
}

/// The smallest of the links behind: what is longer must be told to the client.
fn mtu(interface: &InterfaceNow, all: &[InterfaceNow]) -> Check {
    let name = format!("{} MTU", interface.name);
    let bridges = all.iter().filter(|other| other.bridge && other.up);
    match bridges.min_by_key(|bridge| bridge.mtu) {
        Some(bridge) if bridge.mtu < interface.mtu => Check::warn(
            name,
            format!(
                "{}, more than the {} of {}: clients learn the smaller one by ICMP",
                interface.mtu, bridge.mtu, bridge.name
            ),
            "give Docker's networks the same MTU (com.docker.network.driver.mtu)",
        ),
        _ => Check::ok(name, interface.mtu.to_string()),
    }
}

fn lro(name: &str, offloads: &Offloads) -> Check {
    let check = format!("{name} LRO");
    match offloads.on("rx-lro") {
        true => Check::warn(
            check,
            "on: drivers refuse native XDP with it, and merged packets cannot be forwarded as they came",
            format!("`ethtool -K {name} lro off`"),
        ),
        false => Check::ok(check, "off"),
    }
}

fn gro(name: &str, offloads: &Offloads) -> Check {
    let check = format!("{name} GRO");
    match offloads.on("rx-gro-hw") {
        true => Check::warn(
            check,
            "done by the hardware: some drivers refuse native XDP with it",
            format!("`ethtool -K {name} rx-gro-hw off` if native mode is refused"),
        ),
        false if offloads.on("rx-gro") => Check::ok(check, "on, after XDP: it costs nothing here"),
        false => Check::ok(check, "off"),
    }
}

fn queues(name: &str, offloads: &Offloads) -> Check {
    let check = format!("{name} queues");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    match offloads.queues {
        None => Check::ok(check, "one, or the driver does not say"),
        Some(queues) if (queues as usize) < cpus => Check::warn(
            check,
            format!("{queues} for {cpus} CPUs: only as many CPUs take packets"),
            format!("`ethtool -L {name} combined {cpus}` if the device has them"),
        ),
        Some(queues) => Check::ok(check, format!("{queues} for {cpus} CPUs")),
    }
}

fn rp_filter(name: &str) -> Check {
    let read = |of: &str| -> u8 {
        let path = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let check = format!("{name} rp_filter");
    // The kernel takes the larger of the two (ip-sysctl).
    match read("all").max(read(name)) {
        1 => Check::warn(
            check,
            "strict: layer 4 does not meet it, but layer 7 drops clients whose replies leave elsewhere",
            format!("`sysctl net.ipv4.conf.{name}.rp_filter=2` on a host with several uplinks"),
        ),
        other => Check::ok(check, format!("{other}: not strict")),
    }
}
