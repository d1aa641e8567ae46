//! The other end of the ring of captured packets, opened by its pins: `sticky run` need not be there.
#![expect(unsafe_code, reason = "a descriptor is handed to the runtime")]

mod directory;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aya::maps::{Map as AyaMap, MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use sticky_common::maps;
use sticky_common::types::capture::{Event, Request};
use tokio::io::unix::AsyncFd;

use super::load::chain;
use super::pins::Pins;
use super::sys::Map;
use super::{Error, sys};
pub use directory::{Directory, Tuple, Whose};

/// How long packets are wanted without another word.
const LEASE: Duration = Duration::from_secs(3);

/// A capture; it ends with the value, or by itself when its process is killed.
pub struct Tap {
    ring: AsyncFd<RingBuf<MapData>>,
    request: Map<u32, Request>,
    until: Map<u32, u64>,
    began: u64,
    /// Since when the monotonic clock counts.
    epoch: SystemTime,
}

/// A packet and what became of it.
pub struct Packet<'a> {
    pub event: Event,
    pub at: SystemTime,
    pub bytes: &'a [u8],
}

impl Tap {
    /// Begins. Inside a runtime.
    pub fn open(pin_dir: &Path, wanted: Request) -> Result<Self, Error> {
        let pins = Pins::open(pin_dir)?;
        let request: Map<u32, Request> = pins.open_map(maps::CAPTURE)?;
        let until: Map<u32, u64> = pins.open_map(maps::CAPTURE_UNTIL)?;
        let failed = |e: io::Error| Error::failed("cannot ask for packets", e);
        let began = monotonic();
        if until.get(&0).map_err(failed)?.is_some_and(|lease| lease > began)
            && let Some(other) = request.get(&0).map_err(failed)?
            && other.owner != wanted.owner
            && Path::new("/proc").join(other.owner.to_string()).exists()
        {
            return Err(Error::Capturing(other.owner));
        }
        let ring = MapData::from_pin(pins.map(maps::CAPTURED))
            .and_then(|data| RingBuf::try_from(AyaMap::RingBuf(data)))
            .map_err(|e| Error::failed("cannot open the ring of packets", chain(&e)))?;
        // SAFETY: the ring owns its descriptor for as long as it lives, and always names the same.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|e| failed(e.into()))?;
        request.set(&0, &wanted).map_err(failed)?;
        let epoch = SystemTime::now() - Duration::from_nanos(began);
        let tap = Self { ring, request, until, began, epoch };
        tap.go_on()?;
        Ok(tap)
    }

    /// Packets are wanted for some seconds more.
    pub fn go_on(&self) -> Result<(), Error> {
        let lease = monotonic() + LEASE.as_nanos() as u64;
        self.until.set(&0, &lease).map_err(|e| Error::failed("cannot ask for packets", e))
    }

    /// Waits for packets.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Shows the packets that are there, until `each` has enough (`false`).
    pub fn take(&mut self, mut each: impl FnMut(&Packet<'_>) -> bool) -> bool {
        while let Some(item) = self.ring.get_mut().next() {
            let Some((event, bytes)) = sys::split::<Event>(&item) else { continue };
            // What a capture left that was killed.
            if event.time < self.began {
                continue;
            }
            let captured = bytes.len().min(event.captured as usize);
            let at = self.epoch + Duration::from_nanos(event.time);
            if !each(&Packet { event, at, bytes: &bytes[..captured] }) {
                return false;
            }
        }
        true
    }

    /// No more packets are wanted than are there.
    pub fn end(&self) {
        // It would run out anyway.
        let _ = self.until.set(&0, &0);
    }

    /// Packets that found no room so far.
    pub fn lost(&self) -> u64 {
        self.request.get(&0).ok().flatten().map_or(0, |request| request.lost)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.end();
    }
}

fn monotonic() -> u64 {
    // Linux always has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| Duration::from(t).as_nanos() as u64)
}
