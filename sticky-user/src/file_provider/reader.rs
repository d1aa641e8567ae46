//! The parts of a `[[service]]`: each value where it belongs, or a mistake with its place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::start;
use super::service::Places;
use crate::labels::{self, Wrong};
use crate::model::{Backend, DrainMode, LabelError, Publish, State};

/// Reads the parts of one service, and goes on after a mistake.
pub(super) struct Reader {
    pub(super) places: Places,
    /// Each of these leaves the service out.
    pub(super) errors: Vec<LabelError>,
    pub(super) name: Option<String>,
    pub(super) publish: Vec<Publish>,
    pub(super) backends: Vec<Backend>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Reader {
    pub(super) fn wrong(
        &mut self,
        label: &str,
        offset: usize,
        value: &str,
        message: &str,
        hint: &str,
    ) {
        self.places.parts.push((label.to_owned(), value.to_owned(), offset));
        self.errors.push(LabelError {
            label: label.to_owned(),
            value: value.to_owned(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        });
    }

    pub(super) fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let (offset, inner) = (start(value), value.get_ref());
            match (key.get_ref().as_ref(), inner) {
                ("name", DeValue::String(name)) if !name.trim().is_empty() => {
                    self.name = Some(name.trim().to_owned())
                }
                ("publish", DeValue::Array(items)) => {
                    items.iter().for_each(|item| self.publish(item))
                }
                ("backends", DeValue::Array(items)) => {
                    items.iter().for_each(|item| self.backend(item))
                }
                ("labels", DeValue::Table(labels)) => self.labels("", labels),
                ("name", _) => self.wrong(
                    "name",
                    offset,
                    &text(inner),
                    "is not a name",
                    "write `name = \"demo\"`",
                ),
                ("publish", _) => {
                    self.wrong(
                        "publish",
                        offset,
                        &text(inner),
                        "is not a list",
                        "write `publish = [\"8080:8080/tcp\"]`",
                    );
                }
                ("backends", _) => {
                    self.wrong(
                        "backends",
                        offset,
                        &text(inner),
                        "is not a list",
                        "write `backends = [\"192.0.2.11:8080\"]`",
                    );
                }
                ("labels", _) => {
                    self.wrong(
                        "labels",
                        offset,
                        &text(inner),
                        "is not a table",
                        "write [service.labels] and the labels below",
                    );
                }
                (other, _) => {
                    let known = "a service has name, publish, backends and labels";
                    self.wrong(other, start(key), "", "is not known in a service", known);
                }
            }
        }
    }

    fn publish(&mut self, item: &Spanned<DeValue<'_>>) {
        let value = text(item.get_ref());
        match labels::publish(&value) {
            Ok(publish) => {
                // As the contest for ports names it.
                let canonical = format!("{}/{}", publish.port, publish.proto.as_str());
                self.places.parts.push(("publish".to_owned(), canonical, start(item)));
                self.publish.push(publish);
            }
            Err(Wrong { message, .. }) => {
                let hint = "write `frontend port:backend port/protocol`, such as `8080:80/tcp`";
                self.wrong("publish", start(item), &value, &message, hint);
            }
        }
    }

