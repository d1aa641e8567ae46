//! `sticky check-config`: every mistake of a configuration or of a file of services, without running anything.

use std::path::Path;

use anyhow::anyhow;

use super::PlaceFlags;
use super::run_args::{RunArgs, checked};
use crate::config::{Config, ConfigFile, Settings};
use crate::failure::Failure;

pub(super) const HELP: &str = "\
Examples:
  sticky check-config                      what the environment gives `sticky run`
  sticky check-config /etc/sticky.toml     a file for `sticky run --config`
  sticky check-config services.toml        a file for `sticky run --provider file:services.toml`

Exit code 0: nothing is wrong; 1: every mistake is on stderr, with its place.";

pub(super) fn run(file: Option<&Path>, places: &PlaceFlags) -> Result<(), Failure> {
    let config = match file {
        Some(path) => ConfigFile::read(path)
            .map_err(|errors| Failure::usage(&errors))
            .and_then(|file| checked(Settings::default(), &file)),
        None => RunArgs::from_environment().config(places),
    };
    let _: Config = config.map_err(|failure| Failure::Failed(anyhow!("{failure}")))?;
    anstream::println!("{}: no mistakes", file.map_or("environment".into(), Path::to_string_lossy));
    Ok(())
}
