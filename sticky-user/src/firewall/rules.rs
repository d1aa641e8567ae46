//! The filter table as `iptables-save` prints it, and which of its rules a frontend's packets would meet.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Bypassed, Guarded};

/// Chains that a packet of a client would come through: to the host, or to a container.
const ENTRIES: [&str; 2] = ["INPUT", "DOCKER-USER"];
/// Chains of chains that are looked into.
const DEEPEST: usize = 8;

/// One family's filter table.
#[derive(Debug, Default)]
pub struct Ruleset {
    v6: bool,
    chains: HashMap<String, Vec<Rule>>,
}

#[derive(Debug, Default, Clone)]
struct Rule {
    text: String,
    source: Option<Not<IpNet>>,
    destination: Option<Not<IpNet>>,
    proto: Option<Not<String>>,
    interface: Option<Not<String>>,
    ports: Vec<(u16, u16)>,
    /// The port before NAT.
    original: Option<u16>,
    /// Matches only what is no new connection, or asks what this reader does not know.
    other: bool,
    target: String,
}

/// A condition, or its opposite.
#[derive(Debug, Clone)]
struct Not<T> {
    not: bool,
    value: T,
}

impl<T> Not<T> {
    fn holds(&self, is: impl FnOnce(&T) -> bool) -> bool {
        is(&self.value) != self.not
    }
}

impl Ruleset {
    pub fn parse(saved: &str, v6: bool) -> Self {
        let mut all = Self { v6, ..Self::default() };
        for line in saved.lines() {
            let Some(rest) = line.strip_prefix("-A ") else { continue };
            let Some((chain, words)) = rest.split_once(' ') else { continue };
            all.chains.entry(chain.to_owned()).or_default().push(rule(line, words));
        }
        all
    }

    pub fn bypassed(&self, frontends: &[Guarded], interfaces: &[String]) -> Vec<Bypassed> {
        let mut found = Vec::new();
        for frontend in frontends.iter().filter(|f| f.addr.is_ipv6() == self.v6) {
            for entry in ENTRIES {
                let question = Question { entry, frontend, interfaces };
                self.walk(entry, &question, &mut Vec::new(), &mut found);
            }
        }
        found
    }

    fn walk<'a>(
        &'a self,
        chain: &str,
        question: &Question<'_>,
        path: &mut Vec<&'a Rule>,
        found: &mut Vec<Bypassed>,
    ) {
        for rule in self.chains.get(chain).into_iter().flatten() {
            if !question.matches(rule) {
                continue;
            }
            path.push(rule);
            match rule.target.as_str() {
                "DROP" | "REJECT" => found.push(question.told(path, false)),
                "ACCEPT" | "RETURN" if path.iter().any(|rule| rule.source.is_some()) => {
                    found.push(question.told(path, true));
                }
                target if path.len() < DEEPEST && self.chains.contains_key(target) => {
                    self.walk(target, question, path, found);
                }
                _ => {}
            }
            path.pop();
        }
    }
}

struct Question<'a> {
    entry: &'static str,
    frontend: &'a Guarded,
    interfaces: &'a [String],
}

impl Question<'_> {
    /// Whether some packet of a new connection to the frontend would match.
    fn matches(&self, rule: &Rule) -> bool {
        let frontend = self.frontend;
        let proto = |name: &String| {
            name == frontend.proto.as_str()
                || *name == frontend.proto.number().to_string()
                || name == "all"
        };
        let interface = |name: &String| {
            self.interfaces.iter().any(|there| match name.strip_suffix('+') {
                Some(prefix) => there.starts_with(prefix),
                None => there == name,
            })
        };
        // Behind Docker's NAT the destination is a container.
        let destination = |net: &IpNet| self.entry != "INPUT" || net.contains(&frontend.addr);
        let port = match self.entry {
            "INPUT" => frontend.port,
            _ => frontend.target,
        };
        !rule.other
            && rule.proto.as_ref().is_none_or(|p| p.holds(proto))
            && rule.interface.as_ref().is_none_or(|i| i.holds(interface))
            && rule.destination.as_ref().is_none_or(|d| d.holds(destination))
            && rule.original.is_none_or(|original| original == frontend.port)
            && (rule.ports.is_empty() || rule.ports.iter().any(|(a, b)| (*a..=*b).contains(&port)))
    }

    fn told(&self, path: &[&Rule], allows: bool) -> Bypassed {
        let Guarded { service, addr, port, proto, .. } = self.frontend;
        let addr = if addr.is_ipv6() { format!("[{addr}]") } else { addr.to_string() };
        let source = path.iter().rev().find_map(|rule| rule.source.as_ref());
        // A drop of all but a source is an allowance for that source.
        let instead = match source {
            Some(Not { not, value }) if *not == allows => format!("sticky.deny={value}"),
            Some(Not { value, .. }) => format!("sticky.allow={value}"),
            None => "sticky.allow with the sources that may connect".to_owned(),
        };
        Bypassed {
            service: service.clone(),
            frontend: format!("{addr}:{port}/{}", proto.as_str()),
            chain: self.entry.to_owned(),
            rule: path.last().map(|rule| rule.text.clone()).unwrap_or_default(),
            instead,
        }
    }
}