    fn backend(&mut self, item: &Spanned<DeValue<'_>>) {
        let (mut addr, mut addr_v6, mut id, mut weight, mut drain) = (None, None, None, 1, false);
        match item.get_ref() {
            DeValue::String(text) => addr = self.addr(start(item), text),
            DeValue::Table(table) => {
                for (key, value) in table {
                    let (offset, inner) = (start(value), value.get_ref());
                    match (key.get_ref().as_ref(), inner) {
                        ("addr", DeValue::String(text)) => addr = self.addr(offset, text),
                        ("addr_v6", DeValue::String(text)) => {
                            addr_v6 = self.addr(offset, text).map(|addr| (offset, addr));
                        }
                        ("id", DeValue::String(text)) if !text.is_empty() => {
                            id = Some(text.to_string())
                        }
                        ("weight", DeValue::Integer(number))
                            if weight_of(number.as_str()).is_some() =>
                        {
                            weight = weight_of(number.as_str()).unwrap_or(1);
                        }
                        ("drain", DeValue::Boolean(is)) => drain = *is,
                        ("addr" | "addr_v6" | "id" | "weight" | "drain", _) => {
                            let hint = "write `{ addr = \"192.0.2.12:8080\", id = \"b\", weight = 2, drain = true }`";
                            let key = format!("backends.{}", key.get_ref());
                            self.wrong(&key, offset, &text(inner), "has a wrong value", hint);
                        }
                        (other, _) => {
                            let hint = "a backend has addr, addr_v6, id, weight and drain";
                            self.wrong(
                                &format!("backends.{other}"),
                                start(key),
                                "",
                                "is not known in a backend",
                                hint,
                            );
                        }
                    }
                }
                if !table.contains_key("addr") {
                    self.wrong(
                        "backends",
                        start(item),
                        "",
                        "has no addr",
                        "write `addr = \"192.0.2.12:8080\"`",
                    );
                }
            }
            other => {
                self.wrong("backends", start(item), &text(other), "is not a backend", ADDR_HINT)
            }
        }
        let Some(addr) = addr else { return };
        let addr_v6 = addr_v6.and_then(|(offset, v6)| self.addr_v6(offset, addr, v6));
        let number = self.backends.len() + 1;
        let name = id.clone().unwrap_or_else(|| number.to_string());
        let id = id.unwrap_or_else(|| addr.to_string());
        if self.backends.iter().any(|backend| backend.id == id) {
            self.wrong(
                "backends",
                start(item),
                &id,
                "is there twice",
                "take one away, or give each an id of its own",
            );
        }
        let (state, reason) = if drain {
            (State::Draining(DrainMode::Sessions), Some("drained in the file".to_owned()))
        } else {
            // Up at its first successful check.
            (State::Up, None)
        };
        self.backends.push(Backend {
            id,
            name,
            addr: Some(addr),
            node: String::new(),
            addr_v6,
            layer4: true,
            weight,
            state,
            reason,
            outgoing: false,
        });
    }

    fn addr(&mut self, offset: usize, text: &str) -> Option<SocketAddr> {
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() != 0 => return Some(addr),
            Ok(_) => {
                self.wrong("backends", offset, text, "has no port that can be reached", ADDR_HINT)
            }
            Err(_) if text.parse::<IpAddr>().is_ok() => {
                self.wrong("backends", offset, text, "has no port", ADDR_HINT)
            }
            Err(_) => {
                self.wrong("backends", offset, text, "is not an address and a port", ADDR_HINT)
            }
        }
        None
    }

    /// The second address of a backend of both families.
    fn addr_v6(&mut self, offset: usize, addr: SocketAddr, v6: SocketAddr) -> Option<Ipv6Addr> {
        match (addr, v6) {
            (SocketAddr::V4(_), SocketAddr::V6(v6)) if v6.port() == addr.port() => Some(*v6.ip()),
            _ => {
                let message = "is not the IPv6 address of the same port";
                let hint = format!(
                    "write an IPv4 address in addr, and in addr_v6 the IPv6 one with port {}",
                    addr.port()
                );
                self.wrong("backends.addr_v6", offset, &v6.to_string(), message, &hint);
                None
            }
        }
    }

    /// Labels, also where their dots were not quoted and made tables of them.
    fn labels(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.labels(&format!("{name}."), inner),
                DeValue::Array(_) | DeValue::Datetime(_) => {
                    let hint = "write its value as a string";
                    self.wrong(
                        &name,
                        start(value),
                        &text(value.get_ref()),
                        "is not a string",
                        hint,
                    );
                }
                other => {
                    let known = labels::ALL.contains(&name.as_str());
                    let offset = if known { start(value) } else { start(key) };
                    self.places.parts.push((name.clone(), text(other), offset));
                    if labels::is_ours(&name) {
                        self.labels.insert(name, text(other));
                    } else {
                        let hint = "labels are below `com.docker.lb.` and `sticky.`";
                        self.wrong(
                            &name,
                            start(key),
                            &text(other),
                            "is not a label of sticky",
                            hint,
                        );
                    }
                }
            }
        }
    }
}

const ADDR_HINT: &str =
    "write an address and a port, such as `192.0.2.11:8080` or `[2001:db8::11]:8080`";

fn weight_of(number: &str) -> Option<u32> {
    number.parse().ok().filter(|weight| *weight <= 1_000_000)
}

/// A value as the user would write it for a label.
pub(super) fn text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(at) => at.to_string(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}
