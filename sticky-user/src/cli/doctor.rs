//! `sticky doctor`: for which configuration this host is checked.

use std::path::PathBuf;

use clap::Args;

use super::PlaceFlags;
use super::run_args::{RunArgs, checked};
use crate::config::{ConfigFile, Settings};
use crate::doctor;
use crate::failure::Failure;

pub(super) const HELP: &str = "\
Checks this host for what `sticky run` would be given: by --config, and by STICKY_… variables.
While sticky runs, its own state is looked at as well.

Examples:
  sticky doctor
  sticky doctor --config /etc/sticky.toml --json

Exit code 0: nothing stands in the way; 1: a check failed.";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// TOML file of `sticky run`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    pub(super) fn run(self, places: &PlaceFlags) -> Result<(), Failure> {
        let config = match self.config {
            Some(path) => {
                let file = ConfigFile::read(&path).map_err(|errors| Failure::usage(&errors))?;
                checked(Settings::default().or(places.settings()), &file)?
            }
            None => RunArgs::from_environment().config(places)?,
        };
        doctor::run(&config, self.json)
    }
}
