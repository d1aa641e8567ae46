//! Values of headers that are made for one response each. They are gone when its head is written, so they share memory that is
//! used again and again, and none has its own to ask for and to give back.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderValue;

/// Bytes that are made room for at once.
const ROOM: usize = 8 * 1024;
/// Less room than this is not begun in; a longer value takes more.
const USUAL: usize = 512;

/// Of one worker.
#[derive(Default)]
pub(super) struct Lines(RefCell<BytesMut>);

impl Lines {
    /// What `write` appends; nothing if it says so, or if that is no valid value.
    pub(super) fn make(
        &self,
        write: impl FnOnce(&mut BytesMut) -> Option<()>,
    ) -> Option<HeaderValue> {
        let mut room = self.0.borrow_mut();
        if room.capacity() < USUAL {
            room.reserve(ROOM);
        }
        let written = write(&mut room);
        let line = room.split();
        written?;
        HeaderValue::from_maybe_shared(line.freeze()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_text() {
        let lines = Lines::default();
        let make = |text: String| {
            lines.make(|out| {
                out.extend_from_slice(text.as_bytes());
                Some(())
            })
        };
        let texts: Vec<String> = (0..1000).map(|n| format!("{n}{}", "x".repeat(n))).collect();
        let all: Vec<_> = texts.iter().cloned().map(make).collect();
        assert!(texts.iter().zip(all).all(|(text, line)| line.unwrap() == **text));
        assert_eq!(make("a\nb".to_owned()), None);
        let given_up = lines.make(|out| {
            out.extend_from_slice(b"begun");
            None
        });
        assert_eq!(given_up, None);
        assert_eq!(make("whole".to_owned()).unwrap(), "whole");
    }
}
