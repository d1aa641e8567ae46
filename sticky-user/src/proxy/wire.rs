//! Writing to a socket by `send` where that will do: `writev` takes the kernel longer, since it is for files of all kinds.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// What is copied together in less time than `writev` takes longer.
const SMALL: usize = 2048;

/// Writes these one after the other, as far as the socket takes them.
pub(super) fn poll_write_vectored(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [one] = bufs {
        return stream.poll_write(cx, one);
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
        return stream.poll_write_vectored(cx, bufs);
    }
    let mut together = SmallVec::<[u8; SMALL]>::new();
    bufs.iter().for_each(|buf| together.extend_from_slice(buf));
    stream.poll_write(cx, &together)
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
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let sizes: &[&[usize]] =
            &[&[], &[7], &[5000], &[100, 900], &[SMALL, 0], &[SMALL - 1, 1, 1], &[1, 2, 3, 8000]];
        for sizes in sizes {
            let all: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| at as u8).collect();
            let mut rest = all.as_slice();
            let pieces = sizes.iter().map(|size| IoSlice::new(rest.split_off(..*size).unwrap()));
            let pieces: Vec<IoSlice<'_>> = pieces.collect();
            let written = poll_fn(|cx| poll_write_vectored(&mut near, cx, &pieces)).await.unwrap();
            assert_eq!(written, all.len(), "{sizes:?}");
            let mut came = vec![0; written];
            far.read_exact(&mut came).await.unwrap();
            assert_eq!(came, all, "{sizes:?}");
        }
    }
}
