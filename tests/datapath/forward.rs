//! Connections through the programs, between namespaces.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use anyhow::Context as _;
use sticky::clients::ClientTable as _;
use sticky::control::{DataPath as _, DataPathView as _, Reach};
use sticky::datapath::XdpMode;
use sticky_common::outcome::Outcome;
use sticky_tests::demo::{Backends, LINE_PORT, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, Topology, client, vip};

use crate::frames::wire;
use crate::rig::{Rig, Spec, UP};

struct Lab {
    // In the order in which they go.
    rig: Rig,
    _demo: Backends,
    topology: Topology,
    _backends: Netns,
    addrs: Vec<Ipv4Addr>,
}

impl Lab {
    fn new(count: u8) -> Self {
        Self::in_mode(count, XdpMode::Native)
    }

    fn in_mode(count: u8, mode: XdpMode) -> Self {
        let topology = Topology::new().unwrap();
        let (backends, addrs) = topology.backends(count).unwrap();
        let demo = Backends::start(&backends, &demo_binary().unwrap(), &addrs).unwrap();
        let rig = Rig::start(&topology.node, &["eth0"], mode).unwrap();
        let addrs = addrs
            .into_iter()
            .map(|a| match a {
                IpAddr::V4(v4) => v4,
                IpAddr::V6(_) => unreachable!("the topology is IPv4"),
            })
            .collect();
        Self { rig, _demo: demo, topology, _backends: backends, addrs }
    }

    fn up(&self, which: impl IntoIterator<Item = usize>) -> Vec<Spec> {
        which.into_iter().map(|i| Spec(self.addrs[i].into(), UP, 1)).collect()
    }

    fn serve(&mut self, backends: &[Spec]) {
        self.rig.serve(&self.topology.node, NODE, 80, LINE_PORT, backends).unwrap();
    }

    fn open(&self, client: IpAddr) -> anyhow::Result<LineConnection> {
        let opened = self.topology.clients.enter(|| LineConnection::open(client, vip(80))).unwrap();
        opened.with_context(|| {
            format!("outcomes: {:?}", self.rig.path.view.counters().map(|c| c.outcomes))
        })
    }

    fn count(&self, outcome: Outcome) -> u64 {
        let counters = self.rig.path.view.counters().unwrap();
        counters.outcomes.iter().find(|(o, _)| *o == outcome).unwrap().1
    }
}

#[test]
fn a_backend_sees_the_client_and_where_agrees() {
    let mut lab = Lab::new(3);
    lab.serve(&lab.up(0..3));
    let mut shares: HashMap<String, u32> = HashMap::new();
    for i in 0..60 {
        let from = client(i * 97);
        let before = lab.rig.path.clients.look("s", from).unwrap();
        let mut connection = lab.open(from).unwrap();
        assert_eq!(
            connection.seen, connection.local,
            "the backend sees the client's own address and port"
        );
        connection.ask("hello").unwrap();
        assert_eq!(connection.instance, format!("backend-{}", before.backend));
        assert_eq!(before.reason, Outcome::New);
        assert_eq!(lab.rig.path.clients.look("s", from).unwrap().reason, Outcome::Pinned);
        *shares.entry(connection.instance.clone()).or_default() += 1;
    }
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert_eq!(lab.count(Outcome::New), 60);
    assert!(lab.count(Outcome::Hash) >= 60 * 3);
}

#[test]
fn generic_mode_carries_the_same() {
    let mut lab = Lab::in_mode(2, XdpMode::Generic);
    assert_eq!(lab.rig.path.view.interfaces()[0].mode, "generic");
    lab.serve(&lab.up(0..2));
    let mut connection = lab.open(client(1)).unwrap();
    connection.ask("hello").unwrap();
    assert_eq!(connection.seen, connection.local);
}

#[test]
fn a_capture_on_the_interface_changes_nothing() {
    let mut lab = Lab::new(2);
    lab.serve(&lab.up(0..2));
    // Whoever reads raw frames without a ring gets clones, and nobody reads these, so they stay.
    let _capture = wire(&lab.topology.node);
    let mut connection = lab.open(client(1)).unwrap();
    connection.ask("hello").unwrap();
}

#[test]
fn a_backend_whose_replies_would_bypass_us_is_not_balanced() {
    let mut lab = Lab::new(1);
    let next_to_the_client = "198.51.100.50".parse().unwrap();
    let reach = lab.rig.reach(&lab.topology.node, &[next_to_the_client]).unwrap();
    assert!(
        matches!(&reach[&next_to_the_client], Reach::Not(why) if why.contains("would not pass")),
        "{reach:?}"
    );
}

