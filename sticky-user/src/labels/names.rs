//! The labels there are, and the nearest one to a misspelt name.

pub(crate) const HOSTS: &str = "com.docker.lb.hosts";
pub(crate) const PORT: &str = "com.docker.lb.port";
pub(super) const NETWORK: &str = "com.docker.lb.network";
pub(super) const CONTEXT_ROOT: &str = "com.docker.lb.context_root";
pub(super) const CONTEXT_ROOT_REWRITE: &str = "com.docker.lb.context_root_rewrite";
pub(crate) const SESSION_COOKIE: &str = "com.docker.lb.sticky_session_cookie";
pub(crate) const IP_HASH: &str = "com.docker.lb.ip_hash";
pub(super) const SSL_ONLY: &str = "com.docker.lb.ssl_only";
pub(super) const SSL_CERT: &str = "com.docker.lb.ssl_cert";
pub(super) const SSL_KEY: &str = "com.docker.lb.ssl_key";
pub(super) const SSL_PASSTHROUGH: &str = "com.docker.lb.ssl_passthrough";
pub(super) const SSL_BACKEND: &str = "com.docker.lb.ssl_backend";
pub(super) const SSL_BACKEND_VERIFY: &str = "com.docker.lb.ssl_backend_tls_verify";
pub(super) const WEBSOCKET: &str = "com.docker.lb.websocket_endpoints";
pub(super) const REDIRECTS: &str = "com.docker.lb.redirects";
pub(super) const BACKEND_MODE: &str = "com.docker.lb.backend_mode";
pub(super) const DEFAULT_BACKEND: &str = "com.docker.lb.default_backend";
pub(super) const SERVICE_CLUSTER: &str = "com.docker.lb.service_cluster";
pub(super) const MAX_FAILS: &str = "com.docker.lb.max_fails";
pub(super) const FAIL_TIMEOUT: &str = "com.docker.lb.fail_timeout";
pub(super) const AFFINITY_TTL: &str = "sticky.affinity_ttl";
pub(super) const IP_PREFIX: &str = "sticky.ip_prefix";
pub(super) const LISTEN: &str = "sticky.l4.listen";
pub(super) const COOKIE_NAME: &str = "sticky.cookie.name";
pub(super) const COOKIE_MODE: &str = "sticky.cookie.mode";
pub(super) const HEADER: &str = "sticky.header";
pub(super) const DRAIN: &str = "sticky.drain";
pub(super) const ON_LOSS: &str = "sticky.on_loss";
pub(super) const WEIGHT: &str = "sticky.weight";
pub(super) const HEALTH_PATH: &str = "sticky.health.path";
pub(super) const HEALTH_INTERVAL: &str = "sticky.health.interval";
pub(super) const HEALTH_TIMEOUT: &str = "sticky.health.timeout";
pub(super) const HEALTH_RISE: &str = "sticky.health.rise";
pub(super) const HEALTH_FALL: &str = "sticky.health.fall";
pub(super) const SLOW_START: &str = "sticky.slow_start";
pub(super) const MAX_CONNECTIONS: &str = "sticky.max_connections";
pub(super) const PROXY_PROTOCOL: &str = "sticky.proxy_protocol";
pub(super) const ALLOW: &str = "sticky.allow";
pub(super) const DENY: &str = "sticky.deny";
pub(super) const RATE: &str = "sticky.rate";

/// Every label of the contract, sections 4.1 and 4.2.
pub const ALL: [&str; 40] = [
    HOSTS,
    PORT,
    NETWORK,
    CONTEXT_ROOT,
    CONTEXT_ROOT_REWRITE,
    SESSION_COOKIE,
    IP_HASH,
    SSL_ONLY,
    SSL_CERT,
    SSL_KEY,
    SSL_PASSTHROUGH,
    SSL_BACKEND,
    SSL_BACKEND_VERIFY,
    WEBSOCKET,
    REDIRECTS,
    BACKEND_MODE,
    DEFAULT_BACKEND,
    SERVICE_CLUSTER,
    MAX_FAILS,
    FAIL_TIMEOUT,
    AFFINITY_TTL,
    IP_PREFIX,
    LISTEN,
    COOKIE_NAME,
    COOKIE_MODE,
    HEADER,
    DRAIN,
    ON_LOSS,
    WEIGHT,
    HEALTH_PATH,
    HEALTH_INTERVAL,
    HEALTH_TIMEOUT,
    HEALTH_RISE,
    HEALTH_FALL,
    SLOW_START,
    MAX_CONNECTIONS,
    PROXY_PROTOCOL,
    ALLOW,
    DENY,
    RATE,
];

/// Whether a label is meant for sticky, spelt right or not.
#[must_use]
pub fn is_ours(label: &str) -> bool {
    let prefixed = |prefix: &str| {
        label.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    prefixed("com.docker.lb.") || prefixed("sticky.")
}

/// The one of `valid` that `word` was most probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let word = plain(word);
    valid
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= (own_part(candidate).len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// What tells a label from the others of its family.
fn own_part(label: &str) -> &str {
    label.strip_prefix("com.docker.lb.").or_else(|| label.strip_prefix("sticky.")).unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_labels_find_the_one_that_was_meant() {
        for (word, meant) in [
            ("com.docker.lb.iphash", IP_HASH),
            ("com.docker.lb.ip-hash", IP_HASH),
            ("com.docker.lb.IP_HASH", IP_HASH),
            ("com.docker.lb.host", HOSTS),
            ("com.docker.lb.sticky_session_cookies", SESSION_COOKIE),
            ("com.docker.lb.context-root", CONTEXT_ROOT),
            ("sticky.affinity-ttl", AFFINITY_TTL),
            ("sticky.health.pth", HEALTH_PATH),
            ("sticky.on-loss", ON_LOSS),
        ] {
            assert_eq!(nearest(word, &ALL), Some(meant), "{word}");
        }
        assert_eq!(nearest("com.docker.lb.completely_different", &ALL), None);
    }

    #[test]
    fn only_the_two_families_are_ours() {
        assert!(
            is_ours("com.docker.lb.hosts") && is_ours("sticky.x") && is_ours("Com.Docker.LB.hosts")
        );
        assert!(!is_ours("com.docker.stack.namespace") && !is_ours("stickyfoo") && !is_ours("é"));
    }
}
