//! The control socket: how the commands talk to the running sticky. HTTP on a unix socket that only its owner may use.

mod beside;
mod claim;
pub mod client;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{json, text};
use crate::drains::{Order, Refused};
use crate::views::Views;
use crate::whereis::Question;
pub use beside::Beside;
pub use claim::{Claim, ClaimError};

/// How long an order waits until it is in force before it is answered all the same.
const IN_FORCE: Duration = Duration::from_secs(3);
/// Longest request.
const MAX_BODY: usize = 64 * 1024;

pub(crate) const STATUS: &str = "/v1/status";
pub(crate) const DRAIN: &str = "/v1/drain";
pub(crate) const WHERE: &str = "/v1/where";
pub(crate) const HANDOVER_BEGIN: &str = "/v1/handover/begin";
pub(crate) const HANDOVER_FINISH: &str = "/v1/handover/finish";

/// What a successor asks of the process that runs, all on one connection.
#[derive(Debug)]
pub enum Handover {
    /// Change no map any more and give the socket free; answered when that is done.
    Begin(oneshot::Sender<()>),
    /// The successor serves: drain and end.
    Finish,
    /// The successor went away before it finished.
    Abandoned,
}

/// Answers until it is aborted, which gives the socket free. Connections that are open then go on.
pub async fn serve(claim: Claim, views: Arc<Views>, handover: mpsc::Sender<Handover>) {
    let listener = match claim.listener() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&views), handover.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept, trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, views: Arc<Views>, handover: mpsc::Sender<Handover>) {
    let (began, finished) = (AtomicBool::new(false), AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        match request.uri().path() {
            HANDOVER_BEGIN => began.store(true, Ordering::Relaxed),
            HANDOVER_FINISH => finished.store(true, Ordering::Relaxed),
            _ => {}
        }
        let (views, handover) = (Arc::clone(&views), handover.clone());
        async move { Ok::<_, Infallible>(answer(request, views, &handover).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    {
        tracing::debug!(%error, "a connection to the control socket ended");
    }
    if began.load(Ordering::Relaxed) && !finished.load(Ordering::Relaxed) {
        // Nobody receives: the process is ending anyway.
        let _ = handover.send(Handover::Abandoned).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    views: Arc<Views>,
    handover: &mpsc::Sender<Handover>,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, STATUS) => {
            match tokio::task::spawn_blocking(move || json(&views.status())).await {
                Ok(response) => response,
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        (&Method::POST, WHERE) => locate(request, views).await,
        (&Method::POST, DRAIN) => drain(request, views).await,
        (&Method::POST, HANDOVER_BEGIN) => {
            let (done, ready) = oneshot::channel();
            let sent = handover.send(Handover::Begin(done)).await.is_ok();
            match sent && ready.await.is_ok() {
                true => text(StatusCode::OK, "the socket is free".to_owned()),
                false => text(
                    StatusCode::CONFLICT,
                    "sticky is ending or handing over already".to_owned(),
                ),
            }
        }
        (&Method::POST, HANDOVER_FINISH) => match handover.send(Handover::Finish).await {
            Ok(()) => text(StatusCode::OK, "draining".to_owned()),
            Err(_) => text(StatusCode::CONFLICT, "sticky is ending already".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "no such question".to_owned()),
    }
}

async fn locate(request: Request<Incoming>, views: Arc<Views>) -> Response<Full<Bytes>> {
    let question: Question = match read(request).await {
        Ok(question) => question,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    match tokio::task::spawn_blocking(move || views.locate(&question)).await {
        Ok(Ok(answers)) => json(&answers),
        Ok(Err(unknown)) => text(StatusCode::NOT_FOUND, unknown.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn drain(request: Request<Incoming>, views: Arc<Views>) -> Response<Full<Bytes>> {
    let order: Order = match read(request).await {
        Ok(order) => order,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    let ordering = Arc::clone(&views);
    match tokio::task::spawn_blocking(move || ordering.drain(&order)).await {
        Ok(Ok(done)) => {
            views.drained(IN_FORCE).await;
            json(&done)
        }
        Ok(Err(refused @ Refused::NotKept(_))) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, refused.to_string())
        }
        Ok(Err(refused)) => text(StatusCode::NOT_FOUND, refused.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, String> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
