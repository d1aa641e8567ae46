//! One attempt at one backend. What was sent is sent again only if that cannot do harm.

use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, Uri};
use hyper::Request;
use hyper::body::Incoming;
use tracing::debug;

use super::Asked;
use crate::proxy::body::{Progress, RequestBody, Upload};
use crate::proxy::choice::Choice;
use crate::proxy::exchange::Exchange;
use crate::proxy::forwarded::X_FORWARDED_PREFIX;
use crate::proxy::reason::Reason;
use crate::proxy::respond::Refusal;
use crate::proxy::service::Service;
use crate::proxy::upstream::Lease;
use crate::proxy::{headers, preface};

const PUT_BACK: &str = "every failure that is tried again puts it back";

/// A request on its way to some backend.
pub(super) struct Outgoing {
    /// Taken while an attempt is on.
    next: Option<(Parts, RequestBody)>,
    /// What may be sent twice, since it is idempotent (RFC 9110, section 9.2.2) and without a body. What we add is not in
    /// it: that is more than most clients send, and is added again.
    spare: Option<Spare>,
    /// As it came, once another one was sent.
    uri: Option<Uri>,
    upload: Option<Rc<Upload>>,
    /// Take no connection that was used before.
    fresh: bool,
}

/// A copy of a request's head, which few need: smaller and sooner made than another [`HeaderMap`].
struct Spare {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(parts: &Parts) -> Self {
        let headers = parts.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers: headers.collect() }
    }

    fn parts(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = self.uri.clone();
        parts.headers = self.headers.iter().cloned().collect();
        parts
    }
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
        let (mut parts, body) = request.into_parts();
        let upgrades = upgrade.is_some();
        headers::strip_request(&mut parts.headers, upgrade);
        asked.presented.take_off(&mut parts.headers);
        if parts.uri.authority().is_some() {
            parts.uri = origin_form(&parts.uri);
        }
        let (body, upload) =
            RequestBody::new(body, asked.worker.timeouts().body, exchange.phase.clone());
        let repeatable = upload.is_none() && !upgrades && is_idempotent(&parts.method);
        Self {
            uri: None,
            spare: repeatable.then(|| Spare::of(&parts)),
            next: Some((told(asked, parts), body)),
            upload,
            fresh: false,
        }
    }

    /// Its headers, between attempts.
    pub(super) fn headers(&self) -> &HeaderMap {
        let (parts, _) = self.next.as_ref().expect(PUT_BACK);
        &parts.headers
    }

    pub(super) async fn attempt(
        &mut self,
        asked: &Asked,
        choice: &Choice,
        now: Instant,
    ) -> Result<(Response<()>, Lease), Failure> {
        let mut lease = match self.idle(asked, choice, now) {
            Some(lease) => lease,
            // Few requests do, and each would have room for it.
            None => Box::pin(connect(asked, choice)).await?,
        };
        let (reused, backend) = (lease.reused, choice.backend());
        // To open one took its time.
        let now = if reused { now } else { Instant::now() };
        let Self { next, uri, upload, .. } = self;
        let (parts, body) = next.as_mut().expect(PUT_BACK);
        fit(parts, uri, &choice.service);
        if let Err(error) = lease.send(parts, mem::replace(body, RequestBody::Empty), now) {
            debug!(addr = %backend.addr, reused, %error, "request not sent");
            return Err(if reused {
                Failure::Stale
            } else {
                Failure::Elsewhere(Refusal::Unreachable)
            });
        }
        *next = None;
        let mut pieces = 0;
        let result = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = lease.poll_answer(cx) {
                    return Poll::Ready(Some(result));
                }
                ready!(lease.poll_late(cx));
                // The time for an answer begins when the whole request is there.
                match upload.as_ref().and_then(|upload| upload.moved_on(pieces)) {
                    Some(now) => pieces = now,
                    None => return Poll::Ready(None),
                }
            }
        });
        let error = match result.await {
            Some(Ok(response)) => return Ok((response, lease)),
            Some(Err(error)) => error,
            None => return Err(Failure::Final(Refusal::Timeout)),
        };
        debug!(addr = %backend.addr, reused, %error, "attempt failed");
        match upload.as_ref().map(|upload| upload.progress()) {
            Some(Progress::Stalled) => return Err(Failure::Final(Refusal::Stalled)),
            Some(Progress::Broken) => return Err(Failure::Final(Refusal::BrokenBody)),
            _ => {}
        }
        let Some(spare) = &self.spare else { return Err(Failure::Final(Refusal::BadAnswer)) };
        self.next = Some((told(asked, spare.parts()), RequestBody::Empty));
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

    /// How long a connection may have been idle. Servers close after some seconds, perhaps just as the request comes, and
    /// one that must not be sent twice had better not meet that.
    const fn oldest(&self) -> Duration {
        if self.spare.is_some() { Duration::MAX } else { Duration::from_secs(1) }
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

/// Has a head be as this service wants it; `uri` is the one that came.
fn fit(parts: &mut Parts, uri: &mut Option<Uri>, service: &Service) {
    if service.rewrite {
        let uri = uri.get_or_insert_with(|| parts.uri.clone());
        parts.uri = without_root(uri, &service.root);
        if let Ok(root) = HeaderValue::from_str(&service.root) {
            parts.headers.insert(&X_FORWARDED_PREFIX, root);
        }
    } else if let Some(uri) = uri {
        // One that was tried before has it rewritten.
        parts.uri = uri.clone();
        parts.headers.remove(&X_FORWARDED_PREFIX);
    }
}

/// A request with what its backend is told by us.
fn told(asked: &Asked, mut parts: Parts) -> Parts {
    asked.peer.tell(&mut parts.headers, &asked.host, asked.client, &asked.id);
    if let Some(tag) = &asked.presented.tag {
        parts.headers.insert(tag.name.clone(), tag.value.clone());
    }
    parts
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Path and query only, as a server wants it (RFC 9112, section 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// `/app/x?y` without `/app` is `/x?y`.
fn without_root(uri: &Uri, root: &str) -> Uri {
    let Some(all) = uri.path_and_query() else { return uri.clone() };
    let rest = all.as_str().strip_prefix(root).unwrap_or(all.as_str());
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    PathAndQuery::try_from(rest).map_or_else(|_| uri.clone(), Uri::from)
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn a_copy_has_all_of_a_head() {
        let request = Request::put("/x?y").header("a", "1").header("b", "2").header("a", "3");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let copy = Spare::of(&parts).parts();
        assert_eq!(
            (copy.method, copy.uri, copy.headers, copy.version),
            (parts.method, parts.uri, parts.headers, Version::HTTP_11)
        );
    }

    #[test]
    fn the_root_is_taken_off() {
        for (uri, want) in
            [("/app", "/"), ("/app/", "/"), ("/app/x?y=1", "/x?y=1"), ("/app?y", "/?y")]
        {
            assert_eq!(without_root(&Uri::from_static(uri), "/app"), want, "{uri}");
        }
    }

    #[test]
    fn absolute_becomes_origin() {
        assert_eq!(origin_form(&Uri::from_static("http://a:1/x?y")), "/x?y");
        assert_eq!(origin_form(&Uri::from_static("http://a:1")), "/");
    }
}
