//! The gateway bridge, whose text is long: it has all containers of its host.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::docker::containers::both;
use crate::swarm::api::GWBRIDGE;
use crate::swarm::view::{Addresses, LocalAddress};

/// The ends of a network, whose text is read where they are not known yet.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::swarm) struct Bridge<'a> {
    #[serde(borrow)]
    containers: Option<Ends<'a>>,
}

/// By container. Most are passed over, so there is no table of them.
struct Ends<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Ends<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for All<'a> {
            type Value = Ends<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("containers by their id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ends = Vec::new();
                while let Some(end) = map.next_entry()? {
                    ends.push(end);
                }
                Ok(Ends(ends))
            }
        }
        deserializer.deserialize_map(All(PhantomData))
    }
}

#[derive(Deserialize)]
struct BridgeEnd {
    #[serde(rename = "IPv4Address")]
    v4: Option<String>,
    #[serde(rename = "IPv6Address")]
    v6: Option<String>,
}

/// These containers on the gateway bridge, or all, by id. The sandbox of Docker's routing mesh is no container.
pub(in crate::swarm) fn bridge(bridge: Bridge<'_>, wanted: Option<&[String]>) -> Addresses {
    let wanted = wanted.map(|wanted| {
        let mut ids: Vec<&str> = wanted.iter().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    });
    let is_wanted = |id: &str| match &wanted {
        Some(wanted) => wanted.binary_search(&id).is_ok(),
        None => id != "ingress-sbox",
    };
    let ends = bridge.containers.into_iter().flat_map(|Ends(all)| all);
    ends.filter(|(id, _)| is_wanted(id))
        .filter_map(|(id, text)| {
            let end: BridgeEnd = serde_json::from_str(text.get()).ok()?;
            let (addr, v6) = both([end.v4, end.v6])?;
            Some((id.to_owned(), vec![LocalAddress { network: GWBRIDGE.to_owned(), addr, v6 }]))
        })
        .collect()
}