#[test]
fn a_record_is_forgotten_only_as_it_was_seen() {
    let mut lab = Lab::new(1);
    lab.serve(&lab.up(0..1));
    // Open and silent, so that nothing refreshes the record.
    let _connection = lab.open(client(1)).unwrap();
    let records = |lab: &Lab| {
        let mut all = Vec::new();
        lab.rig.path.executor.records(&mut |known| all.push(*known)).unwrap();
        all
    };
    let seen = records(&lab);
    assert_eq!(seen.len(), 1);
    let mut older = seen[0];
    older.record.seen -= 1;
    lab.rig.path.executor.forget(&[older]).unwrap();
    assert_eq!(records(&lab).len(), 1, "its client was active since");
    lab.rig.path.executor.forget(&records(&lab)).unwrap();
    assert!(records(&lab).is_empty());
}

/// Connects from a port, has a greeting and one line echoed, and resets the connection, so that the port is free at once.
fn exchange(from: SocketAddr, to: SocketAddr) -> anyhow::Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
    let mut stream = BufReader::new(std::net::TcpStream::from(socket));
    let mut greeting = String::new();
    stream.read_line(&mut greeting)?;
    stream.get_mut().write_all(b"line\n")?;
    let mut echo = String::new();
    stream.read_line(&mut echo)?;
    Ok(echo)
}

#[test]
fn ports_of_an_ended_connection_serve_a_direct_one() {
    let mut lab = Lab::new(1);
    lab.serve(&lab.up(0..1));
    let from = SocketAddr::new(client(1), 40_001);
    let direct = SocketAddr::new(lab.addrs[0].into(), LINE_PORT);
    for (way, to) in
        [("frontend", vip(80)), ("direct", direct), ("frontend", vip(80)), ("direct", direct)]
    {
        let echo = lab.topology.clients.enter(|| exchange(from, to)).unwrap();
        assert_eq!(echo.with_context(|| way).unwrap(), format!("backend-{} line\n", lab.addrs[0]));
    }
}

#[test]
fn connections_and_clients_stay_through_scalings() {
    let mut lab = Lab::new(10);
    lab.serve(&lab.up(0..5));
    let mut open: Vec<_> = (0..40).map(|i| lab.open(client(i)).unwrap()).collect();
    let mut known: Vec<_> =
        (100..200).map(|i| (client(i), lab.open(client(i)).unwrap().instance)).collect();
    for (round, set) in [0..10, 0..5, 2..8, 0..10].into_iter().enumerate() {
        let kept = set.clone();
        lab.serve(&lab.up(set));
        let lives = |name: &str| kept.clone().any(|i| name == format!("backend-{}", lab.addrs[i]));
        open.retain(|c| lives(&c.instance));
        known.retain(|(_, instance)| lives(instance));
        for connection in &mut open {
            connection.ask(&format!("round {round}")).unwrap();
        }
        for (from, instance) in known.iter().take(30) {
            assert_eq!(
                lab.open(*from).unwrap().instance,
                *instance,
                "round {round}: a known client moved"
            );
        }
    }
    assert!(open.len() > 10);
}

#[test]
fn a_client_moved_off_a_failing_backend_keeps_its_old_connection() {
    const FAILING: u32 = sticky_common::types::Backend::ALIVE;
    let mut lab = Lab::new(3);
    lab.serve(&lab.up(0..3));
    let mut first = lab.open(client(1)).unwrap();
    let at = lab.addrs.iter().position(|a| first.instance == format!("backend-{a}")).unwrap();
    let mut specs = lab.up(0..3);
    specs[at] = Spec(lab.addrs[at].into(), FAILING, 0);
    lab.serve(&specs);
    let mut second = lab.open(client(1)).unwrap();
    assert_ne!(second.instance, first.instance);
    first.ask("still here").unwrap();
    second.ask("here too").unwrap();
    // It is up again: the client stays where it is now, and both connections stay where they are.
    lab.serve(&lab.up(0..3));
    first.ask("and now").unwrap();
    second.ask("and now").unwrap();
    assert_eq!(lab.open(client(1)).unwrap().instance, second.instance);
}

#[test]
fn a_new_process_adopts_what_is_there() {
    let mut lab = Lab::new(4);
    lab.serve(&lab.up(0..4));
    let mut open: Vec<_> = (0..20).map(|i| lab.open(client(i)).unwrap()).collect();
    let pin_dir = lab.rig.pin_dir.clone();
    let mut next = Rig::adopt(&lab.topology.node, &["eth0"], XdpMode::Native, pin_dir).unwrap();
    let plan = next.serve(&lab.topology.node, NODE, 80, LINE_PORT, &lab.up(0..4)).unwrap();
    assert!(plan.is_empty(), "{plan:?}");
    for connection in &mut open {
        connection.ask("across the restart").unwrap();
    }
    assert_eq!(lab.open(client(3)).unwrap().instance, open[3].instance);
}
