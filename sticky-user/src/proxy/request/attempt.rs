//! One attempt at one backend. What was sent is sent again only if that cannot do harm.

use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Response, Uri};
use hyper::Request;
use hyper::body::Incoming;
use tracing::debug;

use super::Asked;
use crate::proxy::body::{Progress, RequestBody, Upload};
use crate::proxy::choice::Choice;
use crate::proxy::exchange::{self, Begun, Exchange};
use crate::proxy::forwarded::X_FORWARDED_PREFIX;
use crate::proxy::reason::Reason;
use crate::proxy::respond::Refusal;
use crate::proxy::service::Service;
use crate::proxy::upstream::{Ask, Lease};
use crate::proxy::{headers, preface};

/// A request on its way to some backend.
pub(super) struct Outgoing {
    headers: HeaderMap,
    /// If the service wants another target than came.
    target: Option<String>,
    /// Until it is sent.
    body: RequestBody,
    /// It may be sent twice, since it is idempotent (RFC 9110, section 9.2.2) and without a body.
    repeatable: bool,
    upload: Option<Rc<Upload>>,
    /// Take no connection that was used before.
    fresh: bool,
}

/// Why an attempt has no response.
pub(super) enum Failure {
    /// Try again; the backend is not to blame.
    Stale,
    /// Try another backend; if there is none, this is the answer.
    Elsewhere(Refusal),
    /// It must not be tried again.
    Final(Refusal),
}

impl Outgoing {
    pub(super) fn new(
        asked: &Asked,
        request: Request<Incoming>,
        upgrade: Option<HeaderValue>,
        exchange: &Exchange,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let (method, mut headers) = (parts.method, parts.headers);
        let upgrades = upgrade.is_some();
        headers::strip_request(&mut headers, upgrade);
        asked.presented.take_off(&mut headers);
        let (body, upload) =
            RequestBody::new(body, asked.worker.timeouts().body, exchange.phase.clone());
        let repeatable = upload.is_none() && !upgrades && is_idempotent(&method);
        asked.peer.tell(&mut headers, &asked.host, asked.client);
        if let Some(tag) = &asked.presented.tag {
            headers.insert(tag.name.clone(), tag.value.clone());
        }
        Self { headers, target: None, body, repeatable, upload, fresh: false }
    }

    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) async fn attempt(
        &mut self,
        asked: &Asked,
        begun: Begun<'_>,
        now: Instant,
    ) -> Result<(Response<()>, Lease), Failure> {
        let choice = begun.choice;
        let mut lease = match self.idle(asked, choice, now) {
            Some(lease) => lease,
            // Few requests do, and each would have room for it.
            None => Box::pin(connect(asked, choice)).await?,
        };
        let (reused, backend) = (lease.reused, choice.backend());
        // To open one took its time.
        let now = if reused { now } else { Instant::now() };
        self.fit(&choice.service, begun.uri);
        let body = mem::replace(&mut self.body, RequestBody::Empty);
        let ask = Ask {
            method: begun.method,
            target: self.target.as_deref().unwrap_or_else(|| exchange::target(begun.uri)),
            headers: &self.headers,
            id: begun.id,
            lines: asked.host.lines(),
        };
        if let Err(error) = lease.send(ask, body, now) {
            debug!(addr = %backend.addr, reused, %error, "request not sent");
            return Err(if reused {
                Failure::Stale
            } else {
                Failure::Elsewhere(Refusal::Unreachable)
            });
        }
        let mut pieces = 0;
        let result = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = lease.poll_answer(cx) {
                    return Poll::Ready(Some(result));
                }
                ready!(lease.poll_late(cx));
                // The time for an answer begins when the whole request is there.
                match self.upload.as_ref().and_then(|upload| upload.moved_on(pieces)) {
                    Some(now) => pieces = now,
                    None => return Poll::Ready(None),
                }
            }
        });
        let error = match result.await {
            Some(Ok(response)) => {
                lease.recycle(mem::take(&mut self.headers));
                return Ok((response, lease));
            }
            Some(Err(error)) => error,
            None => return Err(Failure::Final(Refusal::Timeout)),
        };
        debug!(addr = %backend.addr, reused, %error, "attempt failed");
        match self.upload.as_ref().map(|upload| upload.progress()) {
            Some(Progress::Stalled) => return Err(Failure::Final(Refusal::Stalled)),
            Some(Progress::Broken) => return Err(Failure::Final(Refusal::BrokenBody)),
            _ => {}
        }
        if !self.repeatable {
            return Err(Failure::Final(Refusal::BadAnswer));
        }
        // A connection that was idle may have been closed just then. Who belongs to this backend asks it once more.
        let closed = reused && !error.is_parse() && choice.reason == Reason::Pinned;
        if closed && !self.fresh {
            self.fresh = true;
            return Err(Failure::Stale);
        }
        Err(Failure::Elsewhere(Refusal::BadAnswer))
    }

    /// A connection that waits for a request.
    fn idle(&self, asked: &Asked, choice: &Choice, now: Instant) -> Option<Lease> {
        let pool = &asked.worker.pool;
        let usable = !self.fresh && choice.service.proxy_protocol.is_none();
        usable.then(|| pool.take(choice.backend().pool, self.oldest(), now))?
    }

    /// Has the head be as this service wants it.
    fn fit(&mut self, service: &Service, uri: &Uri) {
        if service.rewrite {
            self.target = Some(without_root(exchange::target(uri), &service.root));
            if let Ok(root) = HeaderValue::from_str(&service.root) {
                self.headers.insert(&X_FORWARDED_PREFIX, root);
            }
        } else if self.target.take().is_some() {
            // One that was tried before has it rewritten.
            self.headers.remove(&X_FORWARDED_PREFIX);
        }
    }

    /// How long a connection may have been idle. Servers close after some seconds, perhaps just as the request comes, and
    /// one that must not be sent twice had better not meet that.
    const fn oldest(&self) -> Duration {
        if self.repeatable { Duration::MAX } else { Duration::from_secs(1) }
    }
}

/// A new connection.
async fn connect(asked: &Asked, choice: &Choice) -> Result<Lease, Failure> {
    let (worker, backend) = (&asked.worker, choice.backend());
    let preface = choice.service.proxy_protocol.map(|version| {
        let (source, target) = asked.peer.ends(asked.client);
        preface::write(version, source, target)
    });
    match worker.pool.connect(backend.pool, backend.addr, preface).await {
        Ok(lease) => {
            backend.stats.failures.succeeded();
            Ok(lease)
        }
        Err(error) => {
            debug!(addr = %backend.addr, %error, "no connection");
            choice.service.failed(backend, worker.shared.clock_ms(Instant::now()));
            Err(Failure::Elsewhere(Refusal::Unreachable))
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// `/app/x?y` without `/app` is `/x?y`.
fn without_root(target: &str, root: &str) -> String {
    let rest = target.strip_prefix(root).unwrap_or(target);
    if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_taken_off() {
        for (uri, want) in
            [("/app", "/"), ("/app/", "/"), ("/app/x?y=1", "/x?y=1"), ("/app?y", "/?y")]
        {
            assert_eq!(without_root(uri, "/app"), want, "{uri}");
        }
    }
}
