//! What is still to be sent of a request.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::CONTENT_LENGTH;
use hyper::body::Body;
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use super::head::{self, Ask};
use crate::proxy::body::{BodyError, RequestBody};
use crate::proxy::wire;

/// The end of a chunk's data, and of all chunks.
const LINE_END: &[u8] = b"\r\n";
const LAST: &[u8] = b"0\r\n\r\n";

/// A request's head, and its body one piece at a time.
pub(super) struct Outbox {
    half: OwnedWriteHalf,
    /// The head, or the size of a chunk, of which this much is sent.
    text: Vec<u8>,
    sent: usize,
    piece: Bytes,
    /// What stands behind the piece.
    tail: &'static [u8],
    /// There is more of it.
    body: Option<RequestBody>,
    chunked: bool,
}

/// Why a request could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the backend does not take it: {0}")]
    Refused(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] BodyError),
}

impl Outbox {
    pub(super) fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
            text: Vec::new(),
            sent: 0,
            piece: Bytes::new(),
            tail: b"",
            body: None,
            chunked: false,
        }
    }

    /// Takes the next request, when the last one is sent, and sends what there is of it if it has no body; an error if nothing
    /// of it is on its way. The head is written to `text` first.
    pub(super) fn begin(
        &mut self,
        ask: Ask<'_>,
        body: RequestBody,
        text: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.body = Some(body).filter(|body| !body.is_end_stream());
        self.chunked = self.body.is_some() && !ask.headers.contains_key(CONTENT_LENGTH);
        text.clear();
        head::write(ask, self.chunked, text);
        let sent = if self.body.is_some() { 0 } else { self.try_send(text)? };
        self.text.extend_from_slice(text.get(sent..).unwrap_or_default());
        Ok(())
    }

    fn try_send(&self, text: &[u8]) -> io::Result<usize> {
        match wire::try_write(self.half.as_ref(), text) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Nothing is to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    /// Ready when all is sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            // The head goes with the first piece of the body, if that is here.
            let more = self.piece.is_empty() && self.tail.is_empty() && self.poll_piece(cx)?;
            if !self.is_flushed() {
                ready!(self.poll_flush(cx))?;
            } else if self.body.is_none() {
                return Poll::Ready(Ok(()));
            } else if !more {
                return Poll::Pending;
            }
        }
    }

    /// Sends all that is left, and leaves the connection open: a backend may take the end of one direction for that of both.
    pub(super) async fn finish(mut self) {
        if let Err(error) = poll_fn(|cx| self.poll(cx)).await {
            debug!(%error, "the rest of a request was not sent");
        }
        self.half.forget();
    }

    /// The half of the socket that it sent on.
    pub(super) fn into_half(self) -> OwnedWriteHalf {
        self.half
    }

    /// Asks for the next piece of the body; whether there is one, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Result<bool, Unsent> {
        let Some(body) = &mut self.body else { return Ok(false) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(false) };
        let frame = frame.transpose()?;
        // Trailers are not passed on.
        let piece = frame.map(|frame| frame.into_data().unwrap_or_default());
        let ended = piece.is_none() || body.is_end_stream();
        self.piece = piece.unwrap_or_default();
        if self.chunked && !self.piece.is_empty() {
            self.text.extend_from_slice(format!("{:x}\r\n", self.piece.len()).as_bytes());
            self.tail = if ended { b"\r\n0\r\n\r\n" } else { LINE_END };
        } else if self.chunked && ended {
            self.tail = LAST;
        }
        if ended {
            self.body = None;
        }
        Ok(true)
    }

    fn is_flushed(&self) -> bool {
        self.sent == self.text.len() && self.piece.is_empty() && self.tail.is_empty()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let text = self.text.get(self.sent..).unwrap_or_default();
            let bufs = [text, &self.piece, self.tail].map(IoSlice::new);
            let mut sent = ready!(wire::poll_write_vectored(self.half.as_ref(), cx, &bufs))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let mut part = |length: usize| {
                let part = sent.min(length);
                sent -= part;
                part
            };
            self.sent += part(text.len());
            self.piece.advance(part(self.piece.len()));
            self.tail.advance(part(self.tail.len()));
        }
        self.text.clear();
        self.sent = 0;
        // It would keep the buffer it was read into.
        self.piece = Bytes::new();
        Poll::Ready(Ok(()))
    }
}
