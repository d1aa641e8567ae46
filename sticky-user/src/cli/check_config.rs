//! `sticky check-config`: every mistake of a configuration or of a file of services, without running anything.

use std::fs;
use std::path::Path;

use anyhow::anyhow;

use super::PlaceFlags;
use super::run_args::{RunArgs, checked};
use crate::config::{Config, ConfigFile, ProviderKind, Settings};
use crate::failure::Failure;
use crate::file_provider;
use crate::labels::Instance;

pub(super) const HELP: &str = "\
Examples:
  sticky check-config                      what the environment gives `sticky run`
  sticky check-config /etc/sticky.toml     a file for `sticky run --config`
  sticky check-config services.toml        a file for `sticky run --provider file:services.toml`

Exit code 0: nothing is wrong; 1: every mistake is on stderr, with its place.";

pub(super) fn run(file: Option<&Path>, places: &PlaceFlags) -> Result<(), Failure> {
    let checked = match file {
        Some(path) if is_services(path) => {
            services(path, &Instance::default()).map_err(|mistakes| Failure::usage(&mistakes))
        }
        Some(path) => ConfigFile::read(path)
            .map_err(|errors| Failure::usage(&errors))
            .and_then(|file| checked(Settings::default(), &file))
            .and_then(|config| with_services(&config)),
        None => {
            RunArgs::from_environment().config(places).and_then(|config| with_services(&config))
        }
    };
    checked.map_err(|failure| Failure::Failed(anyhow!("{failure}")))?;
    anstream::println!("{}: no mistakes", file.map_or("environment".into(), Path::to_string_lossy));
    Ok(())
}

/// Whether a file is one of services: those have a table that no configuration has. Of one that is no TOML either will do.
fn is_services(path: &Path) -> bool {
    let table = fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_some_and(|table| table.contains_key("service"))
        || path.file_name().is_some_and(|name| name.to_string_lossy().contains("services"))
}

/// A configuration is as good as the file of services that it names.
fn with_services(config: &Config) -> Result<(), Failure> {
    let ProviderKind::File(path) = &config.provider else { return Ok(()) };
    let instance = Instance { cluster: config.service_cluster.clone(), https: false };
    services(path, &instance).map_err(|mistakes| Failure::usage(&mistakes))
}

fn services(path: &Path, instance: &Instance) -> Result<(), Vec<String>> {
    let path_text = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| vec![format!("{path_text}: cannot be read: {error}; check the path")])?;
    let mistakes: Vec<_> = file_provider::check(&text, instance)
        .iter()
        .map(|mistake| format!("{path_text}:{mistake}"))
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}
