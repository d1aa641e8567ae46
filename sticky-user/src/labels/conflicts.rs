//! Labels that are right one by one and wrong together. Each is reported; the service is served without the part that
//! cannot be had.

use std::collections::BTreeMap;

use super::{Instance, names as label};
use crate::model::{BackendMode, LabelError, ServiceConfig};

/// Takes away what has no effect beside the other labels, and says so.
pub(super) fn settle(
    labels: &BTreeMap<String, String>,
    config: &mut ServiceConfig,
    instance: &Instance,
    errors: &mut Vec<LabelError>,
) {
    let mut report = |name: &str, message: &str, hint: &str| {
        let value = labels.get(name).cloned().unwrap_or_default();
        errors.push(LabelError {
            label: name.to_owned(),
            value,
            message: message.to_owned(),
            hint: hint.to_owned(),
        });
    };
    let set = |name: &str| labels.contains_key(name);

    if config.backend_mode == BackendMode::Vip {
        for (name, has) in [
            (label::SESSION_COOKIE, config.cookie.is_some()),
            (label::IP_HASH, config.ip_hash),
            (label::HEADER, config.header.is_some()),
        ] {
            if has {
                report(
                    name,
                    "has no effect with com.docker.lb.backend_mode=vip: there is one backend, and no affinity",
                    "take away backend_mode, or this label",
                );
            }
        }
        config.cookie = None;
        config.ip_hash = false;
        config.header = None;
    }
    if config.cookie.is_none() && config.backend_mode == BackendMode::Task {
        for name in [label::COOKIE_MODE, label::COOKIE_NAME].into_iter().filter(|name| set(name)) {
            report(
                name,
                "has no effect: no cookie of the application is named",
                "name it in com.docker.lb.sticky_session_cookie, or set sticky.cookie.mode=insert",
            );
        }
    }
    if config.cookie.is_some() && config.header.take().is_some() {
        report(
            label::HEADER,
            "has no effect: the cookie comes first",
            "keep either the header or the cookie",
        );
    }
    if !config.ip_hash {
        for name in [label::LISTEN, label::IP_PREFIX, label::AFFINITY_TTL]
            .into_iter()
            .filter(|name| set(name))
        {
            report(name, "has no effect without ip_hash", "set com.docker.lb.ip_hash=true");
        }
        config.listen.clear();
    }
    if config.ssl_only && !instance.https {
        report(
            label::SSL_ONLY,
            "sends every plain request to https, where sticky does not listen (--https none)",
            "run sticky with --https ADDR, or take this label away",
        );
    }
    let routed = !config.hosts.is_empty() || config.default_backend;
    if !routed {
        // Redirects are about hosts of their own, and need no backend.
        for name in [label::CONTEXT_ROOT, label::SESSION_COOKIE, label::HEADER] {
            if set(name) {
                report(name, "has no effect without hosts", "set com.docker.lb.hosts");
            }
        }
        if !config.ip_hash {
            report(
                label::HOSTS,
                "is missing: no request leads to this service",
                "set com.docker.lb.hosts, com.docker.lb.default_backend=true or com.docker.lb.ip_hash=true",
            );
        }
    }
    if config.context_root_rewrite && config.context_root.is_none() {
        report(
            label::CONTEXT_ROOT_REWRITE,
            "has no effect without a context root",
            "set com.docker.lb.context_root",
        );
    }
    if config.health.timeout > config.health.interval && set(label::HEALTH_TIMEOUT) {
        report(
            label::HEALTH_TIMEOUT,
            "is longer than the interval: checks come only as fast as they time out",
            "make sticky.health.interval at least as long",
        );
    }
}
