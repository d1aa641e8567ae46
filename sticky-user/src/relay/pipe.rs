//! Bytes both ways between two connections, in a way that can stop at any time and go on elsewhere.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::routes::Backend;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// One for all connections of a thread; what one of them cannot write at once, it keeps itself.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// A client and its backend.
pub(super) struct Pipe {
    pub(super) client: TcpStream,
    pub(super) upstream: TcpStream,
    pub(super) to_backend: Way,
    pub(super) to_client: Way,
}

/// One direction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Read and not yet written.
    pub(super) held: Vec<u8>,
    /// Its source has said all.
    pub(super) ended: bool,
}

impl Pipe {
    pub(super) fn new(client: TcpStream, upstream: TcpStream) -> Self {
        Self { client, upstream, to_backend: Way::default(), to_client: Way::default() }
    }

    /// Carries until both sides have said all. Dropped before, nothing is lost.
    ///
    /// # Errors
    /// One side broke off.
    pub(super) async fn run(&mut self, backend: &Backend) -> io::Result<()> {
        let Self { client, upstream, to_backend, to_client } = self;
        tokio::try_join!(
            to_backend.carry(client, upstream, &backend.stats.to_backend),
            to_client.carry(upstream, client, &backend.stats.to_client),
        )?;
        Ok(())
    }

    /// Has both sides end with RST when they are dropped.
    pub(super) fn reset(&self) {
        reset(&self.client);
        reset(&self.upstream);
    }
}

impl Way {
    async fn carry(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        written: &AtomicU64,
    ) -> io::Result<()> {
        loop {
            // Others want to be served too, also when this one is never short of bytes.
            tokio::task::consume_budget().await;
            if !self.held.is_empty() {
                to.writable().await?;
                let count = unless_blocked(to.try_write(&self.held))?;
                written.fetch_add(count as u64, Ordering::Relaxed);
                self.held.drain(..count);
                continue;
            }
            if self.ended {
                return said_all(to);
            }
            from.readable().await?;
            BUFFER.with_borrow_mut(|buffer| match from.try_read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    Ok(())
                }
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let count = unless_blocked(to.try_write(bytes))?;
                    written.fetch_add(count as u64, Ordering::Relaxed);
                    self.held.extend(bytes.iter().skip(count));
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            })?;
        }
    }
}

/// Says it a second time where a connection came over: by then the other side may have closed too, which leaves nothing to
/// close, while its last bytes are still to be read here.
fn said_all(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

fn unless_blocked(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// Has the stream end with RST when it is dropped.
pub(super) fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection ends without RST");
    }
}
