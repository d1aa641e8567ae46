//! How many clients have a record. To count them is to walk the whole map, however few there are, so a count is kept for as
//! long as nobody can have become known.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sticky_common::outcome::Outcome;
use sticky_common::types::{ClientKey, Record};

use super::counters;
use super::load::Maps;
use crate::control::Census;

/// Records read per system call.
pub const CHUNK: u32 = 4096;

/// The last count.
#[derive(Default)]
pub struct Tally {
    last: Mutex<Option<(Age, Arc<Census>)>>,
    /// How often this process wrote a record or removed one.
    writes: AtomicU64,
}

/// What moves with every record that comes or goes, except those that another process of sticky writes while it leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Age {
    /// Packets of frontends. A program counts a packet after its record, so what is counted before the records are read is
    /// among them.
    packets: u64,
    writes: u64,
}

impl Tally {
    /// A record was written, or removed.
    pub fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// The clients with a record, by service and by newest backend.
    pub fn census(&self, maps: &Maps) -> io::Result<Arc<Census>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = Age { packets: packets(maps)?, writes: self.writes.load(Ordering::Relaxed) };
        if let Some((_, census)) = last.as_ref().filter(|(then, _)| *then == age) {
            return Ok(Arc::clone(census));
        }
        let census = Arc::new(count(maps)?);
        *last = Some((age, Arc::clone(&census)));
        Ok(census)
    }
}

/// All that was counted but what is for no frontend. A settled slot's packet is not, but makes nobody known by itself: the
/// first packet of its connection was, and so are its replies.
fn packets(maps: &Maps) -> io::Result<u64> {
    let ours = Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::NotOurs);
    ours.map(|outcome| counters::counted(maps, *outcome)).sum()
}

fn count(maps: &Maps) -> io::Result<Census> {
    let mut census = Census::default();
    let mut count = |key: &ClientKey, record: &Record| {
        *census.services.entry(key.service).or_default() += 1;
        *census.backends.entry(record.backends[0]).or_default() += 1;
    };
    maps.clients.for_each(CHUNK, &mut count)?;
    maps.candidates.for_each(CHUNK, &mut count)?;
    Ok(census)
}
