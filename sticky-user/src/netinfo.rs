//! What the kernel says of this host's interfaces and addresses, followed as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressMessage, AddressScope};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;

use crate::netlink;

/// How long changes are collected, since one `ip` command may cause several messages.
const SETTLE: Duration = Duration::from_millis(20);
/// The addresses are read again after this time even if no message came.
const RESYNC: Duration = Duration::from_secs(60);

/// The interface that the default route uses, IPv4's before IPv6's.
///
/// # Errors
/// The kernel does not answer, or there is no default route.
pub async fn default_interface() -> anyhow::Result<String> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("netlink is not available")?;
    let connection = tokio::spawn(connection);
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut found = None;
    for family in [v4, v6] {
        let routes: Vec<_> = handle.route().get(family).execute().try_collect().await?;
        found = default_route(&routes);
        if found.is_some() {
            break;
        }
    }
    let names = names(&handle).await?;
    connection.abort();
    match found.and_then(|index| names.get(&index).cloned()) {
        Some(name) => Ok(name),
        None => bail!(
            "this host has no default route; name an interface with --iface, or `--iface none` for layer 7 only"
        ),
    }
}

/// The interface of the default route with the best metric.
fn default_route(routes: &[RouteMessage]) -> Option<u32> {
    let default = routes.iter().filter(|route| {
        route.header.destination_prefix_length == 0
            && route.header.kind == RouteType::Unicast
            && route.header.table == RouteHeader::RT_TABLE_MAIN
    });
    let metric = |route: &RouteMessage| {
        let mut metrics = route.attributes.iter().filter_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        metrics.next().unwrap_or(0)
    };
    default.filter_map(|route| Some((metric(route), output(route)?))).min().map(|(_, index)| index)
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}

/// The addresses of the interfaces that clients may use, now and whenever they change.
///
/// # Errors
/// The kernel does not answer.
pub async fn follow_addresses(
    interfaces: Vec<String>,
) -> anyhow::Result<watch::Receiver<Vec<IpAddr>>> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut changes) =
        rtnetlink::new_multicast_connection(&groups).context("netlink is not available")?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(addresses(&handle, &interfaces).await?);
    tokio::spawn(async move {
        loop {
            // The end of the stream is the end of the connection, and of the runtime.
            match tokio::time::timeout(RESYNC, changes.next()).await {
                Ok(None) => return,
                Ok(Some(_)) => tokio::time::sleep(SETTLE).await,
                Err(_) => {}
            }
            while changes.try_recv().is_ok() {}
            let now = match addresses(&handle, &interfaces).await {
                Ok(now) => now,
                Err(error) => {
                    tracing::warn!(%error, "the addresses of the interfaces cannot be read, the last ones stay");
                    continue;
                }
            };
            let changed = sender.send_if_modified(|addrs| {
                let changed = *addrs != now;
                *addrs = now;
                changed
            });
            if changed {
                tracing::info!(addresses = ?*sender.borrow(), "addresses of the interfaces changed");
            }
            if sender.is_closed() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Whether packets of this client come by no interface of `outside`: it is this host itself, or in a network of another
/// interface, as containers are.
#[must_use]
pub fn is_inside(client: IpAddr, outside: &[&str]) -> bool {
    let ip = |storage: Option<SockaddrStorage>| {
        let storage = storage?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let client = client.to_canonical();
    getifaddrs().into_iter().flatten().any(|interface| {
        let Some(addr) = ip(interface.address) else { return false };
        let net = ip(interface.netmask).and_then(|mask| IpNet::with_netmask(addr, mask).ok());
        let behind = !outside.contains(&interface.interface_name.as_str());
        addr == client || behind && net.is_some_and(|net| net.contains(&client))
    })
}

async fn addresses(handle: &Handle, interfaces: &[String]) -> anyhow::Result<Vec<IpAddr>> {
    let names = names(handle).await?;
    let messages: Vec<_> = handle.address().get().execute().try_collect().await?;
    let wanted = |message: &&AddressMessage| {
        names.get(&message.header.index).is_some_and(|name| interfaces.contains(name))
    };
    // Sorted, so that another order is no change.
    let addrs: BTreeSet<_> = messages.iter().filter(wanted).filter_map(global).collect();
    Ok(addrs.into_iter().collect())
}

/// The address, if it is one that hosts elsewhere can reach.
fn global(message: &AddressMessage) -> Option<IpAddr> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let addr = netlink::own(message)?;
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    (message.header.family == family && !addr.is_loopback()).then_some(addr)
}

async fn names(handle: &Handle) -> anyhow::Result<BTreeMap<u32, String>> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await?;
    Ok(links
        .into_iter()
        .filter_map(|link| {
            let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            Some((link.header.index, name?))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressAttribute;

    use super::*;

    fn route(prefix: u8, metric: Option<u32>, interface: u32) -> RouteMessage {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new().build();
        route.header.destination_prefix_length = prefix;
        route.header.kind = RouteType::Unicast;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.attributes = vec![RouteAttribute::Oif(interface)];
        route.attributes.extend(metric.map(RouteAttribute::Priority));
        route
    }

    #[test]
    fn the_default_route_of_the_best_metric() {
        assert_eq!(default_route(&[]), None);
        assert_eq!(default_route(&[route(24, None, 1)]), None);
        let routes = [route(0, Some(600), 3), route(24, None, 1), route(0, Some(100), 2)];
        assert_eq!(default_route(&routes), Some(2));
        assert_eq!(default_route(&[route(0, Some(1), 3), route(0, None, 4)]), Some(4));
    }

    fn address(addr: &str, scope: AddressScope) -> AddressMessage {
        let addr: IpAddr = addr.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.family =
            if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.scope = scope;
        message.attributes = vec![AddressAttribute::Address(addr)];
        message
    }

    #[test]
    fn only_global_addresses_are_frontends() {
        let global_addr = address("198.51.100.1", AddressScope::Universe);
        assert_eq!(global(&global_addr), Some("198.51.100.1".parse().unwrap()));
        assert_eq!(global(&address("169.254.0.1", AddressScope::Link)), None);
        assert_eq!(global(&address("127.0.0.1", AddressScope::Host)), None);
        let mut peer = address("198.51.100.2", AddressScope::Universe);
        peer.attributes.push(AddressAttribute::Local("198.51.100.1".parse().unwrap()));
        assert_eq!(global(&peer), Some("198.51.100.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn this_hosts_loopback_has_no_global_address() {
        let addrs = follow_addresses(vec!["lo".into()]).await.unwrap();
        assert!(addrs.borrow().iter().all(|addr| !addr.is_loopback()));
    }
}
