//! An upgraded connection: bytes go both ways until both ends are done.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tracing::debug;

use super::exchange::Exchange;
use super::worker::Worker;

/// Bytes read at once in each direction.
const BUFFER: usize = 8 * 1024;

/// Joins the two ends; the exchange ends with the tunnel.
pub(super) fn join(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    backend: OnUpgrade,
    mut exchange: Box<Exchange>,
) {
    exchange.tunnelled();
    let guard = worker.hold();
    spawn_local(async move {
        let _open = guard;
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "upgrade broke off"),
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let copied =
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER)
                .await;
        match copied {
            Ok((_, to_client)) => {
                exchange.sent(usize::try_from(to_client).unwrap_or(usize::MAX));
                exchange.complete();
            }
            Err(error) => debug!(%error, "tunnel broke off"),
        }
    });
}
