//! Hears of changes of links, addresses and routes, so that nobody has to look again and again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

/// How long changes are collected after the first was told, since one `ip` command may cause several messages.
const SETTLE: Duration = Duration::from_millis(20);

/// The pause before another connection.
const AGAIN: Duration = Duration::from_secs(1);

type Messages = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// What changed since somebody asked.
pub struct Changes {
    /// Counts changes of links and addresses.
    pub links: watch::Receiver<u64>,
    /// A route changed. Told apart, since a host that speaks BGP has no end of them: they are looked at in their time.
    pub routes: Arc<AtomicBool>,
}

/// Listens from now on, for as long as the runtime lives.
pub fn changes(runtime: &Handle) -> io::Result<Changes> {
    let _inside = runtime.enter();
    let mut messages = listen()?;
    let (sender, links) = watch::channel(0);
    let routes = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&routes);
    runtime.spawn(async move {
        while !sender.is_closed() {
            tell(&mut messages, &sender, &seen).await;
            // A message that nobody understands ends a connection; what came meanwhile is looked for.
            tokio::time::sleep(AGAIN).await;
            match listen() {
                Ok(next) => messages = next,
                Err(error) => warn!(%error, "changes of interfaces are not heard, only looked for"),
            }
            seen.store(true, Ordering::Release);
            sender.send_modify(|count| *count += 1);
        }
    });
    Ok(Changes { links, routes })
}

fn listen() -> io::Result<Messages> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (driver, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(driver);
    Ok(messages.map(|(message, _)| message).boxed())
}

/// Until the connection ends.
async fn tell(messages: &mut Messages, sender: &watch::Sender<u64>, routes: &AtomicBool) {
    while let Some(first) = messages.next().await {
        if let Some(route) = route(&first.payload) {
            routes.fetch_or(matters(route), Ordering::AcqRel);
            continue;
        }
        sender.send_modify(|count| *count += 1);
        tokio::time::sleep(SETTLE).await;
        let mut more = false;
        while let Some(Some(message)) = messages.next().now_or_never() {
            match route(&message.payload) {
                Some(route) => _ = routes.fetch_or(matters(route), Ordering::AcqRel),
                None => more = true,
            }
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
