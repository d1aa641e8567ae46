//! A Docker API on a Unix socket that does what a real one cannot be made to do.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Error,
    HalfAReply,
    /// Well, after some time.
    Slow,
    Silent,
}

pub(crate) struct Fake {
    directory: TempDir,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

struct State {
    mood: Mood,
    answers: HashMap<&'static str, Value>,
    calls: Vec<String>,
    /// The calls that are let through, as a proxy of the socket does; `None`: all.
    only: Option<&'static [&'static str]>,
    /// Bytes of answers.
    bytes: usize,
    /// Orders to refuse, with the status and the message, and how often.
    refusals: HashMap<&'static str, (StatusCode, &'static str, usize)>,
    /// Orders that were given, with their bodies.
    orders: Vec<(String, String)>,
    events: broadcast::Sender<String>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let answers = HashMap::from([
            ("/version", json!({"ApiVersion": "1.41", "Version": "20.10.24"})),
            ("/info", json!({"Swarm": {"NodeID": "here", "ControlAvailable": true}})),
            (
                "/nodes",
                json!([{"ID": "here", "Description": {"Hostname": "host"}, "Status": {"Addr": "198.51.100.1"}}]),
            ),
            ("/networks", json!([])),
            ("/networks/docker_gwbridge", json!({"Containers": {}})),
            ("/containers/json", json!([])),
            ("/services", json!([])),
            ("/tasks", json!([])),
        ]);
        let events = broadcast::channel(64).0;
        let state = State {
            mood: Mood::Well,
            answers,
            calls: Vec::new(),
            only: None,
            bytes: 0,
            refusals: HashMap::new(),
            orders: Vec::new(),
            events,
        };
        let directory = tempfile::tempdir().unwrap();
        let mut fake = Self { directory, state: Arc::new(Mutex::new(state)), server: None };
        fake.listen();
        fake
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Listens, as a daemon that has come back does.
    pub(crate) fn listen(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        let state = Arc::clone(&self.state);
        self.server = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // A reply that is cut off ends its connection with an error.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    /// Ends with every connection, as a daemon that is killed does.
    pub(crate) async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// `null`: the call is not allowed.
    pub(crate) fn set(&self, path: &'static str, answer: Value) {
        self.state.lock().unwrap().answers.insert(path, answer);
    }

    /// The calls since this was last asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    /// Refuses an order, such as `POST /services/s0/update`, so many times.
    pub(crate) fn refuse(
        &self,
        order: &'static str,
        status: u16,
        message: &'static str,
        times: usize,
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        self.state.lock().unwrap().refusals.insert(order, (status, message, times));
    }

    /// Lets only GETs of these paths through.
    pub(crate) fn only(&self, paths: &'static [&'static str]) {
        self.state.lock().unwrap().only = Some(paths);
    }

    /// The bytes that were answered since this was last asked.
    pub(crate) fn bytes(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().bytes)
    }

    /// The orders that were given, with their query and body, since this was last asked.
    pub(crate) fn orders(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.state.lock().unwrap().orders)
    }

    /// Sends an event to whoever listens.
    pub(crate) fn event(&self, event: &Value) {
        let _ = self.state.lock().unwrap().events.send(format!("{event}\n"));
    }

    /// One service with `replicas` running tasks on this node.
    pub(crate) fn demo(&self, replicas: usize) {
        self.services(1, replicas);
    }

    /// Services named `s0`, `s1`, …
    pub(crate) fn services(&self, services: usize, replicas: usize) {
        let service = |s: usize| {
            json!({"ID": format!("s{s}"), "CreatedAt": "2026-11-22T10:00:00Z", "Spec": {"Name": format!("s{s}"), "Labels":
                {"com.docker.lb.hosts": format!("s{s}.local"), "com.docker.lb.port": "8080"}}})
        };
        let task = |s: usize, t: usize| {
            json!({"ID": format!("t{s}-{t}"), "ServiceID": format!("s{s}"), "Slot": t, "NodeID": "here",
                "DesiredState": "running", "Status": {"State": "running", "ContainerStatus": {"ContainerID": format!("c{s}-{t}")}},
                "Spec": {"ContainerSpec": {"Image": "demo", "Env": ["A=1", "B=2", "C=3"]}, "Networks": [{"Target": "n"}]}})
        };
        let container = |s: usize, t: usize| {
            (format!("c{s}-{t}"), json!({"IPv4Address": format!("203.0.113.{}/24", t % 250)}))
        };
        let all = || (0..services).flat_map(|s| (1..=replicas).map(move |t| (s, t)));
        self.set("/services", (0..services).map(service).collect());
        self.set("/tasks", all().map(|(s, t)| task(s, t)).collect());
        let containers: serde_json::Map<String, Value> =
            all().map(|(s, t)| container(s, t)).collect();
        self.set("/networks/docker_gwbridge", json!({"Containers": containers}));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    // Without the version of the API.
    let path = path
        .strip_prefix("/v")
        .and_then(|rest| rest.find('/').map(|slash| &rest[slash..]))
        .unwrap_or(path);
    let query = head.uri.query().unwrap_or_default().to_owned();
    let only = state.lock().unwrap().only;
    if only.is_some_and(|only| head.method != Method::GET || !only.contains(&path)) {
        return Ok(plain(StatusCode::FORBIDDEN, &json!({"message": "not for you"})));
    }
    if head.method != Method::GET {
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut state = state.lock().unwrap();
        let order = format!("{} {path}", head.method);
        let text = String::from_utf8_lossy(&body).into_owned();
        state.orders.push((format!("{order}?{query}"), text));
        if let Some((status, message, times)) = state.refusals.get_mut(order.as_str())
            && *times > 0
        {
            *times -= 1;
            return Ok(plain(*status, &json!({"message": message})));
        }
    }
    let (mood, answer, events) = {
        let mut state = state.lock().unwrap();
        state.calls.push(path.to_owned());
        (state.mood, state.answers.get(path).cloned(), state.events.subscribe())
    };
    if mood == Mood::Slow {
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    if mood == Mood::Silent {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    if mood == Mood::Error {
        return Ok(plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"message": "raft is out of order"}),
        ));
    }
    if answer == Some(Value::Null) {
        return Ok(plain(StatusCode::FORBIDDEN, &json!({"message": "not allowed"})));
    }
    if path == "/events" {
        let frames = futures_util::stream::unfold(events, |mut events| async {
            let event = events.recv().await.ok()?;
            Some((Ok(Frame::data(Bytes::from(event))), events))
        });
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
    }
    let answer = answer.map(|answer| filtered(path, &query, answer));
    let bytes = answer.as_ref().map_or(0, |answer| answer.to_string().len());
    state.lock().unwrap().bytes += bytes;
    Ok(match (mood, answer) {
        (_, None) => plain(StatusCode::NOT_FOUND, &json!({"message": format!("{path} not found")})),
        (Mood::HalfAReply, Some(answer)) => {
            let text = answer.to_string();
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let frames = [Ok(Frame::data(half)), Err(std::io::Error::other("cut off"))];
            Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
        }
        (_, Some(answer)) => plain(StatusCode::OK, &answer),
    })
}

/// What the filter of a query leaves of a list.
fn filtered(path: &str, query: &str, answer: Value) -> Value {
    let key = match path {
        "/services" => "ID",
        "/tasks" => "ServiceID",
        "/containers/json" if query.contains("unhealthy") => {
            let ill =
                |item: &Value| item["Status"].as_str().is_some_and(|s| s.contains("(unhealthy)"));
            return answer
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| ill(item))
                .cloned()
                .collect();
        }
        _ => return answer,
    };
    match answer {
        Value::Array(items) if query.contains("filters") => {
            // The ids are in the query as they are, between encoded quotes.
            let wanted = |item: &Value| {
                let id = item[key].as_str().unwrap_or_default().replace('-', "%2D");
                query.contains(&format!("%22{id}%22")) || query.contains("desired%2Dstate")
            };
            items.into_iter().filter(wanted).collect()
        }
        answer => answer,
    }
}

fn plain(status: StatusCode, answer: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed(body));
    *response.status_mut() = status;
    response
}
