//! What a user may write: every flag of `sticky run`, its variable, and its key in a file.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Deserializer, de};

use super::values::{Listen, LogFormat, Network, ProviderKind, Span, TableSize, XdpMode};

/// The settings from one source; what it leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Interface that clients' packets arrive on, repeatable; `none`: layer 7 only [default: that of the default route]
    #[arg(
        long,
        env = "STICKY_IFACE",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Layer 4"
    )]
    #[serde(deserialize_with = "list")]
    pub iface: Option<Vec<String>>,

    /// How the XDP program is attached [default: auto]
    #[arg(long, env = "STICKY_XDP_MODE", value_name = "MODE", help_heading = "Layer 4")]
    #[serde(alias = "xdp_mode")]
    pub xdp_mode: Option<XdpMode>,

    /// Address that clients connect to, repeatable [default: the global addresses of the interfaces]
    #[arg(
        long,
        env = "STICKY_VIP",
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "Layer 4"
    )]
    #[serde(deserialize_with = "list")]
    pub vip: Option<Vec<IpAddr>>,

    /// Slots of each service's table, 16381 or 65537: more spread many backends better [default: 16381]
    #[arg(long, env = "STICKY_TABLE_SIZE", value_name = "SLOTS", help_heading = "Layer 4")]
    #[serde(alias = "table_size", deserialize_with = "number")]
    pub table_size: Option<TableSize>,

    /// Clients remembered over all services [default: 1000000]
    #[arg(long, env = "STICKY_MAX_CLIENTS", value_name = "N", help_heading = "Layer 4")]
    #[serde(alias = "max_clients")]
    pub max_clients: Option<u32>,

    /// Where services come from: `swarm` or `file:PATH` [default: swarm]
    #[arg(long, env = "STICKY_PROVIDER", value_name = "KIND", help_heading = "Services")]
    #[serde(deserialize_with = "text")]
    pub provider: Option<ProviderKind>,

    /// Docker's API [default: DOCKER_HOST and its TLS variables, else the local socket]
    #[arg(long, env = "STICKY_DOCKER_HOST", value_name = "URL", help_heading = "Services")]
    #[serde(alias = "docker_host")]
    pub docker_host: Option<String>,

    /// Serve only services with this com.docker.lb.service_cluster
    #[arg(long, env = "STICKY_SERVICE_CLUSTER", value_name = "NAME", help_heading = "Services")]
    #[serde(alias = "service_cluster")]
    pub service_cluster: Option<String>,

    /// Where HTTP is served, `none`: nowhere (default `[::]:80`, both families)
    #[arg(long, env = "STICKY_HTTP", value_name = "ADDR", help_heading = "Layer 7")]
    #[serde(deserialize_with = "text")]
    pub http: Option<Listen>,

    /// Where HTTPS is served; only `none` in this version [default: none]
    #[arg(long, env = "STICKY_HTTPS", value_name = "ADDR", help_heading = "Layer 7")]
    #[serde(deserialize_with = "text")]
    pub https: Option<Listen>,

    /// Keys for cookies and the client hash, made by `sticky keys generate` [default: one kept in the state directory]
    #[arg(long, env = "STICKY_COOKIE_KEY_FILE", value_name = "PATH", help_heading = "Layer 7")]
    #[serde(alias = "cookie_key_file")]
    pub cookie_key_file: Option<PathBuf>,

    /// Peers whose X-Forwarded-For is believed [default: none]
    #[arg(
        long,
        env = "STICKY_TRUSTED_PROXIES",
        value_name = "CIDR,…",
        value_delimiter = ',',
        help_heading = "Layer 7"
    )]
    #[serde(alias = "trusted_proxies", deserialize_with = "list")]
    pub trusted_proxies: Option<Vec<Network>>,

    /// Leave out x-upstream-addr and the other informing response headers
    #[arg(
        long,
        env = "STICKY_HIDE_INFO_HEADERS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "Layer 7"
    )]
    #[serde(alias = "hide_info_headers")]
    pub hide_info_headers: Option<bool>,

    /// How long requests in progress may take after SIGTERM [default: 30s]
    #[arg(long, env = "STICKY_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Layer 7")]
    #[serde(alias = "drain_timeout", deserialize_with = "text")]
    pub drain_timeout: Option<Span>,

    /// Where metrics, health and state are served, `none`: nowhere [default: 127.0.0.1:9880]
    #[arg(long, env = "STICKY_ADMIN", value_name = "ADDR", help_heading = "Operation")]
    #[serde(deserialize_with = "text")]
    pub admin: Option<Listen>,

    /// How the log is written [default: text]
    #[arg(long, env = "STICKY_LOG_FORMAT", value_name = "FORMAT", help_heading = "Operation")]
    #[serde(alias = "log_format")]
    pub log_format: Option<LogFormat>,

    /// Take over from the sticky that runs on this socket, which drains and ends
    #[arg(
        long,
        env = "STICKY_TAKEOVER",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "Operation"
    )]
    pub takeover: Option<bool>,

    // These three are flags of every command, and so belong to the command line as a whole.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
    #[arg(skip)]
    #[serde(alias = "state_dir")]
    pub state_dir: Option<PathBuf>,
    #[arg(skip)]
    #[serde(alias = "pin_dir")]
    pub pin_dir: Option<PathBuf>,
}

