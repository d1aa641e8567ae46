//! What is still to be sent of a request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use hyper::body::Body;
use tokio::net::TcpStream;

use super::head;
use crate::proxy::body::RequestBody;
use crate::proxy::wire;

/// The end of a chunk's data, and of all chunks.
const LINE_END: &[u8] = b"\r\n";
const LAST: &[u8] = b"0\r\n\r\n";

/// A request's head, and its body one piece at a time.
#[derive(Default)]
pub(super) struct Outbox {
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
pub(super) enum Unsent {
    /// The backend does not take it.
    Refused(io::Error),
    /// The client's body broke off.
    Broken,
}

impl Outbox {
    /// Takes the next request, when the last one is sent.
    pub(super) fn put(&mut self, parts: &Parts, body: RequestBody) {
        self.body = Some(body).filter(|body| !body.is_end_stream());
        self.chunked = self.body.is_some() && !parts.headers.contains_key(CONTENT_LENGTH);
        self.text.clear();
        self.sent = 0;
        head::write(parts, self.chunked, &mut self.text);
    }

    /// Nothing is to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    /// Sends what there is of a request without a body; an error if nothing of it is on its way.
    pub(super) fn begin(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.body.is_some() {
            return Ok(());
        }
        match stream.try_write(&self.text) {
            Ok(sent) => self.sent = sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ready when all is sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            // The head goes with the first piece of the body, if that is here.
            let more = self.piece.is_empty() && self.tail.is_empty() && self.poll_piece(cx)?;
            if !self.is_flushed() {
                ready!(self.poll_flush(cx, stream)).map_err(Unsent::Refused)?;
            } else if self.body.is_none() {
                return Poll::Ready(Ok(()));
            } else if !more {
                return Poll::Pending;
            }
        }
    }

    /// Asks for the next piece of the body; whether there is one, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Result<bool, Unsent> {
        let Some(body) = &mut self.body else { return Ok(false) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(false) };
        let frame = frame.transpose().map_err(|_| Unsent::Broken)?;
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

    fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let text = self.text.get(self.sent..).unwrap_or_default();
            let bufs = [text, &self.piece, self.tail].map(IoSlice::new);
            let mut sent = ready!(wire::poll_write_vectored(stream, cx, &bufs))?;
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
