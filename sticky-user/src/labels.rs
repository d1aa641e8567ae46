//! The labels of a service, read and checked (contract, section 4): a pure function of the labels.
//!
//! A wrong value makes the whole set unusable, so that a half-read one is never served; everything else that is
//! odd is reported and the service served.

mod affinity;
mod conflicts;
mod memory;
mod names;
mod pending;
mod route;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

pub use memory::Memory;
pub use names::{ALL, is_ours};

pub(crate) use affinity::publish;
pub(crate) use names::{HOSTS, IP_HASH, PORT, SESSION_COOKIE};

use crate::model::{
    BackendMode, CookieAffinity, CookieMode, DrainMode, HealthConfig, LabelError, OnLoss,
    ProxyProtocol, ServiceConfig,
};
use names as label;
pub(crate) use value::Wrong;

/// What this instance of sticky is, as far as labels are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// `--service-cluster`.
    pub cluster: Option<String>,
    /// Whether it has an `--https` listener.
    pub https: bool,
}

impl Instance {
    /// Whether a service with these labels is for this instance. As in Interlock, a service without the label is for
    /// the instances without a name. One whose value is no name is for nobody, so every instance reports it.
    #[must_use]
    pub fn serves(&self, labels: &BTreeMap<String, String>) -> bool {
        let wanted = labels
            .get(label::SERVICE_CLUSTER)
            .map(|name| name.trim())
            .filter(|name| !name.is_empty());
        wanted == self.cluster.as_deref() || wanted.is_some_and(|name| value::name(name).is_err())
    }
}

/// What the labels of one service say.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// `None` when a value is wrong: the last good configuration holds.
    pub config: Option<ServiceConfig>,
    pub errors: Vec<LabelError>,
}

/// Reads the labels of one service. Labels of others (`com.docker.stack.…`) are passed over.
#[must_use]
pub fn read(labels: &BTreeMap<String, String>, instance: &Instance) -> Reading {
    let mut reader = Reader { labels, errors: Vec::new(), usable: true };
    reader.unknown();
    let mut config = ServiceConfig::default();
    reader.route(&mut config);
    reader.affinity(&mut config);
    reader.life(&mut config);
    reader.limits(&mut config);
    reader.checked_only();
    let Reader { mut errors, usable, .. } = reader;
    if usable {
        conflicts::settle(labels, &mut config, instance, &mut errors);
        pending::report(labels, &config, &mut errors);
    }
    Reading { config: usable.then_some(config), errors }
}

/// The labels on a container, where they do nothing: one error for each that is sticky's.
#[must_use]
pub fn wrong_level<'a>(
    container: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<LabelError> {
    let mut errors: Vec<LabelError> = container
        .into_iter()
        .filter(|(name, _)| is_ours(name))
        .map(|(name, value)| LabelError {
            label: name.clone(),
            value: value.clone(),
            message: "is on the container, where it does nothing".to_owned(),
            hint: "put it on the service: `docker service create --label`, or `deploy.labels` in a stack".to_owned(),
        })
        .collect();
    errors.sort_unstable_by(|a, b| a.label.cmp(&b.label));
    errors
}

struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    errors: Vec<LabelError>,
    usable: bool,
}

