//! An upgraded connection: bytes go both ways until both ends are done.

use std::rc::Rc;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tracing::debug;

use super::exchange::Exchange;
use super::worker::Worker;

/// Bytes read at once in each direction.
const BUFFER: usize = 8 * 1024;

/// Joins the two ends, of which the backend's has said this `first`; the exchange ends with the tunnel.
pub(super) fn join(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    (mut backend, first): (TcpStream, Bytes),
    mut exchange: Box<Exchange>,
) {
    exchange.tunnelled();
    let guard = worker.hold();
    spawn_local(async move {
        let _open = guard;
        let mut client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return debug!(%error, "upgrade broke off"),
        };
        let copied = async {
            client.write_all(&first).await?;
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER)
                .await
        };
        match copied.await {
            Ok((_, to_client)) => {
                let bytes = first.len() as u64 + to_client;
                exchange.sent(usize::try_from(bytes).unwrap_or(usize::MAX));
                exchange.complete();
            }
            Err(error) => debug!(%error, "tunnel broke off"),
        }
    });
}
