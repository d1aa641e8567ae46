use std::net::SocketAddr;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::model::{DrainMode, HealthConfig, HostPattern, Proto, Publish, Service, ServiceConfig};
use crate::provider::Publisher;

fn service(addr: SocketAddr, path: Option<&str>) -> Service {
    let millis = Duration::from_millis;
    let backend = Backend {
        id: "b".to_owned(),
        name: "demo.1".to_owned(),
        addr: Some(addr),
        node: String::new(),
        addr_v6: None,
        layer4: true,
        weight: 1,
        state: State::Up,
        reason: None,
        outgoing: false,
    };
    let config = ServiceConfig {
        hosts: vec![HostPattern::Exact("demo.local".to_owned())],
        health: HealthConfig {
            path: path.map(ToOwned::to_owned),
            interval: millis(20),
            timeout: millis(500),
            rise: 2,
            fall: 2,
        },
        ..ServiceConfig::default()
    };
    let (publish, errors) = (Vec::new(), Vec::new());
    Service {
        id: "s".to_owned(),
        name: "demo".to_owned(),
        config,
        publish,
        backends: vec![backend],
        errors,
    }
}

fn snapshot(service: Service) -> Snapshot {
    Snapshot { services: vec![service.into()] }
}

/// A monitor of a provider that starts with `initial`.
fn monitor(
    initial: Snapshot,
) -> (Publisher, watch::Receiver<Arc<Found>>, tokio::task::JoinHandle<()>) {
    let saved = Arc::new(initial.clone());
    let (publisher, found) =
        Publisher::new(Found::before_first_look("file", initial, SystemTime::now()));
    let (monitor, effective) = Monitor::new(found, saved);
    (publisher, effective, tokio::spawn(monitor.run()))
}

fn publish(publisher: &Publisher, service: Service) {
    let status = publisher.last().status.clone();
    publisher.found(snapshot(service), Instant::now(), status);
}

async fn until(effective: &mut watch::Receiver<Arc<Found>>, state: State) -> Option<String> {
    let backend = |found: &Found| {
        found.snapshot.services.first().and_then(|service| service.backends.first().cloned())
    };
    let wait =
        effective.wait_for(|found| backend(found).is_some_and(|backend| backend.state == state));
    let found = timeout(Duration::from_secs(10), wait)
        .await
        .expect("the state comes")
        .expect("the monitor runs");
    backend(&found).and_then(|backend| backend.reason)
}

#[tokio::test]
async fn a_backend_is_starting_until_it_answers_and_down_when_it_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (publisher, mut effective, task) = monitor(Snapshot::default());
    publish(&publisher, service(addr, None));
    until(&mut effective, State::Starting).await;
    let listener = TcpListener::bind(addr).await.unwrap();
    until(&mut effective, State::Up).await;
    drop(listener);
    let reason = until(&mut effective, State::Down).await;
    assert_eq!(reason, Some(format!("port {} refuses connections", addr.port())));
    let _listener = TcpListener::bind(addr).await.unwrap();
    until(&mut effective, State::Up).await;
    task.abort();
}

#[tokio::test]
async fn a_path_is_asked_for_and_its_status_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (status, statuses) = watch::channel("204 No Content");
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
            assert!(
                request.starts_with("get /up http/1.1\r\n")
                    && request.contains("host: demo.local\r\n"),
                "{request}"
            );
            let answer = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", *statuses.borrow());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let (publisher, mut effective, task) = monitor(Snapshot::default());
    publish(&publisher, service(addr, Some("/up")));
    until(&mut effective, State::Up).await;
    status.send_replace("503 Service Unavailable");
    let reason = until(&mut effective, State::Down).await;
    assert_eq!(reason.as_deref(), Some("GET /up: 503 Service Unavailable"));
    status.send_replace("302 Found");
    until(&mut effective, State::Up).await;
    task.abort();
    server.abort();
}