impl Reader<'_> {
    /// Puts the value of a label into its place, or reports what is wrong with it.
    fn read<T>(
        &mut self,
        label: &str,
        place: &mut T,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) {
        let Some(value) = self.labels.get(label) else { return };
        match parse(value.trim()) {
            Ok(read) => *place = read,
            Err(Wrong { message, hint }) => {
                self.usable = false;
                self.errors.push(LabelError {
                    label: label.to_owned(),
                    value: value.clone(),
                    message,
                    hint,
                });
            }
        }
    }

    fn unknown(&mut self) {
        for (name, value) in
            self.labels.iter().filter(|(name, _)| is_ours(name) && !ALL.contains(&name.as_str()))
        {
            let hint = match label::nearest(name, &ALL) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "take it away, or look for its name in the list of labels".to_owned(),
            };
            let message = "is not a label of sticky, and does nothing".to_owned();
            self.errors.push(LabelError {
                label: name.clone(),
                value: value.clone(),
                message,
                hint,
            });
        }
    }

    fn route(&mut self, config: &mut ServiceConfig) {
        self.read(label::HOSTS, &mut config.hosts, route::hosts);
        self.read(label::PORT, &mut config.port, |v| value::port(v).map(Some));
        self.read(label::NETWORK, &mut config.network, |v| value::name(v).map(Some));
        self.read(label::CONTEXT_ROOT, &mut config.context_root, route::context_root);
        self.read(label::CONTEXT_ROOT_REWRITE, &mut config.context_root_rewrite, value::boolean);
        self.read(label::DEFAULT_BACKEND, &mut config.default_backend, value::boolean);
        self.read(label::SSL_ONLY, &mut config.ssl_only, value::boolean);
        self.read(label::REDIRECTS, &mut config.redirects, route::redirects);
        self.read(label::SERVICE_CLUSTER, &mut config.service_cluster, |v| {
            value::name(v).map(Some)
        });
        self.read(label::BACKEND_MODE, &mut config.backend_mode, |v| {
            value::word(v, &[("task", BackendMode::Task), ("vip", BackendMode::Vip)])
        });
    }

    fn affinity(&mut self, config: &mut ServiceConfig) {
        self.read(label::IP_HASH, &mut config.ip_hash, value::boolean);
        self.read(label::HEADER, &mut config.header, |v| value::token(v).map(Some));
        self.read(label::AFFINITY_TTL, &mut config.affinity_ttl, value::duration);
        self.read(label::IP_PREFIX, &mut config.ip_prefix, affinity::ip_prefix);
        self.read(label::LISTEN, &mut config.listen, affinity::listen);
        let (mut names, mut mode, mut own_name) = (Vec::new(), CookieMode::Learn, None);
        self.read(label::SESSION_COOKIE, &mut names, |v| value::list(v, value::token));
        self.read(label::COOKIE_NAME, &mut own_name, |v| value::token(v).map(Some));
        self.read(label::COOKIE_MODE, &mut mode, |v| {
            value::word(
                v,
                &[
                    ("learn", CookieMode::Learn),
                    ("insert", CookieMode::Insert),
                    ("hash", CookieMode::Hash),
                ],
            )
        });
        if !names.is_empty() || mode == CookieMode::Insert {
            config.cookie = Some(CookieAffinity { names, mode, own_name });
        }
    }

    fn life(&mut self, config: &mut ServiceConfig) {
        self.read(label::DRAIN, &mut config.drain, |v| {
            value::word(
                v,
                &[("connections", DrainMode::Connections), ("sessions", DrainMode::Sessions)],
            )
        });
        self.read(label::ON_LOSS, &mut config.on_loss, |v| {
            value::word(v, &[("failover", OnLoss::Failover), ("strict", OnLoss::Strict)])
        });
        self.read(label::MAX_FAILS, &mut config.max_fails, |v| value::number(v, 0, 1_000_000));
        self.read(label::FAIL_TIMEOUT, &mut config.fail_timeout, value::span);
        let HealthConfig { path, interval, timeout, rise, fall } = &mut config.health;
        self.read(label::HEALTH_PATH, path, |v| value::path(v).map(Some));
        self.read(label::HEALTH_INTERVAL, interval, value::span);
        self.read(label::HEALTH_TIMEOUT, timeout, value::span);
        self.read(label::HEALTH_RISE, rise, |v| value::number(v, 1, 1000));
        self.read(label::HEALTH_FALL, fall, |v| value::number(v, 1, 1000));
    }

    fn limits(&mut self, config: &mut ServiceConfig) {
        self.read(label::WEIGHT, &mut config.weight, |v| value::number(v, 0, 1_000_000).map(Some));
        self.read(label::SLOW_START, &mut config.slow_start, value::duration);
        self.read(label::MAX_CONNECTIONS, &mut config.max_connections, |v| {
            value::number(v, 1, u32::MAX).map(Some)
        });
        self.read(label::PROXY_PROTOCOL, &mut config.proxy_protocol, |v| {
            value::word(v, &[("v1", Some(ProxyProtocol::V1)), ("v2", Some(ProxyProtocol::V2))])
        });
        self.read(label::ALLOW, &mut config.allow, |v| value::list(v, value::network));
        self.read(label::DENY, &mut config.deny, |v| value::list(v, value::network));
        self.read(label::RATE, &mut config.rate, |v| value::number(v, 1, 1_000_000_000).map(Some));
    }

    /// Labels whose values are checked though nothing in the configuration takes them.
    fn checked_only(&mut self) {
        self.read(label::SSL_CERT, &mut String::new(), value::name);
        self.read(label::SSL_KEY, &mut String::new(), value::name);
        self.read(label::SSL_PASSTHROUGH, &mut false, value::boolean);
        self.read(label::SSL_BACKEND, &mut false, value::boolean);
        let verify = [("required", true), ("none", false)];
        self.read(label::SSL_BACKEND_VERIFY, &mut true, |v| value::word(v, &verify));
        self.read(label::WEBSOCKET, &mut Vec::new(), route::websocket_endpoints);
    }
}
