//! The application behind the proxies: as little work as HTTP allows, so that the proxies are what is measured.

use std::net::{SocketAddr, TcpListener as Listener};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Headers of a request that are looked at.
const HEADERS: usize = 32;
const HEAD: usize = 16 * 1024;
/// All clients of a load may connect at once; who finds no room comes again only after a second.
const BACKLOG: i32 = 4096;

/// Serves `/N` with N bytes on each of `addrs`, from now on. Who has no session gets one.
pub fn serve(addrs: &[SocketAddr], largest: usize) -> anyhow::Result<()> {
    serve_on(listen(addrs)?, largest)
}

/// Opens the listeners; they belong to the namespace of this thread.
pub fn listen(addrs: &[SocketAddr]) -> anyhow::Result<Vec<Listener>> {
    let open = |addr: &SocketAddr| {
        let socket = Socket::new(Domain::for_address(*addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // For another thread with the same ones.
        socket.set_reuse_port(true)?;
        socket.bind(&(*addr).into()).with_context(|| format!("cannot listen on {addr}"))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    addrs.iter().map(open).collect()
}

/// Serves on listeners, in this thread's runtime.
pub fn serve_on(listeners: Vec<Listener>, largest: usize) -> anyhow::Result<()> {
    let body: Rc<[u8]> = vec![b'x'; largest].into();
    for listener in listeners {
        let (body, name) = (body.clone(), listener.local_addr()?.ip().to_string());
        let listener = TcpListener::from_std(listener)?;
        spawn_local(async move {
            loop {
                let (stream, _) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        eprintln!("the application on {name} cannot accept: {error}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
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
