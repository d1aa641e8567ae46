//! Writing to a socket by `send` where that will do: `writev` takes the kernel longer, since it is for files of all kinds. And
//! not by the C library's, which for a program with threads makes every call one that a thread can be cancelled in.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use smallvec::SmallVec;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What is copied together in less time than `writev` takes longer.
const SMALL: usize = 2048;

/// Writes what the socket takes now.
pub(super) fn try_write(stream: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || Ok(send(stream, buf, SendFlags::NOSIGNAL)?))
}

/// Writes what the socket takes; ready if that is anything.
pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    poll_ready(stream, cx, |stream| try_write(stream, buf))
}

/// Writes these one after the other, as far as the socket takes them.
pub(super) fn poll_write_vectored(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = bufs {
        return poll_write(stream, cx, one);
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
        return poll_ready(stream, cx, |stream| stream.try_write_vectored(bufs));
    }
    let mut together = SmallVec::<[u8; SMALL]>::new();
    bufs.iter().for_each(|buf| together.extend_from_slice(buf));
    poll_write(stream, cx, &together)
}

/// Writes when the socket takes something.
fn poll_ready(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    write: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match write(stream) {
            // It was ready, and is not any more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn pieces_of_all_sizes_arrive_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let sizes: &[&[usize]] =
            &[&[], &[7], &[5000], &[100, 900], &[SMALL, 0], &[SMALL - 1, 1, 1], &[1, 2, 3, 8000]];
        for sizes in sizes {
            let all: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| at as u8).collect();
            let mut rest = all.as_slice();
            let pieces = sizes.iter().map(|size| IoSlice::new(rest.split_off(..*size).unwrap()));
            let pieces: Vec<IoSlice<'_>> = pieces.collect();
            let written = poll_fn(|cx| poll_write_vectored(&near, cx, &pieces)).await.unwrap();
            assert_eq!(written, all.len(), "{sizes:?}");
            let mut came = vec![0; written];
            far.read_exact(&mut came).await.unwrap();
            assert_eq!(came, all, "{sizes:?}");
        }
    }
}
