//! The attributes of cookies that a worker read last, and those that it wrote. An application sets the same ones with every
//! session that begins, and to know them again takes a third of what reading and writing them does.

use std::cell::{Ref, RefCell};

use super::learn::Change;

/// Of one worker. What is known counts for one second, since a lifetime says how many are left.
#[derive(Default)]
pub(super) struct Repeats {
    read: RefCell<Option<Known<Box<[u8]>>>>,
    written: RefCell<Option<Known<String>>>,
}

/// A change, and the text that it was read from or written as.
struct Known<T> {
    at: u64,
    change: Change,
    text: T,
}

impl Repeats {
    /// What attributes say `now`, which is asked for where that is not known.
    pub(super) fn read(
        &self,
        attributes: &[u8],
        now: u64,
        read: impl FnOnce() -> Option<Change>,
    ) -> Option<Change> {
        if let Some(Known { at, change, text }) = &*self.read.borrow()
            && *at == now
            && **text == *attributes
        {
            return Some(change.clone());
        }
        let change = read()?;
        self.read.replace(Some(Known { at: now, change: change.clone(), text: attributes.into() }));
        Some(change)
    }

    /// How a change is written `now`.
    pub(super) fn written(
        &self,
        change: &Change,
        now: u64,
        write: impl FnOnce() -> Option<String>,
    ) -> Option<Ref<'_, str>> {
        let known = |last: &Known<String>| last.at == now && last.change == *change;
        if !self.written.borrow().as_ref().is_some_and(known) {
            let text = write()?;
            self.written.replace(Some(Known { at: now, change: change.clone(), text }));
        }
        Ref::filter_map(self.written.borrow(), |last| last.as_ref().map(|last| &*last.text)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::seal::Attributes;
    use super::*;

    fn attributes(path: &str) -> Rc<Attributes> {
        Rc::new(Attributes { path: path.to_owned(), ..Attributes::default() })
    }

    fn change(path: &str) -> Option<Change> {
        Some(Change::Set(attributes(path)))
    }

    #[test]
    fn the_same_attributes_in_the_same_second_are_known() {
        let repeats = Repeats::default();
        let read = |text: &[u8], now, path| repeats.read(text, now, || change(path));
        assert_eq!(read(b"; Path=/a", 1, "/a"), change("/a"));
        assert_eq!(read(b"; Path=/a", 1, "not asked for"), change("/a"));
        assert_eq!(read(b"; Path=/a", 2, "/later"), change("/later"));
        assert_eq!(read(b"; Path=/b", 2, "/b"), change("/b"));
        assert_eq!(repeats.read(b"; Path=/c", 2, || None), None);
        assert_eq!(read(b"; Path=/b", 2, "not asked for"), change("/b"));
    }

    #[test]
    fn the_same_change_in_the_same_second_is_written_once() {
        let repeats = Repeats::default();
        let written = |path, now, text: &str| {
            let write = || Some(text.to_owned());
            repeats.written(&change(path).unwrap(), now, write).unwrap().to_owned()
        };
        assert_eq!(written("/a", 1, "first"), "first");
        assert_eq!(written("/a", 1, "not asked for"), "first");
        assert_eq!(written("/a", 2, "later"), "later");
        assert_eq!(written("/b", 2, "another"), "another");
        assert!(repeats.written(&change("/c").unwrap(), 2, || None).is_none());
        let deleted = Change::Delete(attributes("/b"));
        let write = || Some("gone".to_owned());
        assert_eq!(&*repeats.written(&deleted, 2, write).unwrap(), "gone");
    }
}
