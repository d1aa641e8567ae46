//! `sticky detach`: leaves the host as it was before sticky.

use crate::config::Places;
use crate::datapath;
use crate::failure::Failure;
use crate::socket::{Claim, ClaimError};

pub(super) const HELP: &str = "\
Layer 4 stops: the ports go back to Docker, and established connections break.
The state directory stays, so that keys and drains are there for the next start.";

pub(super) fn run(places: &Places, force: bool) -> Result<(), Failure> {
    // Held to the end, so that nobody starts meanwhile.
    let claim = match Claim::new(&places.socket) {
        Ok(claim) => Some(claim),
        Err(_) if force => None,
        Err(error @ ClaimError::Running { .. }) => {
            return Err(Failure::Failed(anyhow::anyhow!(
                "{error}; or detach all the same with --force"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let removed = datapath::detach(&places.pin_dir)?;
    drop(claim);
    // Made for the socket; one that somebody named with --socket stays.
    let default = Places::default();
    if let Some(dir) = default.socket.parent().filter(|_| places.socket == default.socket) {
        // It stays while something else is in it, or if it never was there.
        let _ = std::fs::remove_dir(dir);
    }
    let pins = places.pin_dir.display();
    match removed {
        0 => anstream::println!("nothing of sticky is attached ({pins})"),
        _ => anstream::println!("removed {removed} programs, links and maps ({pins})"),
    }
    Ok(())
}
