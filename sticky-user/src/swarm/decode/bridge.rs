//! The gateway bridge, whose text is long: it has all containers of its host.

mod search;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::docker::containers::both;
use crate::swarm::api::GWBRIDGE;
use crate::swarm::view::{Addresses, LocalAddress};
pub(in crate::swarm) use search::Search;

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
    use crate::docker::client::Reader;

    const TEXT: &[u8] = br#"{"Name":"docker_gwbridge","ConfigFrom":{"ee":{"IPv4Address":"172.18.0.9/16"}},"Containers":{
        "aa":{"Name":"x","EndpointID":"bb","IPv4Address":"172.18.0.3/16","IPv6Address":""},
        "bb":{"Name":"\"cc\":{}","IPv4Address":"172.18.0.4/16","IPv6Address":"fd00::4/64"},
        "ff":"172.18.0.5","ingress-sbox":{"IPv4Address":"172.18.0.2/16"},"dd":{}},"Labels":{"aa":"1","gg":"2"}}"#;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn all(text: &[u8], wanted: &[String]) -> Addresses {
        bridge(serde_json::from_slice(text).unwrap(), Some(wanted))
    }

    fn some<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        wanted: &[String],
    ) -> Option<Addresses> {
        let mut search = Search::new(wanted);
        search.begin(None);
        pieces.into_iter().for_each(|piece| search.piece(piece));
        search.found()
    }

    #[test]
    fn some_are_found_as_all_are() {
        for (wanted, found) in [
            (&["aa"][..], 1),
            (&["bb", "aa"], 2),
            (&["bb", "aa", "bb"], 2),
            (&[], 0),
            (&["ingress-sbox"], 1),
            (&["aa", "cc", "dd", "a", "ee", "ff", "gg"], 1),
        ] {
            let wanted = ids(wanted);
            let expected = Some(all(TEXT, &wanted));
            assert_eq!(expected.as_ref().map(Addresses::len), Some(found));
            for size in [1, 2, 3, 7, TEXT.len()] {
                assert_eq!(some(TEXT.chunks(size), &wanted), expected, "{wanted:?} by {size}");
            }
            for place in 0..TEXT.len() {
                let (first, second) = TEXT.split_at(place);
                assert_eq!(some([first, second], &wanted), expected, "{wanted:?} at {place}");
            }
        }
    }

    #[test]
    fn some_are_found_in_a_long_text() {
        let ends = (0..200).map(|number| {
            // One is longer than what is looked at together.
            let name = "x".repeat(if number == 70 { 5000 } else { number });
            let end =
                serde_json::json!({"Name": name, "IPv4Address": format!("172.18.0.{number}/16")});
            (format!("{number:064x}"), end)
        });
        let ends: serde_json::Map<_, _> = ends.collect();
        let wanted: Vec<String> =
            [0, 69, 70, 71, 150, 199, 200].map(|id| format!("{id:064x}")).into();
        let text = serde_json::json!({"Containers": ends}).to_string();
        let expected = all(text.as_bytes(), &wanted);
        assert_eq!(expected.len(), 6);
        for size in [1, 64, 1000, 1023, 1024, 1025, 4096, text.len()] {
            let found = some(text.as_bytes().chunks(size), &wanted);
            assert_eq!(found.as_ref(), Some(&expected), "by {size}");
        }
    }

    #[test]
    fn a_text_that_is_not_as_docker_writes_it_is_not_searched() {
        let spaced: serde_json::Value = serde_json::from_slice(TEXT).unwrap();
        let spaced = serde_json::to_vec_pretty(&spaced).unwrap();
        for text in [&spaced[..], br#"{"Containers":null}"#, b"<html>", b""] {
            for size in [1, 7, 1000] {
                assert_eq!(some(text.chunks(size), &ids(&["aa"])), None);
                assert_eq!(some(text.chunks(size), &[]), None);
            }
        }
    }

    #[test]
    fn a_text_that_comes_anew_is_searched_anew() {
        let wanted = ids(&["aa", "bb"]);
        let other = br#"{"Containers":{"bb":{"IPv4Address":"172.18.0.7/16"}}}"#;
        for place in 0..TEXT.len() {
            let mut search = Search::new(&wanted);
            for text in [TEXT.split_at(place).0, other] {
                search.begin(None);
                search.piece(text);
            }
            assert_eq!(search.found(), Some(all(other, &wanted)), "at {place}");
        }
    }
}
