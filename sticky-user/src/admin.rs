//! The admin address: metrics, health, the state as JSON, and a page for people.

mod page;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::views::Views;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at a time; the rest wait.
const CONNECTIONS: usize = 64;
const BACKLOG: u32 = 128;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the admin address answers from.
pub struct Admin {
    pub views: Arc<Views>,
    pub metrics: Arc<Metrics>,
    /// The maps are in force and the listeners are open.
    pub ready: Arc<AtomicBool>,
}

/// Listens, in a way that a successor can too.
///
/// # Errors
/// The address is not ours to listen on.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin address does not accept, trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let admin = Arc::clone(&admin);
                async move {
                    let (method, path) =
                        (request.method().clone(), request.uri().path().to_owned());
                    // Reading maps is not for a thread that waits for the network.
                    let answered =
                        tokio::task::spawn_blocking(move || admin.answer(&method, &path)).await;
                    Ok::<_, Infallible>(answered.unwrap_or_else(|error| {
                        text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
                    }))
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the admin address ended");
            }
        });
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET".to_owned());
        }
        match path {
            "/metrics" => match self.metrics.text() {
                Ok(metrics) => typed(StatusCode::OK, OPEN_METRICS, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/healthz" => text(StatusCode::OK, "ok".to_owned()),
            "/readyz" if self.ready.load(Ordering::Acquire) => {
                text(StatusCode::OK, "ready".to_owned())
            }
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready".to_owned()),
            "/api/v1/state" => json(&self.views.status()),
            "/" => typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page::render(&self.views.status()),
            ),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /, /metrics, /healthz, /readyz and /api/v1/state".to_owned(),
            ),
        }
    }
}

/// An answer for programs.
pub(crate) fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// One line for people.
pub(crate) fn text(status: StatusCode, line: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", line + "\n")
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
