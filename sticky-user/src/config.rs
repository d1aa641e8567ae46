//! What `sticky run` is told: flags over environment over `--config FILE` over defaults, checked once.
//!
//! [`Settings`] is what a user writes, each part of it optional; [`Config`] is what the program works with.

mod file;
mod settings;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use file::{ConfigFile, FileError};
pub use settings::Settings;
pub use values::{Listen, LogFormat, ProviderKind, TableSize, XdpMode};

/// Where a running sticky keeps things; every command can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The control socket, a unix socket with mode 0600.
    pub socket: PathBuf,
    /// Generated keys and the last snapshot, a directory with mode 0700.
    pub state_dir: PathBuf,
    /// Programs, links and maps, in a BPF file system.
    pub pin_dir: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            socket: "/run/sticky/sticky.sock".into(),
            state_dir: "/var/lib/sticky".into(),
            pin_dir: "/sys/fs/bpf/sticky".into(),
        }
    }
}

/// Where packets are balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// Layer 7 only.
    None,
    /// The one that the default route uses.
    DefaultRoute,
    Named(Vec<String>),
}

/// The checked configuration of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub interfaces: Interfaces,
    pub xdp_mode: XdpMode,
    /// Empty: the global addresses of the interfaces.
    pub vips: Vec<IpAddr>,
    pub provider: ProviderKind,
    /// `None`: `DOCKER_HOST` and its TLS variables, else the local socket.
    pub docker_host: Option<String>,
    pub http: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub places: Places,
    /// `None`: the generated one in the state directory.
    pub cookie_key_file: Option<PathBuf>,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub table_size: TableSize,
    /// Client records over all services.
    pub max_clients: u32,
    pub service_cluster: Option<String>,
    pub hide_info_headers: bool,
    /// How long requests in progress may take after SIGTERM.
    pub drain_timeout: Duration,
    pub log_format: LogFormat,
    pub takeover: bool,
}

/// What is wrong with a configuration: the key, and a sentence saying what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// Name of the flag without its dashes, which is the key in a file too.
    pub key: &'static str,
    pub problem: String,
}

impl Config {
    /// Fills in the defaults and checks the whole.
    ///
    /// # Errors
    /// Every mistake there is.
    pub fn new(settings: Settings) -> Result<Self, Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut invalid =
            |key, problem: &str| wrong.push(Invalid { key, problem: problem.to_owned() });

        let interfaces = match interfaces(settings.iface.unwrap_or_default()) {
            Ok(interfaces) => interfaces,
            Err(problem) => {
                invalid("iface", &problem);
                Interfaces::None
            }
        };
        let vips = settings.vip.unwrap_or_default();
        for vip in &vips {
            if vip.is_unspecified() || vip.is_multicast() || vip.is_loopback() {
                invalid(
                    "vip",
                    &format!("{vip} cannot be a frontend; give an address that clients can reach"),
                );
            }
        }
        if settings.https.is_some_and(|https| https != Listen::Nowhere) {
            invalid("https", "TLS is not served by this version; leave it out or write `none`");
        }
        if settings.max_clients == Some(0) {
            invalid("max-clients", "0 clients cannot be remembered; give at least 1");
        }
        if settings.provider == Some(ProviderKind::File(PathBuf::new())) {
            invalid("provider", "the path is missing; write `file:services.toml`");
        }
        let http = settings.http.unwrap_or(Listen::At(values::HTTP)).addr();
        let admin = settings.admin.unwrap_or(Listen::At(values::ADMIN)).addr();
        if http.is_some_and(|http| http.port() != 0 && Some(http) == admin) {
            invalid("admin", "it is the address of `http` too; give another port");
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }

        let places = Places::default();
        Ok(Self {
            interfaces,
            xdp_mode: settings.xdp_mode.unwrap_or_default(),
            vips,
            provider: settings.provider.unwrap_or_default(),
            docker_host: settings.docker_host,
            http,
            admin,
            places: Places {
                socket: settings.socket.unwrap_or(places.socket),
                state_dir: settings.state_dir.unwrap_or(places.state_dir),
                pin_dir: settings.pin_dir.unwrap_or(places.pin_dir),
            },
            cookie_key_file: settings.cookie_key_file,
            trusted_proxies: settings
                .trusted_proxies
                .unwrap_or_default()
                .into_iter()
                .map(|values::Network(net)| net)
                .collect(),
            table_size: settings.table_size.unwrap_or_default(),
            max_clients: settings.max_clients.unwrap_or(1_000_000),
            service_cluster: settings.service_cluster,
            hide_info_headers: settings.hide_info_headers.unwrap_or(false),
            drain_timeout: settings
                .drain_timeout
                .map_or(Duration::from_secs(30), |timeout| timeout.0),
            log_format: settings.log_format.unwrap_or_default(),
            takeover: settings.takeover.unwrap_or(false),
        })
    }
}

fn interfaces(names: Vec<String>) -> Result<Interfaces, String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        // IFNAMSIZ of linux/if.h is 16, with the final zero.
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(format!(
                "`{name}` is no interface name; `ip link` lists those of this host"
            ));
        }
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    match kept.iter().any(|name| name == "none") {
        true if kept.len() > 1 => {
            Err("`none` stands alone; leave it out or the other names".to_owned())
        }
        true => Ok(Interfaces::None),
        false if kept.is_empty() => Ok(Interfaces::DefaultRoute),
        false => Ok(Interfaces::Named(kept)),
    }
}

#[cfg(test)]
mod tests;
