//! One request: route, choose, send, answer; and what is tried when a backend fails.

mod attempt;
mod response;

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use nix::time::{ClockId, clock_gettime};

use self::attempt::{Failure, Outgoing};
use super::body::ResponseBody;
use super::choice::{Chooser, NoChoice};
use super::connection::Phase;
use super::exchange::Exchange;
use super::forwarded::{Peer, PerHost};
use super::presented::Presented;
use super::respond::Refusal;
use super::routes::{Found, Route, Routes};
use super::worker::Worker;
use super::{headers, host, tunnel};

/// What becomes of a request. hyper keeps room for it with each connection, idle ones too, so there is no more of it than this.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>>>>;

/// Answers a request; whatever happens, there is an answer.
pub(super) fn answer(
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    phase: &Arc<Phase>,
    mut request: Request<Incoming>,
) -> Answer {
    // It goes through many hands.
    let mut exchange = Box::new(Exchange::new(&mut request, phase.clone(), peer.addr));
    let protocol = headers::upgrade(request.headers());
    let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    // All that needs no waiting is done here: what an `async fn` is called with has room in its future twice.
    let mut forwarding = match Forwarding::new(worker, peer, request, protocol, &mut exchange) {
        Ok(forwarding) => forwarding,
        Err(refusal) => return Box::pin(ready(Ok(refusal.response(exchange)))),
    };
    Box::pin(async move {
        Ok(match forwarding.run(&mut exchange).await {
            Ok(response) => relay(&forwarding.asked.worker, response, upgrade, exchange),
            Err(refusal) => refusal.response(exchange),
        })
    })
}

fn relay(
    worker: &Rc<Worker>,
    response: Response<()>,
    upgrade: Option<OnUpgrade>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let ends = upgrade.and_then(|client| Some((client, exchange.take_stream()?)));
        let Some((client, backend)) = ends else { return Refusal::BadAnswer.response(exchange) };
        tunnel::join(worker, client, backend, exchange);
        return response.map(|()| ResponseBody::detached());
    }
    let silence = Some(worker.timeouts().silence).filter(|_| !is_event_stream(&response));
    response.map(|()| ResponseBody::upstream(silence, exchange))
}

