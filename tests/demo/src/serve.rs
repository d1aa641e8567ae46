//! The HTTP server: accepting, and ending with grace.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::app::App;
use crate::routes;

/// An HTTP/1.1 server on one listener.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    /// Each connection holds a receiver, and hears through it that the server ends.
    ending: watch::Sender<bool>,
}

impl Server {
    pub fn new(listener: TcpListener, app: Arc<App>) -> Self {
        Self { listener, app, ending: watch::Sender::new(false) }
    }

    /// Serves connections for ever.
    pub async fn accept(&self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, client)) => {
                    self.app.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(converse(
                        stream,
                        client,
                        self.app.clone(),
                        self.ending.subscribe(),
                    ));
                }
                // Out of descriptors, or the client has gone again: neither ends the server.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Accepts nothing more and waits, at most `limit`, for requests in progress and tunnels.
    pub async fn drain(self, limit: Duration) {
        drop(self.listener);
        self.ending.send_replace(true);
        let quiet = async {
            self.ending.closed().await;
            while self.app.tunnels() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Whatever is still open after the limit is cut: the caller exits.
        let _ = tokio::time::timeout(limit, quiet).await;
    }
}

async fn converse(
    stream: TcpStream,
    client: SocketAddr,
    app: Arc<App>,
    mut ending: watch::Receiver<bool>,
) {
    // Only a delay on some connections is lost if the option is refused.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| routes::answer(request, client, app.clone()));
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    // Either way a client that leaves in the middle is its own business.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
