//! What each path answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body::{Body, FNV_START, events, fnv1a, full, pattern};
use crate::websocket;

/// Answers one request; every answer says in `x-instance` who gave it.
pub async fn answer(
    request: Request<Incoming>,
    client: SocketAddr,
    app: Arc<App>,
) -> Result<Response<Body>, Infallible> {
    app.requests.fetch_add(1, Ordering::Relaxed);
    let executions = request
        .headers()
        .get("x-idempotency")
        .and_then(|id| id.to_str().ok())
        .map(|id| app.executed(id));
    let mut response = match request.uri().path() {
        "/" => page(&app),
        "/ping" => ping(&request, client, &app),
        "/headers" => json_response(&received(request.headers())),
        "/info" | "/stats" => json_response(&app.stats()),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number(&request, "ms", 1000))).await;
            ping(&request, client, &app)
        }
        "/large" => large(number(&request, "bytes", 1_000_000)),
        "/events" => event_stream(Duration::from_millis(number(&request, "ms", 1000))),
        "/echo" => Response::new(request.into_body().boxed()),
        "/digest" => digest(request, &app).await,
        "/set-cookie" => set_cookie(&request, &app),
        "/health" => health(&request, &app),
        "/ws" => websocket::upgrade(request, &app),
        _ => plain(StatusCode::NOT_FOUND, "not found\n"),
    };
    let headers = response.headers_mut();
    if let Ok(instance) = HeaderValue::from_str(&app.instance) {
        headers.insert("x-instance", instance);
    }
    if let Some(count) = executions {
        headers.insert("x-executions", HeaderValue::from(count));
    }
    Ok(response)
}

/// The answer of `/ping`: docker-demo's four members first, as the documentation prints them.
#[derive(Debug, Serialize)]
struct Ping<'a> {
    instance: &'a str,
    version: &'a str,
    metadata: &'a str,
    request_id: &'a str,
    /// The peer as this instance saw it, `address:port`.
    client: SocketAddr,
    forwarded_for: Option<&'a str>,
    session: &'a str,
    session_hits: u64,
    /// Whether this instance created the session.
    known: bool,
}

fn ping(request: &Request<Incoming>, client: SocketAddr, app: &App) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let cookies = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let visit = app.sessions.visit(cookies);
    let mut response = json_response(&Ping {
        instance: &app.instance,
        version: &app.version,
        metadata: &app.metadata,
        request_id: header("x-request-id").unwrap_or_default(),
        client,
        forwarded_for: header("x-forwarded-for"),
        session: &visit.id,
        session_hits: visit.hits,
        known: visit.known,
    });
    if let Ok(cookie) = HeaderValue::from_str(&visit.set_cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// `/set-cookie?A=1;+Path=/`: an application that sets any cookie; `+` is a space.
fn set_cookie(request: &Request<Incoming>, app: &App) -> Response<Body> {
    let cookie = request.uri().query().unwrap_or_default().replace('+', " ");
    let mut response = json_response(&json!({ "instance": app.instance }));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Whether this instance is well; `?well=0` makes it ill from now on.
fn health(request: &Request<Incoming>, app: &App) -> Response<Body> {
    if number(request, "well", 1) == 0 {
        app.well.store(false, Ordering::Relaxed);
    }
    match app.well.load(Ordering::Relaxed) {
        true => plain(StatusCode::OK, "well\n"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, "ill\n"),
    }
}

async fn digest(request: Request<Incoming>, app: &App) -> Response<Body> {
    let method = request.method().to_string();
    let (mut length, mut hash) = (0, FNV_START);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return plain(StatusCode::BAD_REQUEST, "the body broke off\n");
        };
        if let Some(piece) = frame.data_ref() {
            length += piece.len();
            hash = fnv1a(hash, piece);
        }
    }
    let hash = format!("{hash:016x}");
    json_response(
        &json!({ "instance": app.instance, "method": method, "length": length, "fnv1a": hash }),
    )
}

fn large(length: u64) -> Response<Body> {
    let mut response = Response::new(pattern(length));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

fn event_stream(pause: Duration) -> Response<Body> {
    let mut response = Response::new(events(pause));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn received(headers: &HeaderMap) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        let Some(values) = all.entry(name.as_str()).or_insert_with(|| json!([])).as_array_mut()
        else {
            continue;
        };
        values.push(value);
    }
    Value::Object(all)
}

fn page(app: &App) -> Response<Body> {
    let text = format!(
        "<!doctype html><title>sticky-demo</title><meta charset=utf-8><h1>{}</h1><pre id=ping></pre>\
         <script>setInterval(async () => document.getElementById('ping').textContent =\
         JSON.stringify(await (await fetch('ping')).json(), null, 2), 1000)</script>\n",
        app.instance
    );
    let mut response = Response::new(full(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn json_response(value: &impl Serialize) -> Response<Body> {
    let mut text =
        serde_json::to_string(value).expect("strings, numbers and maps with string keys");
    text.push('\n');
    let mut response = Response::new(full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

/// The number `name` of the query, `default` if there is none.
fn number(request: &Request<Incoming>, name: &str, default: u64) -> u64 {
    let query = request.uri().query().unwrap_or_default();
    let value =
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    value.and_then(|(_, value)| value.parse().ok()).unwrap_or(default)
}
