//! A Docker API with as many services as one likes, for what no real Swarm on one machine has room for.
//!
//! Its answers are put together from text made beforehand, so that what one measures beside it is not its own work.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use crate::names::TempDir;

/// The one node there is.
const NODE: &str = "node0";

/// A running API; ended with the value.
#[derive(Debug)]
pub struct FakeDocker {
    state: Arc<State>,
    dir: TempDir,
    _runtime: Runtime,
}

#[derive(Debug)]
struct State {
    services: Mutex<BTreeMap<String, Service>>,
    events: broadcast::Sender<Bytes>,
}

/// A service and its tasks, as the API tells them.
#[derive(Debug)]
struct Service {
    itself: String,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    itself: String,
    /// Its entry in the gateway bridge's list.
    container: String,
}

impl FakeDocker {
    /// Starts with no service.
    pub fn start() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.join("docker.sock")).context("the socket of the fake API")?
        };
        let events = broadcast::channel(1024).0;
        let state = Arc::new(State { services: Mutex::default(), events });
        runtime.spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { state, dir, _runtime: runtime })
    }

    /// Where it is, for `--docker-host`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// Puts a service in place of the one of this number, without a word. Each of its tasks is a slot, an address and
    /// Swarm's word for its state.
    pub fn set(&self, number: usize, labels: &Value, tasks: &[(usize, Ipv4Addr, &str)]) {
        let id = id(number);
        let service = Service {
            itself: service(number, labels).to_string(),
            tasks: tasks.iter().map(|task| self::task(number, task)).collect(),
        };
        self.state.services.lock().unwrap_or_else(PoisonError::into_inner).insert(id, service);
    }

    /// Tells that a service was updated.
    pub fn updated(&self, number: usize) {
        let event = json!({
            "Type": "service", "Action": "update", "scope": "swarm",
            "Actor": {"ID": id(number), "Attributes": {"name": format!("s{number}")}},
        });
        // Before anybody listens there is nobody to tell.
        let _ = self.state.events.send(Bytes::from(format!("{event}\n")));
    }
}

/// As long as Docker's.
fn id(number: usize) -> String {
    format!("service{number:018}")
}

