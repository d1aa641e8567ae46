//! The application behind the proxies: as little work as HTTP allows, so that the proxies are what is measured.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Headers of a request that are looked at.
const HEADERS: usize = 32;
const HEAD: usize = 16 * 1024;

/// Serves `/N` with N bytes on each of `addrs`, from now on. Who has no session gets one.
pub async fn serve(addrs: &[SocketAddr], largest: usize) -> anyhow::Result<()> {
    let body: Rc<[u8]> = vec![b'x'; largest].into();
    for addr in addrs {
        let listener =
            TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        let (body, name) = (body.clone(), addr.ip().to_string());
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (body, name) = (body.clone(), name.clone());
                // Whoever asked sees that the connection ended, and fails.
                spawn_local(async move { connection(stream, &name, &body).await });
            }
        });
    }
    Ok(())
}

async fn connection(mut stream: TcpStream, name: &str, body: &[u8]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD];
    let (mut filled, mut out) = (0, Vec::with_capacity(1024));
    loop {
        let read = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(end) = request.parse(bytes)? else { continue };
        anyhow::ensure!(end == filled, "a request with a body, or two at once");
        let size = request.path.and_then(|path| path.get(1..)?.parse().ok()).unwrap_or(0);
        let known = request.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("cookie")
                && header.value.windows(8).any(|part| part == b"session=")
        });
        let session = if known { "" } else { "set-cookie: session=4711; Path=/; Max-Age=3600\r\n" };
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n");
        out.extend_from_slice(
            format!("x-backend: {name}\r\n{session}content-length: {size}\r\n\r\n").as_bytes(),
        );
        out.extend_from_slice(body.get(..size).context("a larger body than there is")?);
        stream.write_all(&out).await?;
        filled = 0;
    }
}