/// Names of all keys of a file, for the nearest spelling of a wrong one.
pub(super) const KEYS: &[&str] = &[
    "iface",
    "xdp-mode",
    "vip",
    "table-size",
    "max-clients",
    "provider",
    "docker-host",
    "service-cluster",
    "http",
    "https",
    "cookie-key-file",
    "trusted-proxies",
    "hide-info-headers",
    "drain-timeout",
    "admin",
    "log-format",
    "takeover",
    "socket",
    "state-dir",
    "pin-dir",
];

impl Settings {
    /// These, and from `lower` what these leave out.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            iface: self.iface.or(lower.iface),
            xdp_mode: self.xdp_mode.or(lower.xdp_mode),
            vip: self.vip.or(lower.vip),
            table_size: self.table_size.or(lower.table_size),
            max_clients: self.max_clients.or(lower.max_clients),
            provider: self.provider.or(lower.provider),
            docker_host: self.docker_host.or(lower.docker_host),
            service_cluster: self.service_cluster.or(lower.service_cluster),
            http: self.http.or(lower.http),
            https: self.https.or(lower.https),
            cookie_key_file: self.cookie_key_file.or(lower.cookie_key_file),
            trusted_proxies: self.trusted_proxies.or(lower.trusted_proxies),
            hide_info_headers: self.hide_info_headers.or(lower.hide_info_headers),
            drain_timeout: self.drain_timeout.or(lower.drain_timeout),
            admin: self.admin.or(lower.admin),
            log_format: self.log_format.or(lower.log_format),
            takeover: self.takeover.or(lower.takeover),
            socket: self.socket.or(lower.socket),
            state_dir: self.state_dir.or(lower.state_dir),
            pin_dir: self.pin_dir.or(lower.pin_dir),
        }
    }
}

fn parse<T: FromStr<Err: fmt::Display>, E: de::Error>(value: &str) -> Result<T, E> {
    value.parse().map_err(|e| E::custom(format_args!("`{value}`: {e}")))
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    parse(&String::deserialize(from)?).map(Some)
}

fn number<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    parse(&i64::deserialize(from)?.to_string()).map(Some)
}

/// One value, several separated by commas as on the command line, or a list.
fn list<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let values = match OneOrMany::deserialize(from)? {
        OneOrMany::One(values) => values.split(',').map(|value| value.trim().to_owned()).collect(),
        OneOrMany::Many(values) => values,
    };
    values.iter().map(|value| parse(value)).collect::<Result<_, _>>().map(Some)
}