fn rule(line: &str, words: &str) -> Rule {
    let mut rule = Rule { text: line.to_owned(), ..Rule::default() };
    let mut words = words.split_whitespace();
    let mut not = false;
    while let Some(word) = words.next() {
        let is_not = std::mem::take(&mut not);
        match word {
            "!" => not = true,
            "-s" => {
                rule.source = words.next().and_then(net).map(|value| Not { not: is_not, value })
            }
            "-d" => {
                rule.destination =
                    words.next().and_then(net).map(|value| Not { not: is_not, value });
            }
            "-p" => rule.proto = words.next().map(|p| Not { not: is_not, value: p.to_owned() }),
            "-i" => rule.interface = words.next().map(|i| Not { not: is_not, value: i.to_owned() }),
            "-m" => match words.next() {
                Some("tcp" | "udp" | "comment" | "conntrack" | "state" | "multiport") | None => {}
                Some(_) => rule.other = true,
            },
            "--dport" | "--dports" if !is_not => {
                rule.ports = words.next().into_iter().flat_map(ports).collect();
            }
            "--ctorigdstport" if !is_not => {
                rule.original = words.next().and_then(|port| port.parse().ok());
            }
            "--ctdir" => rule.other |= words.next() != Some("ORIGINAL"),
            "--ctstate" | "--state" => {
                rule.other |=
                    words.next().is_some_and(|s| s.split(',').any(|s| s == "NEW")) == is_not;
            }
            "--comment" => comment(&mut words),
            "-j" | "-g" => rule.target = words.next().unwrap_or_default().to_owned(),
            "--reject-with" => drop(words.next()),
            // A condition that this reader does not know.
            _ => rule.other = true,
        }
    }
    rule
}

/// The rest of a comment in quotes.
fn comment<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let first = words.next().unwrap_or_default();
    if first.starts_with('"') && !(first.len() > 1 && first.ends_with('"')) {
        words.by_ref().find(|word| word.ends_with('"'));
    }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn ports(list: &str) -> impl Iterator<Item = (u16, u16)> {
    list.split(',').filter_map(|range| {
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        Some((from.parse().ok()?, to.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;

    const SAVED: &str = r#"
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:ufw-user - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 203.0.113.0/24 -i eth0 -p tcp -m tcp --dport 8080 -j DROP
-A INPUT -p tcp -m tcp --dport 22 -j DROP
-A INPUT -p udp -m multiport --dports 8000:9000 -j DROP
-A INPUT -m comment --comment "a list of its own" -j ufw-user
-A ufw-user ! -s 198.51.100.0/24 -p tcp -m multiport --dports 80,8080 -j REJECT --reject-with tcp-reset
-A DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP
-A DOCKER-USER -s 192.0.2.7/32 -p tcp -m tcp --dport 3000 -j RETURN
-A DOCKER-USER -i eth1 -j DROP
-A DOCKER-USER -m set --match-set banned src -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"#;

    #[test]
    fn rules_that_would_have_matched_and_what_replaces_them() {
        let frontend = Guarded {
            service: "demo".into(),
            addr: "198.51.100.1".parse().unwrap(),
            port: 8080,
            target: 3000,
            proto: Proto::Tcp,
        };
        let found = Ruleset::parse(SAVED, false)
            .bypassed(std::slice::from_ref(&frontend), &["eth0".into()]);
        let told: Vec<_> = found.iter().map(|b| (b.chain.as_str(), b.instead.as_str())).collect();
        assert_eq!(
            told,
            [
                ("INPUT", "sticky.deny=203.0.113.0/24"),
                ("INPUT", "sticky.allow=198.51.100.0/24"),
                ("DOCKER-USER", "sticky.allow with the sources that may connect"),
                ("DOCKER-USER", "sticky.allow=192.0.2.7/32"),
            ]
        );
        assert!(found[1].rule.starts_with("-A ufw-user ! -s"), "{:?}", found[1]);
        assert_eq!(found[0].frontend, "198.51.100.1:8080/tcp");
        assert!(Ruleset::parse(SAVED, true).bypassed(&[frontend], &["eth0".into()]).is_empty());
    }
}
