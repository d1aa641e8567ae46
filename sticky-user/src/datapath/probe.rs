//! What this host could do for the data path, found out without changing it.

use std::path::Path;

use sticky_common::hash::HashKey;
use sticky_common::maps::TABLE_SIZES;
use tokio::runtime::Handle;

use super::{Error, Settings, XdpMode, foreign, load, pins, sys};
use crate::netlink::{Link, Netlink};

/// Enough to try with.
const FEW_CLIENTS: u32 = 1024;

/// Has the kernel check programs and maps, and lets go of them. `pin_dir` says in which BPF file system.
pub fn probe(pin_dir: &Path, runtime: &Handle) -> Result<(), Error> {
    let name = format!("sticky-doctor-{}", std::process::id());
    let pin_dir = pin_dir.parent().unwrap_or(pin_dir).join(name);
    let settings = Settings {
        pin_dir: pin_dir.clone(),
        interfaces: Vec::new(),
        mode: XdpMode::Auto,
        table_size: TABLE_SIZES[0],
        max_clients: FEW_CLIENTS,
        hash_key: HashKey { k0: 0, k1: 0 },
        log: false,
    };
    let loaded =
        pins::Pins::create(&pin_dir).and_then(|pins| load::load(&settings, &pins, runtime));
    let removed = pins::remove_all(&pin_dir);
    loaded.and(removed).map(drop)
}

/// An interface as it is.
pub struct InterfaceNow {
    pub name: String,
    pub up: bool,
    pub mtu: u32,
    pub bridge: bool,
    /// Whether the driver has native XDP; `None`: it does not say.
    pub native_xdp: Option<bool>,
    index: u32,
    xdp: Option<u32>,
}

/// All interfaces of this network namespace.
pub fn interfaces(runtime: &Handle) -> Result<Vec<InterfaceNow>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::failed("cannot list the interfaces", e);
    let mut netlink = Netlink::connect().map_err(|e| failed(&e))?;
    let links = netlink.links().map_err(|e| failed(&e))?;
    let features = runtime.block_on(super::features::xdp(links.keys().copied()));
    let of = |(index, link): (u32, Link)| {
        let Link { name, up, mtu, bridge, xdp, .. } = link;
        let native_xdp = features.get(&index).map(|features| features.native());
        InterfaceNow { name, up, mtu, bridge, native_xdp, index, xdp }
    };
    Ok(links.into_iter().map(of).collect())
}

impl InterfaceNow {
    /// That somebody else's XDP program is on it.
    pub fn foreign(&self, pin_dir: &Path) -> Option<Error> {
        let program = self.xdp?;
        let versions = pins::names(pin_dir).into_iter().map(|version| pin_dir.join(version));
        let ours = versions
            .flat_map(|root| {
                let dir = root.join("links");
                pins::names(&dir).into_iter().map(move |name| dir.join(name))
            })
            .filter_map(|pin| sys::get(&pin).ok())
            .filter_map(|link| sys::links::info(std::os::fd::AsFd::as_fd(&link)).ok())
            .any(|link| link.xdp && link.ifindex == self.index);
        (!ours).then(|| foreign::on(&self.name, self.index, Some(program)))
    }
}