fn service(number: usize, labels: &Value) -> Value {
    let port = json!({"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 10_000 + number, "PublishMode": "ingress"});
    let spec = json!({
        "Name": format!("s{number}"), "Labels": labels, "Mode": {"Replicated": {"Replicas": 10}},
        "TaskTemplate": {"ContainerSpec": {"Image": "sticky-demo:latest"}, "Networks": [{"Target": "network0"}]},
        "EndpointSpec": {"Mode": "vip", "Ports": [port.clone()]},
    });
    json!({
        "ID": id(number), "Version": {"Index": 20 + number}, "CreatedAt": format!("2026-11-22T10:00:00.{number:09}Z"),
        "UpdatedAt": "2026-11-22T10:00:01Z", "Spec": spec.clone(), "PreviousSpec": spec,
        "Endpoint": {"Spec": {"Mode": "vip"}, "Ports": [port], "VirtualIPs": [{"NetworkID": "network0", "Addr": "192.0.2.9/24"}]},
    })
}

/// About as long as a task of a small stack is.
fn task(service: usize, &(slot, addr, state): &(usize, Ipv4Addr, &str)) -> Task {
    let container = format!("{service:032}{slot:032}");
    let network = json!({
        "ID": "network0", "Version": {"Index": 11}, "CreatedAt": "2026-11-22T09:00:00Z", "UpdatedAt": "2026-11-22T09:00:00Z",
        "Spec": {"Name": "demo", "Labels": {}, "DriverConfiguration": {"Name": "overlay"}, "Scope": "swarm",
            "IPAMOptions": {"Driver": {"Name": "default"}}},
        "DriverState": {"Name": "overlay", "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]},
    });
    let environment: Vec<String> =
        (0..8).map(|n| format!("SETTING_{n}=a value of some length {n}")).collect();
    let status = match state {
        "running" => {
            json!({"Timestamp": "2026-11-22T10:00:03Z", "State": state, "Message": "started", "PortStatus": {},
            "ContainerStatus": {"ContainerID": container, "PID": 4242, "ExitCode": 0}})
        }
        state => {
            json!({"Timestamp": "2026-11-22T10:00:03Z", "State": state, "Message": state, "PortStatus": {}})
        }
    };
    let itself = json!({
        "ID": format!("task{service:012}{slot:09}"), "Version": {"Index": 30 + slot}, "CreatedAt": "2026-11-22T10:00:02Z",
        "UpdatedAt": "2026-11-22T10:00:03Z", "Labels": {}, "ServiceID": id(service), "Slot": slot, "NodeID": NODE,
        "Spec": {
            "ContainerSpec": {"Image": "sticky-demo:latest", "Env": environment, "Init": false, "StopGracePeriod": 10_000_000_000_u64,
                "DNSConfig": {}, "Isolation": "default", "Labels": {"com.docker.stack.namespace": "stack"}},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0},
            "Networks": [{"Target": "network0", "Aliases": [format!("s{service}")]}], "ForceUpdate": 0,
        },
        "Status": status, "DesiredState": "running",
        "NetworksAttachments": [{"Network": network, "Addresses": [format!("10.0.1.{}/24", slot % 250)]}],
    });
    let endpoint = json!({"Name": format!("gateway_{slot}"), "EndpointID": container, "MacAddress": "02:42:ac:12:00:03",
        "IPv4Address": format!("{addr}/16"), "IPv6Address": ""});
    let running = state == "running";
    Task {
        itself: itself.to_string(),
        container: if running { format!("\"{container}\":{endpoint}") } else { String::new() },
    }
}

async fn serve(listener: UnixListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            // A client that leaves in the middle is its own business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    // Without the version of the API.
    let path = request.uri().path();
    let path = path
        .strip_prefix("/v1")
        .and_then(|rest| rest.split_once('/'))
        .map_or(path, |(_, path)| path);
    let text = match path.trim_start_matches('/') {
        "version" => json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"}).to_string(),
        "info" => json!({"Swarm": {"NodeID": NODE, "ControlAvailable": true}}).to_string(),
        "nodes" => json!([{"ID": NODE, "Description": {"Hostname": NODE}, "Status": {"State": "ready", "Addr": "198.51.100.1"}}]).to_string(),
        "networks" => json!([{"Id": "network0", "Name": "demo", "Driver": "overlay"}]).to_string(),
        "containers/json" => "[]".to_owned(),
        "events" => return Ok(Response::new(happenings(&state))),
        list => match state.list(list, request.uri().query()) {
            Some(text) => text,
            None => return Ok(not_found()),
        },
    };
    Ok(Response::new(Full::new(Bytes::from(text)).boxed()))
}

fn happenings(state: &State) -> Body {
    let frames = futures_util::stream::unfold(state.events.subscribe(), |mut events| async {
        let event = events.recv().await.ok()?;
        Some((Ok(Frame::data(event)), events))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

fn not_found() -> Response<Body> {
    let mut response =
        Response::new(Full::new(Bytes::from_static(b"{\"message\":\"not here\"}")).boxed());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

impl State {
    fn list(&self, what: &str, query: Option<&str>) -> Option<String> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = query.and_then(filtered);
        let wanted: Vec<&Service> = match &asked {
            Some(ids) => ids.iter().filter_map(|id| services.get(id)).collect(),
            None => services.values().collect(),
        };
        let tasks = wanted.iter().flat_map(|service| &service.tasks);
        Some(match what {
            "services" => join('[', wanted.iter().map(|service| service.itself.as_str()), "]"),
            "tasks" => join('[', tasks.map(|task| task.itself.as_str()), "]"),
            "networks/docker_gwbridge" => {
                let entries =
                    tasks.map(|task| task.container.as_str()).filter(|text| !text.is_empty());
                join('{', entries, "}").replacen(
                    '{',
                    "{\"Name\":\"docker_gwbridge\",\"Containers\":{",
                    1,
                ) + "}"
            }
            _ => return None,
        })
    }
}

fn join<'a>(open: char, texts: impl Iterator<Item = &'a str>, close: &str) -> String {
    let mut all = String::from(open);
    for (number, text) in texts.enumerate() {
        if number > 0 {
            all.push(',');
        }
        all.push_str(text);
    }
    all + close
}

/// The ids that a query's filter names.
fn filtered(query: &str) -> Option<Vec<String>> {
    let filters = query.split('&').find_map(|pair| pair.strip_prefix("filters="))?;
    let text = percent_decode_str(filters).decode_utf8().ok()?;
    let filters: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).ok()?;
    filters.into_values().next()
}
