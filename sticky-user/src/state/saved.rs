//! The last snapshot on disk: a line with all of it, then one for each change, until the changes are as long as the whole.
//! To write all of a large cluster out again would be a good part of what a change costs.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{StateDir, is_missing, replace};
use crate::model::{self, Service, Snapshot};

pub(super) const SNAPSHOT: &str = "snapshot.json";
/// Changes may be as long as this in any case.
const ROOM: u64 = 64 * 1024;

/// A snapshot and when the provider read it.
#[derive(Debug)]
pub struct Saved {
    pub read_at: SystemTime,
    pub snapshot: Snapshot,
}

/// One line.
#[derive(Serialize, Deserialize)]
struct Line<S, I> {
    read_at: SystemTime,
    /// The ids of all services, where they are others than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<I>>,
    /// Those that are new or other than before.
    services: Vec<S>,
}

/// Saves one snapshot after the other.
#[derive(Debug)]
pub struct Saver {
    state: StateDir,
    /// `None`: nobody knows what the file has.
    journal: Option<Journal>,
}

/// An open file.
#[derive(Debug)]
struct Journal {
    file: File,
    last: Vec<Arc<Service>>,
    /// Length of the first line, and of all after it.
    whole: u64,
    changes: u64,
}

impl Saver {
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        Self { state, journal: None }
    }

    /// Keeps a snapshot for a start without the provider. A full disk is a warning, not an end.
    pub fn save(&mut self, snapshot: &Snapshot, read_at: SystemTime) {
        let path = self.state.path().join(SNAPSHOT);
        let saved = match self.journal.take().filter(Journal::goes_on) {
            Some(mut journal) => journal.append(snapshot, read_at).map(|()| journal),
            None => Journal::begin(&path, snapshot, read_at),
        };
        match saved {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the snapshot cannot be saved; a start without the provider would serve an older one");
            }
        }
    }
}

impl Journal {
    fn begin(path: &Path, snapshot: &Snapshot, read_at: SystemTime) -> io::Result<Self> {
        let last = snapshot.services.clone();
        let ids = Some(ids(&last).collect());
        let line = Line { read_at, ids, services: last.iter().map(|s| &**s).collect() };
        let file = replace(path, |file| {
            serde_json::to_writer(&mut *file, &line)?;
            file.write_all(b"\n")
        })?;
        Ok(Self { whole: file.metadata()?.len(), changes: 0, file, last })
    }

    /// Changes fit in, and the file is still the one that is read.
    fn goes_on(&self) -> bool {
        self.changes < self.whole.max(ROOM) && self.file.metadata().is_ok_and(|of| of.nlink() > 0)
    }

    fn append(&mut self, snapshot: &Snapshot, read_at: SystemTime) -> io::Result<()> {
        let (last, now) = (&self.last, &snapshot.services);
        let in_place = model::in_place(last, now);
        let services: Vec<&Service> = if in_place {
            let pairs = last.iter().zip(now);
            pairs.filter(|(last, now)| !Arc::ptr_eq(last, now)).map(|(_, now)| &**now).collect()
        } else {
            let before: HashSet<*const Service> = last.iter().map(Arc::as_ptr).collect();
            let other = |service: &&Arc<Service>| !before.contains(&Arc::as_ptr(service));
            now.iter().filter(other).map(|service| &**service).collect()
        };
        let ids = (!in_place).then(|| ids(now).collect());
        let mut text = serde_json::to_vec(&Line::<&Service, &str> { read_at, ids, services })?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.changes += text.len() as u64;
        model::take_over(&mut self.last, &snapshot.services);
        Ok(())
    }
}

fn ids(services: &[Arc<Service>]) -> impl Iterator<Item = &str> {
    services.iter().map(|service| service.id.as_str())
}

