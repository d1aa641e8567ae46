//! `sticky keys`: the file of keys that all nodes of a cluster share.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

use crate::failure::Failure;
use crate::keys;

pub(super) const HELP: &str = "\
Examples:
  (umask 077; sticky keys generate > /etc/sticky/keys)     for --cookie-key-file, the same on all nodes
  sticky keys rotate /etc/sticky/keys                      a new key seals, the old ones still open
  sticky keys list /etc/sticky/keys";

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Print a new key file
    Generate,
    /// Put a new cookie key first and replace the file in one step
    Rotate { file: PathBuf },
    /// Show the ids of the keys, never the keys
    List { file: PathBuf },
}

pub(super) fn run(command: Keys) -> Result<(), Failure> {
    match command {
        Keys::Generate => {
            anstream::print!("{}", keys::generate().context("no key can be made")?);
        }
        Keys::Rotate { file } => {
            anstream::println!("cookie {} seals now", keys::file::rotate(&file)?);
        }
        Keys::List { file } => {
            for (kind, id) in keys::file::list(&file)? {
                anstream::println!("{kind} {id}");
            }
        }
    }
    Ok(())
}
