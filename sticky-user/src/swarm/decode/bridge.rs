//! The gateway bridge, whose text is long: it has all containers of its host.

use std::fmt;
use std::marker::PhantomData;

use memchr::memmem;
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

/// These containers in the text of the gateway bridge as Docker writes it, without reading the rest; `None`: some are not
/// found that way.
pub(in crate::swarm) fn some_of_bridge(text: &[u8], wanted: &[String]) -> Option<Addresses> {
    let end = |id: &String| {
        let key = format!("\"{id}\":");
        let after = memmem::find(text, key.as_bytes())? + key.len();
        let mut ends = serde_json::Deserializer::from_slice(text.get(after..)?).into_iter();
        address(id, ends.next()?.ok()?)
    };
    wanted.iter().map(end).collect()
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
            address(id, end)
        })
        .collect()
}

fn address(id: &str, end: BridgeEnd) -> Option<(String, Vec<LocalAddress>)> {
    let (addr, v6) = both([end.v4, end.v6])?;
    Some((id.to_owned(), vec![LocalAddress { network: GWBRIDGE.to_owned(), addr, v6 }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_found_as_all_are() {
        let text = br#"{"Name":"docker_gwbridge","Containers":{
            "aa":{"Name":"x","EndpointID":"bb","IPv4Address":"172.18.0.3/16","IPv6Address":""},
            "bb":{"Name":"\"cc\":{}","IPv4Address":"172.18.0.4/16","IPv6Address":"fd00::4/64"},
            "ingress-sbox":{"IPv4Address":"172.18.0.2/16"},"dd":{}}}"#;
        let all = |wanted: &[String]| bridge(serde_json::from_slice(text).unwrap(), Some(wanted));
        for ids in [&["aa"][..], &["bb", "aa"], &[]] {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let some = some_of_bridge(text, &ids).unwrap();
            assert_eq!((some.len(), &some), (ids.len(), &all(&ids)));
        }
        for unknown in ["cc", "dd", "a"] {
            assert_eq!(some_of_bridge(text, &["aa".to_owned(), unknown.to_owned()]), None);
        }
    }
}
