//! Labels that are understood and have no effect yet: a user must not believe in a limit that nobody keeps.

use std::collections::BTreeMap;

use super::names as label;
use crate::model::{LabelError, ServiceConfig};

/// What happens instead.
const PENDING: [(&str, &str); 5] = [
    (label::SSL_CERT, "the hosts are served without TLS"),
    (label::SSL_KEY, "the hosts are served without TLS"),
    (label::SSL_PASSTHROUGH, "the hosts are served without TLS"),
    (label::SSL_BACKEND, "requests go to the backends without TLS"),
    (label::SSL_BACKEND_VERIFY, "requests go to the backends without TLS"),
];

/// Kept by the proxy, and not yet for connections that it never sees.
const NOT_AT_LAYER_4: [&str; 1] = [label::MAX_CONNECTIONS];

/// Reports the labels that are set and do nothing.
pub(super) fn report(
    labels: &BTreeMap<String, String>,
    config: &ServiceConfig,
    errors: &mut Vec<LabelError>,
) {
    let mut tell = |name: &str, message: String| {
        let off = |value: &String| {
            matches!(value.trim(), "0" | "0s") || value.trim().eq_ignore_ascii_case("false")
        };
        if let Some(value) = labels.get(name).filter(|value| !off(value)) {
            errors.push(LabelError {
                label: name.to_owned(),
                value: value.clone(),
                message,
                hint: "take it away, or do this in front of sticky".to_owned(),
            });
        }
    };
    for (name, instead) in PENDING {
        tell(name, format!("is not served yet: {instead}"));
    }
    if config.ip_hash {
        for name in NOT_AT_LAYER_4 {
            tell(name, "is not applied at layer 4 yet, only to requests".to_owned());
        }
        // What XDP carries has no connection of its own that could begin with a header.
        let only = "is sent by the proxy and the relay; what XDP carries comes from the client's own address instead";
        tell(label::PROXY_PROTOCOL, only.to_owned());
    }
}
