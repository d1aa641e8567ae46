//! The values of single settings, spelled the same way in flags, environment and file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Deserialize;

/// Both families, as a socket on `[::]` is unless told otherwise.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80);
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9880);

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Nowhere,
    At(SocketAddr),
}

impl Listen {
    pub(super) const fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Nowhere => None,
            Self::At(addr) => Some(addr),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        let any = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
        any.as_deref().unwrap_or(text).parse().map(Self::At).map_err(|_| {
            "write an address and a port such as `[::]:80` or `127.0.0.1:8080`, or `none`"
                .to_owned()
        })
    }
}

/// Where services and backends come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProviderKind {
    #[default]
    Swarm,
    /// Containers of a Docker engine without Swarm.
    Docker,
    File(PathBuf),
}

impl FromStr for ProviderKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "swarm" => Ok(Self::Swarm),
            "docker" => Ok(Self::Docker),
            _ => text
                .strip_prefix("file:")
                .map(|path| Self::File(path.into()))
                .ok_or_else(|| "write `swarm`, `docker` or `file:PATH`".to_owned()),
        }
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver can, else generic; the log and `sticky status` say which.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's network stack: any interface, slower.
    Generic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Slots of each service's table: a prime, as Maglev wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

impl TableSize {
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self(16381)
    }
}

impl FromStr for TableSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "16381" => Ok(Self(16381)),
            "65537" => Ok(Self(65537)),
            _ => Err("write 16381 or 65537".to_owned()),
        }
    }
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|net| Self(net.trunc()))
            .map_err(|_| "write networks such as `10.0.0.0/8,2001:db8::/32`".to_owned())
    }
}

/// A length of time with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| "write a number with its unit, such as `30s` or `2m`".to_owned())
    }
}
