//! Where the backends are from this host. Asked once for each address, and again for those that nothing leads to.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::netlink::Netlink;
use crate::control::Reach;

/// Of the addresses that were asked for last.
#[derive(Default)]
pub struct Whereabouts {
    addrs: Vec<IpAddr>,
    known: Arc<HashMap<IpAddr, Reach>>,
    /// Interfaces of those that can be reached.
    devices: HashSet<u32>,
    /// All can be reached.
    whole: bool,
}

impl Whereabouts {
    /// Looks for these addresses, and forgets all others; `refuses` says why an interface does not do for one.
    pub fn look(
        &mut self,
        addrs: &[IpAddr],
        netlink: &mut Netlink,
        refuses: impl Fn(IpAddr, u32) -> Option<String>,
    ) -> io::Result<()> {
        let same = self.addrs == addrs;
        if same && self.whole {
            return Ok(());
        }
        self.whole = false;
        if !same {
            let still = |addr: &IpAddr| Some((*addr, self.known.get(addr)?.clone()));
            self.known = Arc::new(addrs.iter().filter_map(still).collect());
            self.addrs = addrs.to_vec();
        }
        let there = |addr: &&IpAddr| matches!(self.known.get(*addr), Some(Reach::Device(_)));
        let open: Vec<IpAddr> = addrs.iter().filter(|addr| !there(addr)).copied().collect();
        let answers = netlink.routes(&open)?;
        let found = open.into_iter().zip(answers).map(|(addr, answer)| {
            let reach = answer.and_then(|index| match refuses(addr, index) {
                Some(why) => Err(why),
                None => Ok(index),
            });
            (addr, reach.map_or_else(Reach::Not, Reach::Device))
        });
        let news = found.filter(|(addr, reach)| self.known.get(addr) != Some(reach));
        let news: Vec<_> = news.collect();
        // Whoever has the map of before keeps it; nothing is copied where nothing is new.
        if !news.is_empty() {
            Arc::make_mut(&mut self.known).extend(news);
        }
        let device = |reach: &Reach| match reach {
            Reach::Device(index) => Some(*index),
            Reach::Not(_) => None,
        };
        self.devices = self.known.values().filter_map(device).collect();
        self.whole = self.known.values().all(|reach| matches!(reach, Reach::Device(_)));
        Ok(())
    }

    /// The same map as long as nothing changes.
    pub fn known(&self) -> Arc<HashMap<IpAddr, Reach>> {
        Arc::clone(&self.known)
    }

    /// The interfaces that backends are behind.
    pub const fn devices(&self) -> &HashSet<u32> {
        &self.devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

    #[test]
    fn asked_once_and_until_it_is_found() {
        let mut netlink = Netlink::connect().unwrap();
        let mut places = Whereabouts::default();
        let asked = std::cell::RefCell::new(Vec::new());
        let mut look = |places: &mut Whereabouts, addrs: &[IpAddr]| {
            let note = |addr, _| {
                asked.borrow_mut().push(addr);
                (addr == NOWHERE).then(|| "no".to_owned())
            };
            places.look(addrs, &mut netlink, note).unwrap();
            (places.known(), asked.take())
        };
        // An address of this host has no interface to leave by.
        let (first, _) = look(&mut places, &[HERE]);
        assert!(matches!(first.get(&HERE), Some(Reach::Not(why)) if why.contains("of this host")));
        let (again, _) = look(&mut places, &[HERE]);
        assert!(Arc::ptr_eq(&first, &again));
        assert!(places.devices().is_empty());
        let (none, _) = look(&mut places, &[]);
        assert!(none.is_empty());
        assert!(first.contains_key(&HERE), "whoever has the map of before keeps it");
    }

    /// More than fit into one question, each with an answer of its own.
    #[test]
    fn many_at_once() {
        let mut netlink = Netlink::connect().unwrap();
        let addrs: Vec<IpAddr> =
            (0..1000u32).map(|n| IpAddr::from((0x7f00_0000 + n).to_be_bytes())).collect();
        let answers = netlink.routes(&addrs).unwrap();
        assert_eq!(answers.len(), addrs.len());
        for (addr, answer) in addrs.iter().zip(answers) {
            assert!(answer.is_err_and(|why| why.contains(&addr.to_string())));
        }
    }
}
