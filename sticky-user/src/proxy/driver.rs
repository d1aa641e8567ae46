//! Connections to backends have no tasks of their own: the client's task moves on the one that its request is on. With a task
//! for each, a request would wait behind all others four times and not twice, and that makes its p99.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tracing::debug;

use super::bell::Bell;

/// What moves the bytes of a connection; done when that has ended.
type Http = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection that goes on when it is driven.
pub(super) struct Driven {
    /// `None`: it has ended.
    http: RefCell<Option<Http>>,
    bell: Arc<Bell>,
    /// Of the bell: that of no task, since many use the connection one after the other.
    waker: Waker,
    addr: SocketAddr,
}

impl Driven {
    pub(super) fn new(http: Http, addr: SocketAddr, keeper: Arc<Notify>) -> Rc<Self> {
        let bell = Bell::new(Some(keeper));
        let waker = Waker::from(bell.clone());
        Rc::new(Self { http: RefCell::new(Some(http)), bell, waker, addr })
    }

    /// Moves it on; false if there is nothing to do.
    pub(super) fn drive(&self) -> bool {
        if !self.bell.answer() {
            return false;
        }
        let mut http = self.http.borrow_mut();
        let Some(connection) = &mut *http else { return false };
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut Context::from_waker(&self.waker))
        {
            *http = None;
            if let Err(error) = ended {
                debug!(addr = %self.addr, %error, "upstream connection ended");
            }
        }
        true
    }

    /// Nobody uses it from now on: the keeper is told when there is something to do.
    pub(super) fn rest(&self) {
        self.bell.rest();
    }
}

/// Of one client: drives the connection that its request is on.
#[derive(Default)]
pub(super) struct Driver(RefCell<Option<Rc<Driven>>>);

impl Driver {
    /// Takes this connection, and leaves it when the seat is dropped.
    pub(super) fn seat(self: &Rc<Self>, driven: Rc<Driven>) -> Seat {
        debug_assert!(self.0.borrow().is_none(), "a client has one request at a time");
        *self.0.borrow_mut() = Some(driven);
        Seat(self.clone())
    }

    /// Moves the connection on; false if there is none or nothing to do.
    pub(super) fn drive(&self) -> bool {
        let driven = self.0.borrow().clone();
        driven.is_some_and(|driven| driven.drive())
    }

    /// From now on the client's task is woken; false if there is something to do already.
    pub(super) fn arm(&self, cx: &Context<'_>) -> bool {
        self.0.borrow().as_ref().is_none_or(|driven| driven.bell.arm(cx))
    }
}

/// A client's time on a connection.
pub(super) struct Seat(Rc<Driver>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.borrow_mut().take();
    }
}
