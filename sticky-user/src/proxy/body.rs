//! Bodies on their way: one piece at a time, in both directions, so that memory does not grow with them.

use std::cell::Cell;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connection::Phase;
use super::exchange::Exchange;
use super::patience::Patience;
use super::upstream::LinkError;

/// How far a request's body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Reading,
    Done,
    /// The client sent nothing for too long.
    Stalled,
    /// The client went away, or sent what is not HTTP.
    Broken,
}

/// A request's body as seen by who waits for the response.
pub(super) struct Upload {
    progress: Cell<Progress>,
    /// The next piece is the client's to send.
    waits: Cell<bool>,
    pieces: Cell<u64>,
}

impl Upload {
    pub(super) const fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Whether it has moved on since `pieces` was this function's last answer, or waits for the client; the new number,
    /// or `None` if the backend does not take it.
    pub(super) fn moved_on(&self, pieces: u64) -> Option<u64> {
        let now = self.pieces.get();
        let moves = self.waits.get() || now != pieces;
        (self.progress.get() == Progress::Reading && moves).then_some(now)
    }
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("nothing came for too long")]
    Stalled,
    #[error(transparent)]
    Broken(hyper::Error),
    #[error(transparent)]
    Upstream(#[from] LinkError),
}

/// Body of a request towards a backend.
pub(super) enum RequestBody {
    Empty,
    /// Elsewhere, since a request goes through many hands.
    Streaming(Box<Streaming>),
}

pub(super) struct Streaming {
    inner: Incoming,
    upload: Rc<Upload>,
    patience: Patience,
    phase: Option<Arc<Phase>>,
}

impl RequestBody {
    /// The body of a request, and how to see how far it is; `None` if it is empty.
    pub(super) fn new(
        inner: Incoming,
        limit: Duration,
        phase: Option<Arc<Phase>>,
    ) -> (Self, Option<Rc<Upload>>) {
        if inner.is_end_stream() {
            return (Self::Empty, None);
        }
        let upload = Rc::new(Upload {
            progress: Cell::new(Progress::Reading),
            waits: Cell::new(false),
            pieces: Cell::new(0),
        });
        let patience = Patience::new(limit);
        let streaming = Streaming { inner, upload: upload.clone(), patience, phase };
        (Self::Streaming(Box::new(streaming)), Some(upload))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(streaming) => streaming.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(streaming) => streaming.inner.size_hint(),
        }
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { inner, upload, patience, phase } = self;
        match Pin::new(&mut *inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                patience.moved();
                upload.waits.set(false);
                upload.pieces.set(upload.pieces.get() + 1);
                match &frame {
                    Some(Err(_)) => upload.progress.set(Progress::Broken),
                    Some(Ok(_)) if !inner.is_end_stream() => {}
                    _ => {
                        upload.progress.set(Progress::Done);
                        if let Some(phase) = phase {
                            phase.read();
                        }
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Poll::Pending => {
                upload.waits.set(true);
                ready!(patience.poll(cx));
                upload.progress.set(Progress::Stalled);
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }
}

/// Body of a response, and the exchange that ends with it.
pub(super) struct ResponseBody {
    kind: Kind,
    exchange: Option<Box<Exchange>>,
    /// Others have their turns before the next piece.
    rests: bool,
}

/// A piece of this length is one of a long body.
const LONG: usize = 16 * 1024;

enum Kind {
    Text(Option<Bytes>),
    /// What the exchange's backend sends, with how long it may be silent, if there is a limit.
    Upstream(Option<Patience>),
}

impl ResponseBody {
    /// What a backend sends; it may be silent for as long as `silence`.
    pub(super) fn upstream(silence: Option<Duration>, mut exchange: Box<Exchange>) -> Self {
        if exchange.left() == Some(0) {
            exchange.complete();
            return Self { kind: Kind::Text(None), exchange: Some(exchange), rests: false };
        }
        Self {
            kind: Kind::Upstream(silence.map(Patience::new)),
            exchange: Some(exchange),
            rests: false,
        }
    }

    /// What we say ourselves.
    pub(super) fn text(text: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.sent(text.len());
        exchange.complete();
        Self {
            kind: Kind::Text(Some(text).filter(|t| !t.is_empty())),
            exchange: Some(exchange),
            rests: false,
        }
    }

    /// Nothing, and an exchange that goes on elsewhere.
    pub(super) const fn detached() -> Self {
        Self { kind: Kind::Text(None), exchange: None, rests: false }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let patience = match &mut this.kind {
            Kind::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Upstream(patience) => patience,
        };
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        if mem::take(&mut this.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(piece) = exchange.poll_body(cx) else {
            let Some(patience) = patience else { return Poll::Pending };
            return patience.poll(cx).map(|()| Some(Err(BodyError::Stalled)));
        };
        if let Some(patience) = patience {
            patience.moved();
        }
        this.rests = matches!(&piece, Some(Ok(piece)) if piece.len() >= LONG);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece?))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let left = match (&self.kind, &self.exchange) {
            (Kind::Upstream(_), Some(exchange)) => exchange.left(),
            (Kind::Text(Some(text)), _) => Some(text.len() as u64),
            _ => Some(0),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
