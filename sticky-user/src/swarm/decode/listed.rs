//! A list of all tasks: megabytes that are mostly as they were a minute ago. An entry that is there word for word as it was in
//! the last list is not read again.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::{Task, task};
use crate::swarm::view::TaskView;

/// One that is new, gone or other shifts the places of the entries after it, so that each is looked for this far.
const AHEAD: usize = 2;
/// And after one that had to be read, its last place is looked for this far.
const FAR: usize = 64;

/// What the last list said.
#[derive(Clone, Debug, Default)]
pub(in crate::swarm) struct Listed {
    hasher: RandomState,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Of its text, of which only the hash is kept.
    length: usize,
    hash: u64,
    /// `None`: it lacks what makes it a task.
    task: Option<Arc<TaskView>>,
}

impl Listed {
    /// The tasks of a list.
    pub(in crate::swarm) fn read(&mut self, text: &[u8]) -> serde_json::Result<Vec<Arc<TaskView>>> {
        match self.entries(text) {
            Some(entries) => {
                self.entries = entries;
                Ok(self.entries.iter().filter_map(|entry| entry.task.clone()).collect())
            }
            // Not as Docker writes it, but for a space perhaps.
            None => {
                let tasks: Vec<Task> = serde_json::from_slice(text)?;
                Ok(tasks.into_iter().filter_map(task).map(Arc::new).collect())
            }
        }
    }

    fn entries(&self, text: &[u8]) -> Option<Vec<Entry>> {
        let mut rest = text.trim_ascii().strip_prefix(b"[")?;
        if rest == b"]" {
            return Some(Vec::new());
        }
        let mut entries = Vec::with_capacity(self.entries.len());
        let mut next = 0;
        loop {
            let entry = match self.same(next, rest) {
                Some(place) => {
                    next = place + 1;
                    self.entries.get(place)?.clone()
                }
                None => {
                    let entry = self.entry(rest)?;
                    next = self.place_of(&entry, next).map_or(next, |place| place + 1);
                    entry
                }
            };
            rest = rest.get(entry.length..)?;
            entries.push(entry);
            match rest.split_first()? {
                (b',', after) => rest = after,
                (b']', []) => return Some(entries),
                _ => return None,
            }
        }
    }

    /// The place of an entry, here or just after, that this text begins with. An object ends with its text, so equal texts
    /// are equal objects, whatever follows.
    fn same(&self, next: usize, text: &[u8]) -> Option<usize> {
        let near = self.entries.iter().enumerate().skip(next).take(AHEAD);
        let same = |entry: &Entry| {
            text.get(..entry.length).is_some_and(|text| self.hasher.hash_one(text) == entry.hash)
        };
        near.into_iter().find(|(_, entry)| same(entry)).map(|(place, _)| place)
    }

    /// Reads the entry that this text begins with.
    fn entry(&self, text: &[u8]) -> Option<Entry> {
        let mut entries = serde_json::Deserializer::from_slice(text).into_iter::<Task>();
        let read = entries.next()?.ok()?;
        let length = entries.byte_offset();
        let hash = self.hasher.hash_one(text.get(..length)?);
        Some(Entry { length, hash, task: task(read).map(Arc::new) })
    }

    /// Where the same task was.
    fn place_of(&self, entry: &Entry, next: usize) -> Option<usize> {
        let id = &entry.task.as_ref()?.id;
        let near = self.entries.iter().enumerate().skip(next).take(FAR);
        let is_it = |known: &Entry| known.task.as_ref().is_some_and(|task| task.id == *id);
        near.into_iter().find(|(_, known)| is_it(known)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn text(tasks: &[(u32, &str)]) -> Vec<u8> {
        let tasks = tasks.iter().map(|(id, state)| {
            serde_json::json!({
                "ID": format!("{id}"), "ServiceID": "s", "Status": {"State": state}, "Spec": {"Labels": ["],{"]},
            })
        });
        serde_json::to_vec(&tasks.collect::<Vec<_>>()).unwrap()
    }

    /// Reads the list, and says which of its tasks were read anew.
    fn anew(listed: &mut Listed, text: &[u8]) -> Vec<String> {
        let known: HashSet<*const TaskView> =
            listed.entries.iter().flat_map(|entry| &entry.task).map(Arc::as_ptr).collect();
        let read = listed.read(text).unwrap();
        let fresh = Listed::default().read(text).unwrap();
        assert_eq!(read, fresh);
        let new = read.iter().filter(|task| !known.contains(&Arc::as_ptr(task)));
        new.map(|task| task.id.clone()).collect()
    }

    #[test]
    fn only_what_is_other_is_read() {
        let all: Vec<_> = (0..200).map(|id| (id, "running")).collect();
        let mut listed = Listed::default();
        assert_eq!(anew(&mut listed, &text(&all)).len(), 200);
        assert!(anew(&mut listed, &text(&all)).is_empty());
        let mut other = all.clone();
        (other[7].1, other[8].1, other[199].1) = ("failed", "shutdown", "failed");
        assert_eq!(anew(&mut listed, &text(&other)), ["7", "8", "199"]);
        other.drain(20..30);
        other.remove(1);
        // After many that are gone, the first is read to know where the list goes on.
        assert_eq!(anew(&mut listed, &text(&other)), ["30"]);
        other.insert(3, (1000, "new"));
        other.push((1001, "new"));
        assert_eq!(anew(&mut listed, &text(&other)), ["1000", "1001"]);
        other.reverse();
        assert!(anew(&mut listed, &text(&other)).len() > 100);
        assert!(anew(&mut listed, &text(&other)).is_empty());
        assert!(anew(&mut listed, b"[]").is_empty());
        assert_eq!(anew(&mut listed, &text(&all)).len(), 200);
    }

    #[test]
    fn any_list_is_read_and_nothing_else() {
        let mut listed = Listed::default();
        let mut ids = |text: &str| {
            let read = listed.read(text.as_bytes());
            read.map(|tasks| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>()).ok()
        };
        let known = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        let [a, b] = ["a", "b"].map(|id| format!(r#"{{"ID":"{id}","ServiceID":"s"}}"#));
        assert_eq!(ids(&format!("[{a},{b}]\n")), known(&["a", "b"]));
        assert_eq!(ids(&format!(" [ {a} , {b} ] ")), known(&["a", "b"]));
        assert_eq!(ids(&format!(r#"[{a},{{"ServiceID":"s"}},{b}]"#)), known(&["a", "b"]));
        assert_eq!(ids("[]"), known(&[]));
        for wrong in ["", "[", "{}", "null", "7"] {
            assert_eq!(ids(wrong), None, "{wrong}");
        }
        for wrong in
            [format!("[{a}"), format!("[{a},]"), format!("[{a}{b}]"), format!("[{a},{b}]]")]
        {
            assert_eq!(ids(&wrong), None, "{wrong}");
        }
    }
}