#[tokio::test]
async fn what_an_earlier_run_knew_holds_until_checks_say_otherwise() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (publisher, mut effective, task) = monitor(snapshot(service(addr, None)));
    let (states, mut seen) = (effective.clone(), Vec::new());
    publish(&publisher, service(addr, None));
    seen.push(states.borrow().snapshot.services[0].backends[0].state);
    assert_eq!(seen, [State::Up]);
    until(&mut effective, State::Down).await;
    task.abort();
}

#[tokio::test]
async fn draining_stands_above_checks_and_a_closed_udp_port_is_down() {
    let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut draining = service(addr, None);
    draining.backends[0].state = State::Draining(DrainMode::Connections);
    let (publisher, mut effective, task) = monitor(Snapshot::default());
    publish(&publisher, draining);
    until(&mut effective, State::Draining(DrainMode::Connections)).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(
        effective.borrow().snapshot.services[0].backends[0].state,
        State::Draining(DrainMode::Connections)
    );
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut udp = service(addr, None);
    udp.config.hosts.clear();
    udp.config.ip_hash = true;
    let target = socket.local_addr().unwrap().port();
    udp.publish = vec![Publish { port: 53, target, proto: Proto::Udp }];
    publish(&publisher, udp);
    until(&mut effective, State::Up).await;
    // Nobody reads there, which is no reason; that nobody listens is one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(effective.borrow().snapshot.services[0].backends[0].state, State::Up);
    drop(socket);
    until(&mut effective, State::Down).await;
    task.abort();
}

#[test]
fn each_tcp_target_is_checked_once() {
    let mut service = service("192.0.2.1:8080".parse().unwrap(), None);
    service.config.ip_hash = true;
    let publish = |port, target, proto| Publish { port, target, proto };
    service.publish = vec![
        publish(80, 8080, Proto::Tcp),
        publish(443, 8443, Proto::Tcp),
        publish(53, 53, Proto::Udp),
    ];
    let plan = |service: &Service| Plan::of(service, &service.backends[0]);
    let ports =
        |plan: Option<Plan>| plan.unwrap().connect.iter().map(SocketAddr::port).collect::<Vec<_>>();
    assert_eq!(ports(plan(&service)), [8080, 8443]);
    service.config.health.path = Some("/".to_owned());
    assert_eq!(ports(plan(&service)), [8443]);
    service.backends[0].layer4 = false;
    assert_eq!(ports(plan(&service)), [] as [u16; 0]);
    service.backends[0].state = State::Starting;
    assert_eq!(plan(&service), None);
}

#[tokio::test]
async fn a_second_address_is_used_only_if_it_answered_when_the_first_did() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut both = service(addr, None);
    both.config.ip_hash = true;
    both.publish = vec![Publish { port: 80, target: addr.port(), proto: Proto::Tcp }];
    let mut other = both.backends[0].clone();
    (other.id, other.addr_v6) = ("other".to_owned(), Some("::1".parse().unwrap()));
    both.backends[0].addr_v6 = other.addr_v6;

    let v6 = |found: &Found| {
        let backends = found.snapshot.services.iter().flat_map(|service| &service.backends);
        let up = backends.filter(|backend| backend.state == State::Up);
        up.map(|backend| backend.addr_v6.is_some()).collect::<Vec<_>>()
    };
    let (publisher, mut effective, task) = monitor(Snapshot::default());
    publish(&publisher, both.clone());
    until(&mut effective, State::Up).await;
    assert_eq!(v6(&effective.borrow()), [false], "nobody listens there");
    // It does from now on, and whoever is served stays where it is.
    let second = TcpListener::bind(("::1", addr.port())).await.unwrap();
    both.backends.push(other);
    publish(&publisher, both.clone());
    let wait = timeout(Duration::from_secs(5), effective.wait_for(|found| v6(found).len() == 2));
    assert_eq!(v6(&wait.await.unwrap().unwrap()), [false, true]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(v6(&effective.borrow()), [false, true]);
    let saved = Snapshot::clone(&effective.borrow().snapshot);
    task.abort();

    // A later run knows what answered, also while it does not.
    drop(second);
    let (publisher, effective, task) = monitor(saved);
    publish(&publisher, both);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(v6(&effective.borrow()), [false, true]);
    task.abort();
}