/// The last snapshot in a state directory, which need not be ours. `None`: there is none that this version can read.
#[must_use]
pub fn read(dir: &Path) -> Option<Saved> {
    let path = dir.join(SNAPSHOT);
    let read = fs::read(&path).map_err(anyhow::Error::from);
    match read.and_then(|text| fold(&text)) {
        Ok(saved) => Some(saved),
        Err(error) if is_missing(&error) => None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the last snapshot cannot be read, going on without it");
            None
        }
    }
}

/// What the lines come to. A last one without an end was being written when the host went down: what was before it counts.
fn fold(text: &[u8]) -> anyhow::Result<Saved> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let (mut last_read, mut order) = (None, Vec::new());
    let mut by_id: HashMap<String, Arc<Service>> = HashMap::new();
    for line in lines {
        let Line::<Arc<Service>, String> { read_at, ids, services } = serde_json::from_slice(line)?;
        last_read = Some(read_at);
        order = ids.unwrap_or(order);
        by_id.extend(services.into_iter().map(|service| (service.id.clone(), service)));
    }
    let read_at = last_read.context("it has no whole line")?;
    let services = order.iter().filter_map(|id| by_id.remove(id)).collect();
    Ok(Saved { read_at, snapshot: Snapshot { services } })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::model::ServiceConfig;

    fn service(id: &str, name: &str) -> Arc<Service> {
        Arc::new(Service {
            id: id.into(),
            name: name.into(),
            config: ServiceConfig::default(),
            publish: Vec::new(),
            backends: Vec::new(),
            errors: Vec::new(),
        })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn opened(dir: &Path) -> (StateDir, Saver, fs::File) {
        let state = StateDir::open(dir).unwrap();
        let mut saver = Saver::new(state.clone());
        saver.save(&Snapshot { services: vec![service("a", "a"), service("b", "b")] }, at(0));
        let file = fs::OpenOptions::new().append(true).open(dir.join(SNAPSHOT)).unwrap();
        (state, saver, file)
    }

    #[test]
    fn keeps_the_last_snapshot_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert!(state.last_snapshot().is_none());
        let mut saver = Saver::new(state.clone());
        let mut now = Snapshot { services: vec![service("a", "old")] };
        let mut save = |now: &Snapshot, second| {
            saver.save(now, at(second));
            let saved = state.last_snapshot().unwrap();
            assert_eq!((&saved.snapshot, saved.read_at), (now, at(second)));
        };
        save(&now, 1);
        now.services.insert(0, service("b", "new"));
        save(&now, 2);
        now.services[1] = service("a", "other");
        save(&now, 3);
        save(&now, 4);
        now.services.remove(0);
        save(&now, 5);
        let long = "long".repeat(1000);
        for second in 6..60 {
            now.services[0] = service("a", &format!("{long}{second}"));
            save(&now, second);
        }
        let length = fs::metadata(state.path().join(SNAPSHOT)).unwrap().len();
        assert!(length < 2 * ROOM, "{length} bytes");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_line_that_was_being_written_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let (state, mut saver, mut file) = opened(dir.path());
        file.write_all(b"{\"read_at\":{\"secs").unwrap();
        assert_eq!(state.last_snapshot().unwrap().snapshot.services.len(), 2);
        // Who starts then has a file of its own.
        saver = Saver { journal: None, ..saver };
        saver.save(&Snapshot { services: vec![service("c", "c")] }, at(1));
        assert_eq!(state.last_snapshot().unwrap().snapshot.services[0].id, "c");
    }

    #[test]
    fn a_file_that_was_removed_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (state, mut saver, _) = opened(dir.path());
        fs::remove_file(dir.path().join(SNAPSHOT)).unwrap();
        saver.save(&Snapshot { services: vec![service("a", "a")] }, at(1));
        assert_eq!(state.last_snapshot().unwrap().snapshot.services.len(), 1);
    }

    #[test]
    fn garbage_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for garbage in ["", "{\"read_at\":", "{\"read_at\":\n", "{\"read_at\":1,\"snapshot\":{}}\n"]
        {
            fs::write(dir.path().join(SNAPSHOT), garbage).unwrap();
            assert!(state.last_snapshot().is_none(), "{garbage}");
        }
    }
}
