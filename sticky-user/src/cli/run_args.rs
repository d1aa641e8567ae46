//! The flags of `sticky run`, and the configuration they make with the environment and a file.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::PlaceFlags;
use crate::config::{Config, ConfigFile, Settings};
use crate::failure::Failure;

pub(super) const HELP: &str = "\
Each flag is also a STICKY_… variable and, without its dashes, a key of the TOML file of --config.
A flag comes before its variable, that before the file, that before the default.
STICKY_LOG sets what is logged, such as `debug` or `info,sticky::proxy=debug` [default: info];
`info,sticky_ebpf=trace` has the data path tell of each choice, which is slow.

SIGTERM drains layer 7 and leaves layer 4 forwarding; `sticky detach` removes it.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 not permitted.

Examples:
  sticky run                                               the services of this node's Swarm
  sticky run --iface eth0 --vip 198.51.100.1
  sticky run --iface none --provider file:services.toml    layer 7 only, services from a file
  sticky run --takeover                                    upgrade: succeed the one that runs";

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// TOML file with the flags as keys; flags and STICKY_… variables come before it
    #[arg(long, env = "STICKY_CONFIG", value_name = "FILE", help_heading = "Operation")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The flags when there are none: what the environment says.
#[derive(Debug, Parser)]
#[command(name = "sticky run")]
struct Environment {
    #[command(flatten)]
    run: RunArgs,
}

impl RunArgs {
    pub(super) fn from_environment() -> Self {
        Environment::parse_from(["sticky run"]).run
    }

    /// The checked configuration.
    pub(super) fn config(self, places: &PlaceFlags) -> Result<Config, Failure> {
        let file = match self.config {
            Some(path) => ConfigFile::read(&path).map_err(|errors| Failure::usage(&errors))?,
            None => ConfigFile::default(),
        };
        checked(self.settings.or(places.settings()), &file)
    }
}

/// `settings` over those of the file, checked; each mistake at its place.
pub(super) fn checked(settings: Settings, file: &ConfigFile) -> Result<Config, Failure> {
    Config::new(settings.or(file.settings())).map_err(|errors| {
        let lines = errors.iter().map(|invalid| match file.blame(invalid) {
            Some(error) => error.to_string(),
            None => format!("--{invalid}"),
        });
        Failure::usage(&lines.collect::<Vec<_>>())
    })
}
