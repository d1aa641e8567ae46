//! Hears of changes of links, addresses and routes, so that nobody has to look again and again.

use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use netlink_sys::AsyncSocket as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, warn};

/// How long changes are collected after the first was told, since one `ip` command may cause several messages.
const SETTLE: Duration = Duration::from_millis(20);

/// The pause before another connection.
const AGAIN: Duration = Duration::from_secs(1);

/// How often other namespaces are looked into where they are not heard.
const UNHEARD: Duration = Duration::from_secs(5);

type Messages = BoxStream<'static, Heard>;

/// Of one message.
enum Heard {
    /// Of a link or an address of this namespace.
    Link,
    /// Of a route, and whether a backend may be elsewhere for it.
    Route(bool),
    /// Of an address, maybe in another namespace.
    Namespace,
}

/// What changed since somebody asked.
pub struct Changes {
    /// Counts changes of links and addresses.
    pub links: watch::Receiver<u64>,
    pub elsewhere: Arc<Elsewhere>,
}

/// What may be elsewhere since somebody asked.
#[derive(Default)]
pub struct Elsewhere {
    /// A route changed. Told apart, since a host that speaks BGP has no end of them: they are looked at in their time.
    pub routes: AtomicBool,
    /// An address of another network namespace may have changed.
    pub namespaces: AtomicBool,
}

impl Elsewhere {
    /// Whether it has to be looked at soon.
    fn note(&self, heard: &Heard) -> bool {
        match heard {
            Heard::Link => true,
            Heard::Route(matters) => {
                self.routes.fetch_or(*matters, Ordering::AcqRel);
                false
            }
            Heard::Namespace => {
                self.namespaces.store(true, Ordering::Release);
                true
            }
        }
    }
}

/// Listens from now on, for as long as the runtime lives.
pub fn changes(runtime: &Handle) -> io::Result<Changes> {
    let _inside = runtime.enter();
    let mut messages = listen()?;
    let (sender, links) = watch::channel(0);
    let elsewhere = Arc::<Elsewhere>::default();
    let noted = Arc::clone(&elsewhere);
    runtime.spawn(async move {
        while !sender.is_closed() {
            tell(&mut messages, &sender, &noted).await;
            // A message that nobody understands ends a connection; what came meanwhile is looked for.
            tokio::time::sleep(AGAIN).await;
            match listen() {
                Ok(next) => messages = next,
                Err(error) => warn!(%error, "changes of interfaces are not heard, only looked for"),
            }
            [Heard::Route(true), Heard::Namespace].iter().for_each(|heard| _ = noted.note(heard));
            sender.send_modify(|count| *count += 1);
        }
    });
    Ok(Changes { links, elsewhere })
}

fn listen() -> io::Result<Messages> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (driver, _, here) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(driver);
    let here = here.map(|(message, _)| match route(&message.payload) {
        Some(route) => Heard::Route(matters(route)),
        None => Heard::Link,
    });
    let inside = namespaces().unwrap_or_else(|error| {
        debug!(%error, "changes of addresses in other network namespaces are not heard, only looked for");
        let ticks = stream::unfold((), async |()| {
            tokio::time::sleep(UNHEARD).await;
            Some((Heard::Namespace, ()))
        });
        ticks.boxed()
    });
    // The end of either is the end of both.
    let ended = |stream: Messages| stream.map(Some).chain(stream::once(async { None }));
    let both = stream::select(ended(here.boxed()), ended(inside));
    Ok(both.take_while(|heard| ready(heard.is_some())).filter_map(ready).boxed())
}

/// Addresses of all namespaces that the kernel has a number for in this one, as it has for those of the other ends of its links.
fn namespaces() -> io::Result<Messages> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (mut driver, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    driver.socket_mut().socket_mut().set_listen_all_namespaces(true)?;
    tokio::spawn(driver);
    Ok(messages.map(|_| Heard::Namespace).boxed())
}

/// Until the connection ends.
async fn tell(messages: &mut Messages, sender: &watch::Sender<u64>, elsewhere: &Elsewhere) {
    while let Some(first) = messages.next().await {
        if !elsewhere.note(&first) {
            continue;
        }
        sender.send_modify(|count| *count += 1);
        tokio::time::sleep(SETTLE).await;
        let mut more = false;
        while let Some(Some(message)) = messages.next().now_or_never() {
            more |= elsewhere.note(&message);
        }
        if more {
            sender.send_modify(|count| *count += 1);
        }
        if sender.is_closed() {
            return;
        }
    }
}

fn route(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<&RouteMessage> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => Some(route),
        _ => None,
    }
}

/// Whether a backend may be elsewhere for it. Each new container's link brings routes to what is on the link alone.
fn matters(route: &RouteMessage) -> bool {
    !route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => {
            to.is_unicast_link_local() || to.is_multicast()
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_a_link_alone_leads_no_backend_elsewhere() {
        let to = |to: Option<&str>| {
            let mut route = RouteMessage::default();
            let to = to.map(|to| RouteAddress::Inet6(to.parse().unwrap()));
            route.attributes.extend(to.map(RouteAttribute::Destination));
            matters(&route)
        };
        assert!(!to(Some("fe80::")) && !to(Some("ff00::")));
        assert!(to(Some("2001:db8::")) && to(None), "one to everywhere has no destination");
    }
}
