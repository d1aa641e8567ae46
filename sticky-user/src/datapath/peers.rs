//! Which addresses are at the other end of a link of this host, as a container's are. What is for them can be handed over there.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use tracing::debug;

use crate::netlink::{Link, Netlink, Peer};

/// What is known of the links behind some devices. Each was asked about once, as it is now.
#[derive(Default)]
pub struct Peers {
    /// `None`: there is none yet, or it failed.
    netlink: Option<Netlink>,
    known: HashMap<u32, (Link, Vec<IpAddr>)>,
    /// The link, by the device that leads there and the address at its other end. `None`: several have that.
    at: HashMap<(u32, IpAddr), Option<u32>>,
}

impl Peers {
    /// Looks at the links behind `devices`: asks about those that are new or not as they were, or about all of them `again`.
    /// Says which addresses are elsewhere since, each with the device that leads there.
    pub fn follow(
        &mut self,
        devices: &HashSet<u32>,
        links: &HashMap<u32, Link>,
        again: bool,
    ) -> Vec<(u32, IpAddr)> {
        let behind: Vec<(u32, u32, &Link, &Peer)> = links
            .iter()
            .filter_map(|(index, link)| {
                let device = device_of(*index, link, devices, links)?;
                let peer = link.peer.as_ref().filter(|_| link.up && link.unqueued)?;
                Some((device, *index, link, peer))
            })
            .collect();
        let is_known = |index, link| self.known.get(index).is_some_and(|(known, _)| known == link);
        let as_known = behind.len() == self.known.len()
            && behind.iter().all(|(_, index, link, _)| is_known(index, *link));
        if as_known && !again {
            return Vec::new();
        }
        let mut known = std::mem::take(&mut self.known);
        let before = std::mem::take(&mut self.at);
        for (device, index, link, peer) in behind {
            let before = known.remove(&index).filter(|(before, _)| !again && before == link);
            let addrs = before.map(|(_, addrs)| addrs).or_else(|| self.ask(link, peer));
            let Some(addrs) = addrs else { continue };
            for addr in &addrs {
                let only = |link: &mut Option<u32>| *link = None;
                self.at.entry((device, *addr)).and_modify(only).or_insert(Some(index));
            }
            self.known.insert(index, (link.clone(), addrs));
        }
        let moved = |place: &&(u32, IpAddr)| before.get(place) != self.at.get(place);
        before.keys().chain(self.at.keys()).filter(moved).copied().collect()
    }

    /// The link at whose other end an address is that this device leads to.
    pub fn link(&self, device: u32, addr: IpAddr) -> Option<u32> {
        self.at.get(&(device, addr)).copied().flatten()
    }

    /// `None`: it is asked again at the next look.
    fn ask(&mut self, link: &Link, peer: &Peer) -> Option<Vec<IpAddr>> {
        let mut ask = || -> io::Result<Vec<IpAddr>> {
            let mut netlink = self.netlink.take().map_or_else(Netlink::strict, Ok)?;
            let addrs = netlink.addresses_of(peer)?;
            // After an error there may be half an answer in the other one.
            self.netlink = Some(netlink);
            Ok(addrs)
        };
        // Its namespace may have gone since the links were listed.
        let told =
            |error| debug!(link = %link.name, %error, "the other end does not say what it is");
        ask().map_err(told).ok()
    }
}

/// Of `devices` the one that this link carries the packets of: itself, or the bridge that it is a port of.
fn device_of(
    index: u32,
    link: &Link,
    devices: &HashSet<u32>,
    links: &HashMap<u32, Link>,
) -> Option<u32> {
    if devices.contains(&index) {
        return Some(index);
    }
    let master = link.master.filter(|master| devices.contains(master))?;
    links.get(&master).is_some_and(|bridge| bridge.bridge && bridge.unqueued).then_some(master)
}