/// Server-sent events come when there are some (HTML standard, section 9.2).
fn is_event_stream(response: &Response<()>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers::get(response.headers(), &CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// How long after its end a backend is known to be gone: Docker tells within a quarter of a second.
const SOON: Duration = Duration::from_millis(500);

/// All of a request that does not change between attempts.
struct Asked {
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    host: Rc<PerHost>,
    client: IpAddr,
    https: bool,
    presented: Presented,
    /// Seconds since 1970.
    now: u64,
}

/// A request on its way to a backend.
struct Forwarding {
    asked: Asked,
    outgoing: Outgoing,
    routes: Arc<Routes>,
    route: Arc<Route>,
}

impl Forwarding {
    fn new(
        worker: &Rc<Worker>,
        peer: &Rc<Peer>,
        request: Request<Incoming>,
        upgrade: Option<HeaderValue>,
        exchange: &mut Exchange,
    ) -> Result<Self, Refusal> {
        let shared = &worker.shared;
        let known = request.headers();
        exchange.client = peer.client(known, &shared.settings.trusted_proxies);
        exchange.id = peer.request_id(known).unwrap_or_else(|| worker.ids.next(&worker.random));
        let host = host::asked(&exchange.uri, known, request.version()).ok_or(Refusal::BadHost)?;
        let host = peer.per_host(&host);
        exchange.host = Some(host.clone());
        let name = host.name.as_deref().ok_or(Refusal::BadHost)?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method);
        }
        let https = peer.secure(known);

        let routes = shared.routes.load_full();
        let route = find(&routes, name, exchange)?;
        exchange.service = route.services.first().cloned();
        if !https && route.services.iter().all(|service| service.ssl_only) {
            return Err(to_https(name, exchange));
        }
        let now = if route.reads { unix_time() } else { 0 };
        let presented = if route.reads {
            Presented::read(known, &route, &shared.keys.load(), &peer.recall, now)
        } else {
            Presented::default()
        };
        let asked = Asked {
            worker: worker.clone(),
            peer: peer.clone(),
            host,
            client: exchange.client,
            https,
            presented,
            now,
        };
        let outgoing = Outgoing::new(&asked, request, upgrade, exchange);
        Ok(Self { asked, outgoing, routes, route })
    }

    async fn run(&mut self, exchange: &mut Exchange) -> Result<Response<()>, Refusal> {
        let Self { asked, outgoing, routes, route } = self;
        let worker = asked.worker.clone();
        let shared = &worker.shared;
        let name = asked.host.name.as_deref().ok_or(Refusal::BadHost)?;
        let mut failed: Vec<u64> = Vec::new();
        let mut last = Refusal::NoBackend;
        let mut counted = false;
        let mut known_by = None;
        // Looked at again only after a wait.
        let mut clock = Some(exchange.began);
        let gap_ends =
            tokio::time::Instant::from_std(exchange.began) + shared.settings.timeouts.gap;
        loop {
            let now = clock.take().unwrap_or_else(Instant::now);
            let now_ms = shared.clock_ms(now);
            if !route.services.iter().any(|service| service.admits(asked.client)) {
                return Err(Refusal::Forbidden);
            }
            let chosen = Chooser {
                clients: &*shared.clients,
                random: &worker.random,
                key: shared.hash_key,
                now_ms,
                client: asked.client,
                headers: outgoing.headers(),
                failed: &failed,
            }
            .choose(route, &asked.presented);
            let choice = match chosen {
                Ok(choice) => choice,
                Err(NoChoice::Lost) => return Err(Refusal::NoBackend),
                Err(NoChoice::Full) => {
                    Box::pin(worker.pause(gap_ends)).await.ok_or(Refusal::NoBackend)?;
                    continue;
                }
                Err(NoChoice::Nobody) if has_any(route, &failed) => {
                    // If the last one has crashed, that is known in a moment, and another will come.
                    let soon = *known_by.get_or_insert_with(|| {
                        gap_ends.min(tokio::time::Instant::from_std(now) + SOON)
                    });
                    match Box::pin(worker.next_routes(routes, soon)).await {
                        Some(next) => *routes = next,
                        None => return Err(last),
                    }
                    *route = find(routes, name, exchange)?;
                    continue;
                }
                Err(NoChoice::Nobody) => {
                    let next = Box::pin(worker.next_routes(routes, gap_ends)).await;
                    *routes = next.ok_or(Refusal::NoBackend)?;
                    *route = find(routes, name, exchange)?;
                    continue;
                }
            };
            if !asked.https && choice.service.ssl_only {
                return Err(to_https(name, exchange));
            }
            if !counted && !choice.service.affords(asked.client, now_ms) {
                return Err(Refusal::TooMany);
            }
            counted = true;
            if !choice.service.enter(choice.backend) {
                // Somebody else was quicker.
                Box::pin(worker.pause(gap_ends)).await.ok_or(Refusal::NoBackend)?;
                continue;
            }
            let begun = exchange.chosen(choice, now);
            match outgoing.attempt(asked, begun, now).await {
                Ok((response, lease)) => {
                    let took = exchange.answered(lease);
                    return response::finish(asked, route, response, took, exchange);
                }
                Err(Failure::Final(refusal)) => return Err(refusal),
                // The backend had closed a connection that was idle: nothing is wrong with it.
                Err(Failure::Stale) => {}
                Err(Failure::Elsewhere(refusal)) => {
                    failed.push(begun.choice.backend().pool);
                    last = refusal;
                    if failed.len() >= shared.settings.limits.attempts {
                        return Err(last);
                    }
                }
            }
            begun.choice.service.stats.retried();
        }
    }
}

fn to_https(host: &str, exchange: &Exchange) -> Refusal {
    if host.is_empty() {
        return Refusal::BadHost;
    }
    let target = format!("https://{host}{}", exchange.target());
    Refusal::Redirect(StatusCode::PERMANENT_REDIRECT, target)
}

/// Whether a backend that this request failed at is still there, as far as we know.
fn has_any(route: &Route, failed: &[u64]) -> bool {
    let mut backends = route.services.iter().flat_map(|service| &service.backends);
    backends.any(|backend| failed.contains(&backend.pool))
}

fn find(routes: &Routes, host: &str, exchange: &Exchange) -> Result<Arc<Route>, Refusal> {
    match routes.find(host, exchange.path()) {
        Found::Route(route) => Ok(route.clone()),
        Found::Redirect(target) => {
            Err(Refusal::Redirect(StatusCode::FOUND, format!("{target}{}", exchange.target())))
        }
        Found::Nothing => Err(Refusal::UnknownHost),
    }
}

/// Whole seconds need no better clock than the one that the kernel sets with each tick.
fn unix_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE);
    now.map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or(0))
}
