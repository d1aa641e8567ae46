//! The backends: one thread on the last CPU, for all contestants; their listeners are in the contestants' namespaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::machine::{Cpu, pin};
use super::talk::{Answer, HEAD, Question};

/// Bytes that are read or written at once.
pub const CHUNK: usize = 128 * 1024;

/// Serves on all listeners until the program ends.
pub fn serve(listeners: Vec<TcpListener>) -> anyhow::Result<()> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
    };
    thread::Builder::new().name("backends".to_owned()).spawn(move || -> anyhow::Result<()> {
        pin(Cpu::Last)?;
        runtime()?.block_on(async {
            let data: Rc<[u8]> = vec![b'x'; CHUNK].into();
            for listener in listeners {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let data = data.clone();
                spawn_local(async move {
                    let Ok(SocketAddr::V4(own)) = listener.local_addr() else { return };
                    while let Ok((stream, from)) = listener.accept().await {
                        let data = data.clone();
                        let from = from.ip();
                        // Whoever asked sees that the connection ended, and fails.
                        spawn_local(
                            async move { connection(stream, *own.ip(), from, &data).await },
                        );
                    }
                });
            }
            std::future::pending().await
        })
    })?;
    Ok(())
}

async fn connection(
    mut stream: TcpStream,
    backend: Ipv4Addr,
    from: IpAddr,
    data: &[u8],
) -> anyhow::Result<()> {
    let IpAddr::V4(client) = from else { anyhow::bail!("a client of IPv6") };
    let mut head = [0; HEAD];
    let mut sink = Vec::new();
    loop {
        let mut filled = 0;
        while filled < HEAD {
            let read = stream.read(head.get_mut(filled..).unwrap_or_default()).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        }
        let question = Question::read(&head)?;
        take(&mut stream, question.up as usize, &mut sink).await?;
        let answer = Answer { number: question.number, backend, client };
        stream.write_all(&answer.bytes()).await?;
        give(&mut stream, question.down as usize, data).await?;
        if question.last {
            return Ok(());
        }
    }
}

/// Reads `left` bytes and forgets them.
pub async fn take(
    stream: &mut TcpStream,
    mut left: usize,
    sink: &mut Vec<u8>,
) -> anyhow::Result<()> {
    sink.resize(if left == 0 { 0 } else { CHUNK }, 0);
    while left > 0 {
        let read = stream.read(sink).await?;
        anyhow::ensure!(read > 0, "the connection ended within the data");
        left = left.checked_sub(read).context("more data than was announced")?;
    }
    Ok(())
}

/// Writes `left` bytes.
pub async fn give(stream: &mut TcpStream, mut left: usize, data: &[u8]) -> anyhow::Result<()> {
    while left > 0 {
        let part = data.get(..left.min(data.len())).unwrap_or_default();
        stream.write_all(part).await?;
        left -= part.len();
    }
    Ok(())
}
