//! A server of lines, for tests that watch connections rather than requests.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;

/// Greets each connection with `INSTANCE CLIENT\n` and answers each line with `INSTANCE LINE\n`.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(converse(stream, client, app.clone()));
            }
            // Out of descriptors, or the client has gone again: neither ends the server.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, client: SocketAddr, app: Arc<App>) -> std::io::Result<()> {
    let _open = app.tunnel();
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{} {client}\n", app.instance).as_bytes()).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{} {line}\n", app.instance).as_bytes()).await?;
    }
    Ok(())
}
