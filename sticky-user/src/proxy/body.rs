//! Bodies on their way: one piece at a time, in both directions, so that memory does not grow with them.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::exchange::Exchange;

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

/// Why a request's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the client sent nothing for too long")]
    Stalled,
    #[error(transparent)]
    Client(hyper::Error),
}

/// Body of a request towards a backend.
pub(super) enum RequestBody {
    Empty,
    Streaming(Streaming),
}

pub(super) struct Streaming {
    inner: Incoming,
    progress: Rc<Cell<Progress>>,
    limit: Duration,
    /// Made at the first wait.
    stall: Option<Pin<Box<Sleep>>>,
    /// Something came since the stall was last set.
    moved: bool,
}

impl RequestBody {
    /// The body of a request, and how to see how far it is; `None` if it is empty.
    pub(super) fn new(inner: Incoming, limit: Duration) -> (Self, Option<Rc<Cell<Progress>>>) {
        if inner.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Rc::new(Cell::new(Progress::Reading));
        let streaming =
            Streaming { inner, progress: progress.clone(), limit, stall: None, moved: false };
        (Self::Streaming(streaming), Some(progress))
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
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.moved = true;
                match &frame {
                    Some(Err(_)) => self.progress.set(Progress::Broken),
                    Some(Ok(_)) if !self.inner.is_end_stream() => {}
                    _ => self.progress.set(Progress::Done),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
            }
            Poll::Pending => {
                let deadline = Instant::now() + self.limit;
                let stall =
                    self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if self.moved {
                    self.moved = false;
                    stall.as_mut().reset(deadline);
                }
                ready!(stall.as_mut().poll(cx));
                self.progress.set(Progress::Stalled);
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }
}

/// Body of a response, and the exchange that ends with it.
pub(super) struct ResponseBody {
    kind: Kind,
    exchange: Option<Exchange>,
}

enum Kind {
    Text(Option<Bytes>),
    Upstream(Incoming),
}

impl ResponseBody {
    /// What a backend sends.
    pub(super) fn upstream(inner: Incoming, mut exchange: Exchange) -> Self {
        if inner.is_end_stream() {
            exchange.complete();
            return Self { kind: Kind::Text(None), exchange: Some(exchange) };
        }
        Self { kind: Kind::Upstream(inner), exchange: Some(exchange) }
    }

    /// What we say ourselves.
    pub(super) fn text(text: Bytes, mut exchange: Exchange) -> Self {
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
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let inner = match &mut this.kind {
            Kind::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Upstream(inner) => inner,
        };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
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
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Upstream(inner) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Kind::Upstream(inner) => inner.size_hint(),
        }
    }
}
