//! Memory that a connection needs only while it is asked and answers. The connections of a worker use the same in turn: where
//! there are thousands, what each kept for itself would have left the processor's cache, and idle ones keep none.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;

/// As many of a kind are kept as are in use at once where bodies are read piece by piece.
const MOST: usize = 32;

#[derive(Default)]
pub(super) struct Stash {
    reads: RefCell<Vec<BytesMut>>,
    headers: RefCell<Vec<HeaderMap>>,
    /// For one head, which is written and sent without a wait between.
    pub text: RefCell<Vec<u8>>,
}

impl Stash {
    /// Empty, with room or without.
    pub(super) fn read(&self) -> BytesMut {
        self.reads.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_read(&self, mut read: BytesMut) {
        read.clear();
        let mut reads = self.reads.borrow_mut();
        if reads.len() < MOST && read.capacity() > 0 {
            reads.push(read);
        }
    }

    /// Empty.
    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_headers(&self, mut headers: HeaderMap) {
        headers.clear();
        let mut kept = self.headers.borrow_mut();
        if kept.len() < MOST {
            kept.push(headers);
        }
    }
}
