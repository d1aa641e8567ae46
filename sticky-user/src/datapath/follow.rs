//! Hears of changes of links, addresses and routes, so that nobody has to look again and again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long changes are collected after the first was told, since one `ip` command may cause several messages.
const SETTLE: Duration = Duration::from_millis(20);

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
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (driver, _, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    runtime.spawn(driver);
    let (sender, links) = watch::channel(0);
    let routes = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&routes);
    runtime.spawn(async move {
        let is_route = |payload: &NetlinkPayload<RouteNetlinkMessage>| {
            matches!(
                payload,
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_)
                )
            )
        };
        while let Some((first, _)) = messages.next().await {
            if is_route(&first.payload) {
                seen.store(true, Ordering::Release);
                continue;
            }
            sender.send_modify(|count| *count += 1);
            tokio::time::sleep(SETTLE).await;
            let mut more = false;
            while let Ok((message, _)) = messages.try_recv() {
                if is_route(&message.payload) {
                    seen.store(true, Ordering::Release);
                } else {
                    more = true;
                }
            }
            if more {
                sender.send_modify(|count| *count += 1);
            }
            if sender.is_closed() {
                return;
            }
        }
    });
    Ok(Changes { links, routes })
}
