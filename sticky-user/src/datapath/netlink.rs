//! What the kernel says of links and routes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{Stream, StreamExt, pin_mut};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle as Connection, RouteMessageBuilder};
use tokio::runtime::Handle;

/// A link of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    pub bridge: bool,
    pub up: bool,
    pub mtu: u32,
    /// The XDP program on it.
    pub xdp: Option<u32>,
}

/// Requests over one socket, each waited for.
pub struct Netlink {
    connection: Connection,
    runtime: Handle,
}

impl Netlink {
    pub fn connect(runtime: &Handle) -> io::Result<Self> {
        let _inside = runtime.enter();
        let (driver, connection, _) = rtnetlink::new_connection()?;
        runtime.spawn(driver);
        Ok(Self { connection, runtime: runtime.clone() })
    }

    /// All links, by index.
    pub fn links(&self) -> Result<HashMap<u32, Link>, rtnetlink::Error> {
        let dump = self.connection.link().get().execute();
        Ok(self
            .runtime
            .block_on(collect(dump))?
            .into_iter()
            .map(|m| (m.header.index, link(m)))
            .collect())
    }

    /// The interface that packets to an address leave by; why not, if none.
    pub fn route(&self, addr: IpAddr) -> Result<u32, String> {
        let request = match addr {
            IpAddr::V4(v4) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build()
            }
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build()
            }
        };
        let answer = self.runtime.block_on(collect(self.connection.route().get(request).execute()));
        let routes = answer.map_err(|e| format!("this host has no route to {addr} ({e})"))?;
        routes
            .first()
            .and_then(device)
            .ok_or_else(|| format!("{addr} is an address of this host, or not for one receiver"))?
    }
}

fn device(route: &RouteMessage) -> Option<Result<u32, String>> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(Ok(*index)),
        _ => None,
    })
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        master: None,
        bridge: false,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        xdp: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge))
            }
            LinkAttribute::Xdp(xdp) => {
                link.xdp = xdp.iter().find_map(|x| match x {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

async fn collect<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, rtnetlink::Error> {
    let mut all = Vec::new();
    pin_mut!(stream);
    while let Some(item) = stream.next().await {
        all.push(item?);
    }
    Ok(all)
}
