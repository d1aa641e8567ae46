//! A client's socket, and the times it is given.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Phase;
use crate::proxy::settings::Timeouts;
use crate::proxy::wire;

/// How long a connection is read on after its last answer, for a client that is still sending what nobody wants.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection is idle before it gives back what HTTP keeps for it, 16 kB and more.
const QUIET: Duration = Duration::from_millis(150);

/// The socket, closed when a request's head or the next request takes too long.
pub(super) struct Io {
    stream: TcpStream,
    /// Read before HTTP began.
    ahead: Bytes,
    phase: Arc<Phase>,
    header: Duration,
    idle: Duration,
    /// Since when it is idle, or a head has begun; `None`: nobody has looked since it is or has.
    since: Option<Instant>,
    /// Looks now and then rather than being set for each request, at every [`QUIET`] at least while there is HTTP.
    alarm: Pin<Box<Sleep>>,
    /// Nothing is kept for it but the socket.
    waits: bool,
    /// All that was written is on its way.
    flushed: bool,
    /// The next request is here, and the last one still in progress.
    early: bool,
    /// Until when it is read on, once its own side is shut.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Io {
    pub(super) fn new(
        stream: TcpStream,
        ahead: Bytes,
        phase: Arc<Phase>,
        timeouts: &Timeouts,
    ) -> Self {
        Self {
            stream,
            ahead,
            phase,
            header: timeouts.header,
            idle: timeouts.idle,
            since: Some(Instant::now()),
            // A new connection owes its first request as soon as one that has begun.
            alarm: Box::pin(tokio::time::sleep(timeouts.header)),
            waits: true,
            flushed: true,
            early: false,
            linger: None,
        }
    }

    /// Waits for the first byte of a request, or the end of the connection.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && self.stream.poll_read_ready(cx)?.is_pending() {
            return self.poll_deadline(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        self.waits = false;
        self.alarm.as_mut().reset(Instant::now() + QUIET.min(self.header));
        // Nobody else asks it before the request is answered.
        let _ = self.alarm.as_mut().poll(cx);
        Poll::Ready(Ok(()))
    }

    /// From now on it waits for its next request, of which some may have been read already.
    pub(super) fn wait(&mut self, read: Bytes) {
        self.waits = true;
        // An empty one would keep its buffer.
        self.ahead = if read.is_empty() { Bytes::new() } else { read };
    }

    /// While a request is in progress: an error if the client has left, who needs no answer.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // Most are answered before the alarm, which wakes the task that then begins to look. A body is read by who sends it on.
        // Behind the next request nobody looks.
        if !self.alarm.is_elapsed()
            || self.early
            || !self.ahead.is_empty()
            || self.phase.unread.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        let mut byte = [MaybeUninit::uninit()];
        match self.stream.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(_)) => self.early = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Looks at the time; ready when it is up.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase.get() {
            Phase::BUSY | Phase::TUNNEL => return Poll::Pending,
            Phase::DONE => {
                self.phase.set(Phase::IDLE);
                self.since = None;
            }
            _ => {}
        }
        let idle = self.phase.get() == Phase::IDLE;
        let limit = if idle { self.idle } else { self.header };
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let since = *self.since.get_or_insert(now);
            let (due, quiet) = (since + limit, since + QUIET);
            if due <= now {
                return Poll::Ready(());
            }
            let look = if self.waits {
                due
            } else if idle && now < quiet {
                quiet
            } else if idle && self.flushed && !self.phase.unread.load(Ordering::Relaxed) {
                self.phase.quiet.store(true, Ordering::Relaxed);
                due
            } else {
                // What begins or ends meanwhile must not be found late.
                now + QUIET
            };
            self.alarm.as_mut().reset(look.min(due));
        }
        Poll::Pending
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = if this.ahead.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            let length = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(length));
            Poll::Ready(Ok(()))
        };
        if read.is_pending() {
            return this.poll_deadline(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        this.early = false;
        if this.phase.is_idle() && buf.filled().len() > before {
            this.phase.set(Phase::HEAD);
            this.since = None;
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flushed = false;
        wire::poll_write(&self.stream, cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who flushes has written all it has.
        self.flushed = true;
        // HTTP does so each time it has gone on, whether it has written or not.
        if self.phase.get() == Phase::BUSY {
            self.poll_left(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closed with something unread, a socket is reset, and the client may lose the answer that came early.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.phase.unread.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                this.linger.insert(Box::pin(tokio::time::sleep(LINGER)))
            }
        };
        let mut rest = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut rest = ReadBuf::uninit(&mut rest);
            match Pin::new(&mut this.stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.as_mut().poll(cx).map(Ok),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushed = false;
        wire::poll_write_vectored(&self.stream, cx, bufs)
    }
}
