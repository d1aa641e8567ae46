//! One request: route, choose, send, answer; and what is tried when a backend fails.

mod attempt;
mod response;

use std::convert::Infallible;
use std::net::IpAddr;
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
use super::driver::Driver;
use super::exchange::Exchange;
use super::forwarded::{Peer, PerHost};
use super::presented::Presented;
use super::respond::Refusal;
use super::routes::{Found, Route};
use super::worker::Worker;
use super::{headers, host, tunnel};

/// Answers a request; whatever happens, there is an answer.
pub(super) async fn answer(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    phase: Arc<Phase>,
    driver: Rc<Driver>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    // It goes through many hands.
    let mut exchange = Box::new(Exchange::new(&request, phase, peer.addr));
    let mut request = request;
    let protocol = headers::upgrade(request.headers());
    let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    // hyper keeps room for this future with each connection, idle ones too; the rest of it is there for the request only.
    Ok(match Box::pin(forward(&worker, &peer, &driver, request, protocol, &mut exchange)).await {
        Ok(response) => relay(&worker, response, upgrade, exchange),
        Err(refusal) => refusal.response(exchange),
    })
}

fn relay(
    worker: &Rc<Worker>,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrade else { return Refusal::BadAnswer.response(exchange) };
        let backend = hyper::upgrade::on(&mut response);
        tunnel::join(worker, client, backend, exchange);
        return response.map(|_| ResponseBody::detached());
    }
    let silence = Some(worker.timeouts().silence).filter(|_| !is_event_stream(&response));
    response.map(|body| ResponseBody::upstream(body, silence, exchange))
}

/// Server-sent events come when there are some (HTML standard, section 9.2).
fn is_event_stream(response: &Response<Incoming>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers::get(response.headers(), &CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// How long after its end a backend is known to be gone: Docker tells within a quarter of a second.
const SOON: Duration = Duration::from_millis(500);

/// The request with all that does not change between attempts.
struct Asked<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Peer,
    driver: &'a Rc<Driver>,
    host: &'a PerHost,
    id: HeaderValue,
    client: IpAddr,
    https: bool,
    presented: Presented,
    /// Seconds since 1970.
    now: u64,
}

async fn forward(
    worker: &Rc<Worker>,
    peer: &Peer,
    driver: &Rc<Driver>,
    request: Request<Incoming>,
    upgrade: Option<HeaderValue>,
    exchange: &mut Exchange,
) -> Result<Response<Incoming>, Refusal> {
    let shared = &worker.shared;
    let trusted = &shared.settings.trusted_proxies;
    let known = request.headers();
    exchange.client = peer.client(known, trusted);
    exchange.id = peer.request_id(known).unwrap_or_else(|| worker.request_id());
    let host = host::asked(request.uri(), known, request.version()).ok_or(Refusal::BadHost)?;
    let host = peer.per_host(&host);
    exchange.host = Some(host.host.clone());
    let name = host.name.as_deref().ok_or(Refusal::BadHost)?;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let https = peer.secure(known);

    let mut routes = shared.routes.load_full();
    let mut route = find(&routes, name, exchange)?;
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
    let (client, id) = (exchange.client, exchange.id.clone());
    let asked = Asked { worker, peer, driver, host: &host, id, client, https, presented, now };
    let mut outgoing = Outgoing::new(&asked, request, upgrade, exchange);

    let mut failed: Vec<u64> = Vec::new();
    let mut last = Refusal::NoBackend;
    let mut counted = false;
    let mut known_by = None;
    // Looked at again only after a wait.
    let mut clock = Some(exchange.began);
    let gap_ends = tokio::time::Instant::from_std(exchange.began) + shared.settings.timeouts.gap;
    loop {
        let now = clock.take().unwrap_or_else(Instant::now);
        let now_ms = shared.clock_ms(now);
        if !route.services.iter().any(|service| service.admits(asked.client)) {
            return Err(Refusal::Forbidden);
        }
        let chooser = Chooser {
            clients: &*shared.clients,
            random: &worker.random,
            key: shared.hash_key,
            now_ms,
            client: asked.client,
            headers: outgoing.headers(),
            failed: &failed,
        };
        let choice = match chooser.choose(&route, &asked.presented) {
            Ok(choice) => choice,
            Err(NoChoice::Lost) => return Err(Refusal::NoBackend),
            Err(NoChoice::Full) => {
                worker.pause(gap_ends).await.ok_or(Refusal::NoBackend)?;
                continue;
            }
            Err(NoChoice::Nobody) if has_any(&route, &failed) => {
                // If the last one has crashed, that is known in a moment, and another will come.
                let soon = *known_by.get_or_insert_with(|| {
                    gap_ends.min(tokio::time::Instant::from_std(now) + SOON)
                });
                match worker.next_routes(&routes, soon).await {
                    Some(next) => routes = next,
                    None => return Err(last),
                }
                route = find(&routes, name, exchange)?;
                continue;
            }
            Err(NoChoice::Nobody) => {
                routes = worker.next_routes(&routes, gap_ends).await.ok_or(Refusal::NoBackend)?;
                route = find(&routes, name, exchange)?;
                continue;
            }
        };
        if !https && choice.service.ssl_only {
            return Err(to_https(name, exchange));
        }
        if !counted && !choice.service.affords(asked.client, now_ms) {
            return Err(Refusal::TooMany);
        }
        counted = true;
        if !choice.service.enter(choice.backend) {
            // Somebody else was quicker.
            worker.pause(gap_ends).await.ok_or(Refusal::NoBackend)?;
            continue;
        }
        let choice = exchange.chosen(choice, now);
        let (service, pool) = (choice.service.clone(), choice.backend().pool);
        match outgoing.attempt(&asked, choice, now).await {
            Ok((response, lease)) => {
                let took = exchange.answered(lease);
                return response::finish(&asked, &route, response, took, exchange);
            }
            Err(Failure::Final(refusal)) => return Err(refusal),
            // The backend had closed a connection that was idle: nothing is wrong with it.
            Err(Failure::Stale) => {}
            Err(Failure::Elsewhere(refusal)) => {
                failed.push(pool);
                last = refusal;
                if failed.len() >= shared.settings.limits.attempts {
                    return Err(last);
                }
            }
        }
        service.stats.retried();
    }
}

fn to_https(host: &str, exchange: &Exchange) -> Refusal {
    if host.is_empty() {
        return Refusal::BadHost;
    }
    let target = format!("https://{host}{}", exchange.query());
    Refusal::Redirect(StatusCode::PERMANENT_REDIRECT, target)
}

/// Whether a backend that this request failed at is still there, as far as we know.
fn has_any(route: &Route, failed: &[u64]) -> bool {
    let mut backends = route.services.iter().flat_map(|service| &service.backends);
    backends.any(|backend| failed.contains(&backend.pool))
}

fn find(
    routes: &super::routes::Routes,
    host: &str,
    exchange: &Exchange,
) -> Result<Arc<Route>, Refusal> {
    match routes.find(host, exchange.path()) {
        Found::Route(route) => Ok(route.clone()),
        Found::Redirect(target) => {
            Err(Refusal::Redirect(StatusCode::FOUND, format!("{target}{}", exchange.query())))
        }
        Found::Nothing => Err(Refusal::UnknownHost),
    }
}

/// Whole seconds need no better clock than the one that the kernel sets with each tick.
fn unix_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE);
    now.map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or(0))
}
