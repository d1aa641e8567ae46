//! Bodies on their way: one piece at a time, in both directions, so that memory does not grow with them.

use std::cell::Cell;
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
}

enum Kind {
    Text(Option<Bytes>),
    /// With how long the backend may be silent, if there is a limit.
    Upstream(Incoming, Option<Patience>),
}

impl ResponseBody {
    /// What a backend sends; it may be silent for as long as `silence`.
    pub(super) fn upstream(
        inner: Incoming,
        silence: Option<Duration>,
        mut exchange: Box<Exchange>,
    ) -> Self {
        if inner.is_end_stream() {
            exchange.complete();
            return Self { kind: Kind::Text(None), exchange: Some(exchange) };
        }
        let patience = silence.map(Patience::new);
        Self { kind: Kind::Upstream(inner, patience), exchange: Some(exchange) }
    }

    /// What we say ourselves.
    pub(super) fn text(text: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.sent(text.len());
        exchange.complete();
        Self { kind: Kind::Text(Some(text).filter(|t| !t.is_empty())), exchange: Some(exchange) }
    }

    /// Nothing, and an exchange that goes on elsewhere.
    pub(super) const fn detached() -> Self {
        Self { kind: Kind::Text(None), exchange: None }
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
        let (inner, patience) = match &mut this.kind {
            Kind::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Upstream(inner, patience) => (inner, patience),
        };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            let Some(patience) = patience else { return Poll::Pending };
            return patience.poll(cx).map(|()| Some(Err(BodyError::Stalled)));
        };
        if let Some(patience) = patience {
            patience.moved();
        }
        let ended = match &frame {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(_)) => inner.is_end_stream(),
        };
        if let Some(exchange) = &mut this.exchange {
            if let Some(Ok(frame)) = &frame {
                exchange.sent(frame.data_ref().map_or(0, Bytes::len));
            }
            if ended {
                exchange.complete();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Upstream(inner, _) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Kind::Upstream(inner, _) => inner.size_hint(),
        }
    }
}
