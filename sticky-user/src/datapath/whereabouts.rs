//! Where the backends are from this host. Asked once for each address, and again for those that nothing leads to.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use super::peers::Peers;
use crate::control::Reach;
use crate::netlink::{Link, Netlink};
use crate::parallel;

/// Addresses that are asked about over a socket of their own, where there are many.
const SHARE: usize = 128;
const MANY: usize = 32 * SHARE;

/// Of the addresses that were asked for since the links or the routes changed.
#[derive(Default)]
pub struct Whereabouts {
    /// The interfaces of those that can be reached.
    known: HashMap<IpAddr, u32>,
    devices: HashSet<u32>,
    peers: Peers,
}

impl Whereabouts {
    /// Everything is asked anew.
    pub fn forget(&mut self) {
        self.known.clear();
        self.devices.clear();
    }

    /// Looks at the links again, and asks their other ends `again`. Which addresses that were asked for are elsewhere since.
    pub fn look(&mut self, links: &HashMap<u32, Link>, again: bool) -> HashSet<IpAddr> {
        let moved = self.peers.follow(&self.devices, links, again).into_iter();
        moved
            .filter(|(device, addr)| self.known.get(addr) == Some(device))
            .map(|(_, a)| a)
            .collect()
    }

    /// Where these addresses are; `refuses` says why an interface does not do for one.
    pub fn find(
        &mut self,
        addrs: &[IpAddr],
        netlink: &mut Netlink,
        links: &HashMap<u32, Link>,
        refuses: impl Fn(IpAddr, u32) -> Option<String>,
    ) -> io::Result<HashMap<IpAddr, Reach>> {
        let open = addrs.iter().filter(|addr| !self.known.contains_key(*addr));
        let open: Vec<IpAddr> = open.copied().collect();
        let mut found = HashMap::with_capacity(addrs.len());
        for (addr, answer) in open.iter().zip(routes(netlink, &open)?) {
            let reach = answer.and_then(|index| refuses(*addr, index).map_or(Ok(index), Err));
            match reach {
                Ok(index) => {
                    self.known.insert(*addr, index);
                    self.devices.insert(index);
                }
                Err(why) => {
                    found.insert(*addr, Reach::Not(why));
                }
            }
        }
        if !open.is_empty() {
            self.peers.follow(&self.devices, links, false);
        }
        for addr in addrs {
            if let Some(index) = self.known.get(addr) {
                let reach =
                    self.peers.link(*index, *addr).map_or(Reach::Device(*index), Reach::Peer);
                found.insert(*addr, reach);
            }
        }
        Ok(found)
    }

    /// The interfaces that backends are behind.
    pub const fn devices(&self) -> &HashSet<u32> {
        &self.devices
    }
}

/// Where the routes lead: with many addresses, such as at a start, on all processors at once.
fn routes(netlink: &mut Netlink, addrs: &[IpAddr]) -> io::Result<Vec<Result<u32, String>>> {
    if addrs.len() < MANY {
        return netlink.routes(addrs);
    }
    let shares: Vec<&[IpAddr]> = addrs.chunks(SHARE).collect();
    let answers = parallel::map(&shares, |share| Netlink::connect()?.routes(share));
    let answers = answers.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok(answers.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_address_of_this_host_is_behind_no_interface() {
        let mut netlink = Netlink::connect().unwrap();
        let mut places = Whereabouts::default();
        for _ in 0..2 {
            let found = places.find(&[HERE], &mut netlink, &HashMap::new(), |_, _| None).unwrap();
            assert!(matches!(&found[&HERE], Reach::Not(why) if why.contains("of this host")));
        }
        assert!(places.devices().is_empty());
        assert!(places.find(&[], &mut netlink, &HashMap::new(), |_, _| None).unwrap().is_empty());
    }

    /// More than fit into one question, or are asked over one socket, each with an answer of its own.
    #[test]
    fn many_at_once() {
        let mut netlink = Netlink::connect().unwrap();
        for count in [1000, MANY as u32 + 1] {
            let addrs: Vec<IpAddr> =
                (0..count).map(|n| IpAddr::from((0x7f00_0000 + n).to_be_bytes())).collect();
            let answers = routes(&mut netlink, &addrs).unwrap();
            assert_eq!(answers.len(), addrs.len());
            for (addr, answer) in addrs.iter().zip(answers) {
                assert!(
                    answer.is_err_and(|why| why.ends_with(&format!(
                        "{addr} is an address of this host, or not for one receiver"
                    ))),
                    "{addr}"
                );
            }
        }
    }
}
