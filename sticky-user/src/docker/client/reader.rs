//! Answers, read while they come: what was read is dropped at once, so that what follows comes into the same memory.

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// The longest answer that there is room for before it has come.
const TRUST: usize = 16 << 20;

/// Who reads an answer.
pub(crate) trait Reader: Send {
    /// One begins, as long as this if that is known. What came before broke off: it comes anew.
    fn begin(&mut self, length: Option<u64>);

    /// The next piece of it, which may end anywhere.
    fn piece(&mut self, piece: &[u8]);
}

/// Takes all.
impl Reader for Vec<u8> {
    fn begin(&mut self, length: Option<u64>) {
        self.clear();
        let length = length.and_then(|length| usize::try_from(length).ok());
        self.reserve_exact(length.unwrap_or_default().min(TRUST));
    }

    fn piece(&mut self, piece: &[u8]) {
        self.extend_from_slice(piece);
    }
}

pub(super) async fn read(mut body: Incoming, reader: &mut dyn Reader) -> hyper::Result<()> {
    reader.begin(body.size_hint().exact());
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            reader.piece(&piece);
        }
    }
    Ok(())
}
