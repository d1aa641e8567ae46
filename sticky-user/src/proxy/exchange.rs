//! One request and its response, from the first byte to the last: what is counted and logged when it ends.

use std::mem;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri};
use hyper::Request;
use hyper::body::{Body, Incoming};
use tokio::net::TcpStream;

use super::choice::Choice;
use super::connection::Phase;
use super::forwarded::PerHost;
use super::reason::Reason;
use super::service::{Backend, Service};
use super::upstream::{Lease, LinkError};
use crate::telemetry::access::{self, Entry};

/// In the log and the metrics, as in nginx's: the client went away before there was an answer.
const CLIENT_LEFT: u16 = 499;

/// Ends by being dropped.
pub(super) struct Exchange {
    pub began: Instant,
    method: Method,
    /// As it came.
    pub uri: Uri,
    pub host: Option<Rc<PerHost>>,
    pub client: IpAddr,
    pub id: HeaderValue,
    status: Option<StatusCode>,
    bytes: u64,
    /// When the last byte came, if the answer is whole.
    ended: Option<Instant>,
    upstream: Option<Upstream>,
    /// The service, for what is answered without a backend.
    pub service: Option<Arc<Service>>,
    /// The client's connection, which waits for the next request then.
    pub phase: Option<Arc<Phase>>,
}

/// A request that goes to a backend.
#[derive(Clone, Copy)]
pub(super) struct Begun<'e> {
    pub choice: &'e Choice,
    pub method: &'e Method,
    pub uri: &'e Uri,
    pub id: &'e HeaderValue,
}

/// The backend's side.
struct Upstream {
    choice: Choice,
    began: Instant,
    took: Option<Duration>,
    lease: Option<Lease>,
}

impl Exchange {
    /// Takes the target of a request, which needs it no more.
    pub(super) fn new(request: &mut Request<Incoming>, phase: Arc<Phase>, client: IpAddr) -> Self {
        phase.busy(!request.body().is_end_stream());
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            uri: mem::take(request.uri_mut()),
            host: None,
            client,
            id: HeaderValue::from_static("-"),
            status: None,
            bytes: 0,
            ended: None,
            upstream: None,
            service: None,
            phase: Some(phase),
        }
    }

    fn code(&self) -> u16 {
        self.status.map_or(CLIENT_LEFT, |status| status.as_u16())
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// Path and query only, as a server wants it (RFC 9112, section 3.2.1).
    pub(super) fn target(&self) -> &str {
        target(&self.uri)
    }

    pub(super) const fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The request, counted by [`Service::enter`], goes to this backend `now`; one it went to before is done with it.
    pub(super) fn chosen(&mut self, choice: Choice, now: Instant) -> Begun<'_> {
        self.release();
        choice.backend().stats.requests.fetch_add(1, Ordering::Relaxed);
        if !self.service.as_ref().is_some_and(|known| Arc::ptr_eq(known, &choice.service)) {
            self.service = Some(choice.service.clone());
        }
        let upstream = Upstream { choice, began: now, took: None, lease: None };
        let choice = &self.upstream.insert(upstream).choice;
        Begun { choice, method: &self.method, uri: &self.uri, id: &self.id }
    }

    pub(super) fn choice(&self) -> Option<&Choice> {
        self.upstream.as_ref().map(|upstream| &upstream.choice)
    }

    /// The head of the response is here, by this connection.
    pub(super) fn answered(&mut self, lease: Lease) -> Duration {
        let Some(upstream) = &mut self.upstream else { return Duration::ZERO };
        let took = lease.came().saturating_duration_since(upstream.began);
        upstream.took = Some(took);
        upstream.lease = Some(lease);
        took
    }

    fn lease(&mut self) -> Option<&mut Lease> {
        self.upstream.as_mut()?.lease.as_mut()
    }

    /// The next piece of the backend's answer; the exchange is complete with the last one.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, LinkError>>> {
        let Some(lease) = self.lease() else { return Poll::Ready(None) };
        let piece = ready!(lease.poll_body(cx));
        if let Some(Ok(piece)) = &piece {
            self.sent(piece.len());
        }
        if piece.is_none() || self.left() == Some(0) {
            self.complete();
        }
        Poll::Ready(piece)
    }

    /// How many bytes the backend has yet to send, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        let lease = self.upstream.as_ref().and_then(|upstream| upstream.lease.as_ref());
        lease.map_or(Some(0), Lease::left)
    }

    /// The backend's connection, which is given another use, and what came on it behind the answer's head.
    pub(super) fn take_stream(&mut self) -> Option<(TcpStream, Bytes)> {
        self.upstream.as_mut()?.lease.take()?.into_stream()
    }

    pub(super) const fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The last byte has come from the backend: its connection is free.
    pub(super) fn complete(&mut self) {
        let lease = self.upstream.as_mut().and_then(|upstream| upstream.lease.take());
        self.ended = Some(lease.as_ref().map_or_else(Instant::now, Lease::came));
        if let Some(lease) = lease {
            lease.give_back();
        }
    }

    /// The connection was upgraded: it belongs to a tunnel now.
    pub(super) fn tunnelled(&mut self) {
        if let Some(phase) = self.phase.take() {
            phase.tunnelled();
        }
    }

    fn release(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.choice.backend().stats.in_progress.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn log(&self, took: Duration) {
        if !access::enabled() {
            return;
        }
        let choice = self.choice();
        let backend: Option<&Backend> = choice.map(Choice::backend);
        access::write(&Entry {
            client: self.client,
            method: self.method.as_str(),
            host: self.host.as_ref().and_then(|it| it.host.to_str().ok()).unwrap_or_default(),
            path: self.path(),
            status: self.code(),
            bytes: self.bytes,
            ms: millis(took),
            upstream_ms: self.upstream.as_ref().and_then(|upstream| upstream.took).map(millis),
            service: self.service.as_ref().map(|service| service.name.as_str()),
            backend: backend.map(|backend| backend.name.as_str()),
            upstream: backend.map(|backend| backend.addr),
            affinity: choice.map(|choice| choice.reason.as_str()),
            request_id: self.id.to_str().unwrap_or_default(),
            complete: self.ended.is_some(),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.ended.unwrap_or_else(Instant::now).duration_since(self.began);
        if let Some(service) = &self.service {
            service.stats.finished(self.code(), took);
        }
        if let Some(reason) = self.choice().map(|choice| choice.reason) {
            self.count(reason);
        }
        self.log(took);
        self.release();
        if let Some(phase) = self.phase.take() {
            phase.done();
        }
    }
}

impl Exchange {
    fn count(&self, reason: Reason) {
        if let Some(service) = &self.service {
            service.stats.chosen(reason);
        }
    }
}

/// Path and query of a request's target; `http://a` has none that is written.
pub(super) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |both| both.as_str())
}

/// Milliseconds with three digits behind the point.
fn millis(took: Duration) -> f64 {
    (took.as_micros() as f64) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_asked_for() {
        for (uri, want) in
            [("http://a:1/x?y", "/x?y"), ("http://a:1", "/"), ("/x?y", "/x?y"), ("*", "*")]
        {
            assert_eq!(target(&Uri::from_static(uri)), want);
        }
    }
}
