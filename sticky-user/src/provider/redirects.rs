//! Which redirects hold: none that takes a host from an older service, and none that closes a circle.

use std::collections::HashMap;
use std::sync::Arc;

use http::Uri;

use crate::model::{HostPattern, LabelError, Redirect, Service};

/// Target of a source, and the service that redirects it.
type Held = HashMap<String, (String, String)>;

/// Settles who has a host: the service that serves it or the one that redirects it, so services come oldest first. A
/// service may redirect a host of its own, and two may want the same. What does not hold is left out and reported.
pub(super) fn settle(services: &mut [Arc<Service>]) {
    let mut held = Held::new();
    for index in 0..services.len() {
        let (older, rest) = services.split_at_mut(index);
        let Some(service) = rest.first_mut() else { return };
        let Service { name, config, .. } = &**service;
        let mut errors = Vec::new();
        for host in &config.hosts {
            let HostPattern::Exact(host) = host else { continue };
            let Some((target, by)) = held.get(host) else { continue };
            let too = |own: &Redirect| own.source == *host && own.target == *target;
            if !config.redirects.iter().any(too) {
                errors.push(LabelError {
                    label: "com.docker.lb.hosts".to_owned(),
                    value: host.clone(),
                    message: format!("is redirected to {target} by service {by}, the older one"),
                    hint: format!("take another host, or take the redirect of {by} away"),
                });
            }
        }
        let holds = |redirect: &&Redirect| match refusal(redirect, name, &held, older) {
            None => {
                let target = (redirect.target.clone(), name.clone());
                held.entry(redirect.source.clone()).or_insert(target);
                true
            }
            Some((message, hint)) => {
                errors.push(LabelError {
                    label: "com.docker.lb.redirects".to_owned(),
                    value: format!("{},{}", redirect.source, redirect.target),
                    message,
                    hint: hint.to_owned(),
                });
                false
            }
        };
        let redirects: Vec<Redirect> = config.redirects.iter().filter(holds).cloned().collect();
        if !errors.is_empty() {
            let service = Arc::make_mut(service);
            service.config.redirects = redirects;
            service.errors.append(&mut errors);
        }
    }
}

/// Why a redirect does not hold, and what to do.
fn refusal(
    redirect: &Redirect,
    name: &str,
    held: &Held,
    older: &[Arc<Service>],
) -> Option<(String, &'static str)> {
    let Redirect { source, target } = redirect;
    if let Some((other, by)) = held.get(source) {
        let by = if by == name { "this service".to_owned() } else { format!("service {by}") };
        let why = format!("{source} is already redirected to {other} by {by}");
        return (other != target).then_some((why, "keep one of the two"));
    }
    let serves = |other: &&Arc<Service>| {
        let exact = |host: &HostPattern| matches!(host, HostPattern::Exact(host) if host == source);
        other.config.hosts.iter().any(exact)
    };
    if let Some(other) = older.iter().find(serves) {
        let why = format!("{source} is a host of service {}, the older one", other.name);
        return Some((why, "redirect another host, or take this one from that service"));
    }
    let mut next = host(target);
    // No circle is among those that hold, so this ends.
    while let Some(at) = next {
        if at == *source {
            let why = format!("leads back to {source}, and so in a circle");
            return Some((why, "redirect to a host that is not redirected"));
        }
        next = held.get(&at).and_then(|(target, _)| host(target));
    }
    None
}

/// The host of a target on the usual port, where this or another sticky may redirect again.
fn host(target: &str) -> Option<String> {
    let uri: Uri = target.parse().ok()?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let name = uri.host().filter(|_| uri.port_u16().is_none_or(|port| port == usual))?;
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceConfig;

    /// Services by name, hosts and redirects (`a>http://b`); each with its redirects that hold, and what is reported.
    fn settled(services: &[(&str, &str, &str)]) -> Vec<(Vec<String>, Vec<String>)> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let redirect = |pair: String| {
            let (source, target) = pair.split_once('>').unwrap();
            Redirect { source: source.to_owned(), target: target.to_owned() }
        };
        let mut services: Vec<Arc<Service>> = services
            .iter()
            .map(|(name, hosts, redirects)| {
                Arc::new(Service {
                    id: (*name).to_owned(),
                    name: (*name).to_owned(),
                    config: ServiceConfig {
                        hosts: words(hosts).into_iter().map(HostPattern::Exact).collect(),
                        redirects: words(redirects).into_iter().map(redirect).collect(),
                        ..ServiceConfig::default()
                    },
                    publish: Vec::new(),
                    backends: Vec::new(),
                    errors: Vec::new(),
                })
            })
            .collect();
        settle(&mut services);
        let sources = |s: &Service| s.config.redirects.iter().map(|r| r.source.clone()).collect();
        let told = |s: &Service| s.errors.iter().map(|e| format!("{} {e:?}", e.value)).collect();
        services.iter().map(|service| (sources(service), told(service))).collect()
    }

    #[test]
    fn the_older_service_keeps_a_host() {
        let all = settled(&[("old", "a", ""), ("new", "b", "a>http://b c>http://b")]);
        assert_eq!(all[1].0, ["c"]);
        assert!(all[1].1[0].starts_with("a,http://b ") && all[1].1[0].contains("service old"));
        let all = settled(&[("old", "b", "a>http://b"), ("new", "a c", "")]);
        assert_eq!((all[0].0.len(), all[0].1.len(), all[1].1.len()), (1, 0, 1));
        assert!(all[1].1[0].starts_with("a ") && all[1].1[0].contains("service old"));
        let all = settled(&[("old", "", "a>http://b"), ("new", "", "a>http://c")]);
        assert_eq!((all[0].0.len(), all[1].0.len(), all[1].1.len()), (1, 0, 1));
    }

    #[test]
    fn a_service_redirects_hosts_of_its_own_and_versions_redirect_the_same() {
        let labels = ("a b", "a>http://b");
        let all = settled(&[("v1", labels.0, labels.1), ("v2", labels.0, labels.1)]);
        assert!(all.iter().all(|(kept, told)| kept == &["a"] && told.is_empty()), "{all:?}");
    }

    #[test]
    fn circles_are_opened_where_they_close() {
        for (first, second) in [
            ("a>http://b", "b>http://a"),
            ("a>https://b:443", "b>https://A."),
            ("a>http://b b>http://c", "c>http://a:80"),
            ("", "a>http://a:80"),
        ] {
            let all = settled(&[("old", "", first), ("new", "", second)]);
            assert!(all[0].1.is_empty() && all[1].0.is_empty(), "{first} {second}: {all:?}");
            assert!(all[1].1[0].contains("in a circle"), "{all:?}");
        }
        let one = settled(&[("one", "a b", "a>http://b b>http://a")]);
        assert_eq!((one[0].0.len(), one[0].1.len()), (1, 1), "{one:?}");
        let chain = settled(&[("one", "", "a>http://b b>http://c c>http://a:8080")]);
        assert!(chain[0].1.is_empty(), "{chain:?}");
    }
}
