use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::control::{FrontendInForce, Path};
use crate::model::{Frontend, HostPattern, Proto, State};

pub(crate) fn backend(id: &str, name: &str, state: State) -> Backend {
    Backend {
        id: id.into(),
        name: name.into(),
        addr: Some("172.18.0.3:8080".parse().unwrap()),
        node: "host1".into(),
        addr_v6: None,
        layer4: true,
        weight: 1,
        state,
        reason: None,
        outgoing: false,
    }
}

pub(crate) fn in_force() -> InForce {
    let error = LabelError {
        label: "com.docker.lb.prt".into(),
        value: "1".into(),
        message: "unknown label".into(),
        hint: "did you mean com.docker.lb.port?".into(),
    };
    let service = Service {
        id: "s1".into(),
        name: "demo".into(),
        config: ServiceConfig {
            hosts: vec![HostPattern::Exact("demo.local".into())],
            ip_hash: true,
            ..ServiceConfig::default()
        },
        publish: Vec::new(),
        backends: vec![backend("kpf4", "demo.1", State::Up)],
        errors: vec![error],
    };
    let addr: IpAddr = "198.51.100.1".parse().unwrap();
    let frontend = Frontend { addr, port: 8080, proto: Proto::Tcp };
    InForce {
        generation: 12,
        snapshot: Arc::new(Snapshot { services: vec![service.into()] }),
        services: vec![
            InForceService {
                id: "s1".into(),
                frontends: vec![FrontendInForce { frontend, target: 8080, path: Path::Xdp }],
                slots: HashMap::from([("kpf4".to_owned(), 3277)]),
                errors: Vec::new(),
                loaded: true,
            }
            .into(),
        ],
        updated: SystemTime::UNIX_EPOCH,
        took: Duration::from_millis(38),
    }
}

fn status() -> Status {
    let in_force = in_force();
    let provider = ProviderStatus {
        kind: "swarm",
        connected: true,
        error: None,
        last_update: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_341_600),
    };
    let counters = Counters {
        outcomes: Vec::new(),
        backends: HashMap::from([("kpf4".to_owned(), (7, 700))]),
        clients: HashMap::from([("s1".to_owned(), 1200)]),
    };
    build(&Parts {
        node: "host1",
        table_size: 16381,
        max_clients: 1200,
        drains: &[],
        interfaces: vec![Interface {
            name: "eth0".into(),
            mode: "native".into(),
            pinned: true,
            problem: None,
        }],
        provider: &provider,
        found: &Snapshot::default(),
        in_force: Some(&in_force),
        counters: &counters,
        requests: &|service, backend| u64::from(service == "s1" && backend == "kpf4") * 5,
    })
}

#[test]
fn the_json_has_the_promised_names() {
    let expected = json!({
        "node": "host1", "version": env!("CARGO_PKG_VERSION"), "generation": 12,
        "datapath": {
            "interfaces": [{ "name": "eth0", "mode": "native", "pinned": true }],
            "table_size": 16381,
            "max_clients": 1200,
        },
        "provider": {
            "kind": "swarm", "connected": true, "error": null,
            "last_update": "2026-11-22T10:00:00Z", "last_update_ms": 38,
        },
        "services": [{
            "name": "demo", "id": "s1", "affinity": "ip-hash", "hosts": ["demo.local"],
            "errors": [{
                "label": "com.docker.lb.prt", "value": "1",
                "message": "unknown label", "hint": "did you mean com.docker.lb.port?",
            }],
            "frontends": [{ "addr": "198.51.100.1", "port": 8080, "proto": "tcp", "path": "xdp" }],
            "clients": 1200,
            "backends": [{
                "id": "kpf4", "name": "demo.1", "addr": "172.18.0.3:8080", "node": "host1",
                "state": "up", "weight": 1, "slots": 3277, "packets": 7, "bytes": 700,
                "requests": 5, "reason": null,
            }],
        }],
    });
    assert_eq!(serde_json::to_value(status()).unwrap(), expected);
}

#[test]
fn before_the_first_commit_the_services_found_are_shown() {
    let found = in_force().snapshot;
    let provider = ProviderStatus {
        kind: "file",
        connected: false,
        error: Some("gone".into()),
        last_update: SystemTime::UNIX_EPOCH,
    };
    let status = build(&Parts {
        node: "host1",
        table_size: 16381,
        max_clients: 1200,
        drains: &[],
        interfaces: Vec::new(),
        provider: &provider,
        found: &found,
        in_force: None,
        counters: &Counters::default(),
        requests: &|_, _| 0,
    });
    assert_eq!(status.generation, 0);
    assert_eq!(status.services[0].backends[0].slots, 0);
    assert_eq!(status.provider.error.as_deref(), Some("gone"));
}

#[test]
fn a_relay_that_does_not_work_is_an_error_of_each_service_at_layer_4() {
    let mut status = status();
    let before = status.services[0].errors.len();
    status.without_relay("no nftables");
    assert!(status.services[0].errors[before].message.ends_with("not balanced: no nftables"));
    status.services[0].frontends.clear();
    status.without_relay("no nftables");
    assert_eq!(status.services[0].errors.len(), before + 1);
}

#[test]
fn the_table_says_what_a_person_looks_for() {
    let table = anstream::adapter::strip_str(&table::render(&status())).to_string();
    for part in [
        "eth0 native pinned",
        "swarm connected",
        "1200 clients are remembered at most: raise --max-clients",
        "demo  affinity ip-hash, hosts demo.local, 1200 clients",
        "frontend 198.51.100.1:8080/tcp by xdp",
        "error com.docker.lb.prt=1: unknown label; did you mean com.docker.lb.port?",
        "BACKEND",
        "demo.1   kpf4  172.18.0.3:8080  host1  up",
    ] {
        assert!(table.contains(part), "{part} is missing:\n{table}");
    }
}
