//! Programs on interfaces that come, go and are shared with others.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::MapData;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp};
use sticky::control::{DataPathView as _, Interface};
use sticky::datapath::XdpMode;
use sticky_common::ABI_VERSION;
use sticky_tests::demo::{Backends, LINE_PORT, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::names::{BPF_DIR, unique};
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, Topology, client, vip};
use sticky_tests::wait;

use crate::frames::{HOST_MAC, segment, wire};
use crate::rig::{Rig, Runner, Spec, UP};

/// A node with one backend behind `eth2`.
struct Node {
    rigs: Vec<Rig>,
    _demo: Backends,
    backends: Netns,
    topology: Topology,
    backend: Ipv4Addr,
}

impl Node {
    fn new() -> Self {
        let topology = Topology::new().unwrap();
        let (backends, addrs) = topology.backends(1).unwrap();
        let demo = Backends::start(&backends, &demo_binary().unwrap(), &addrs).unwrap();
        let IpAddr::V4(backend) = addrs[0] else { unreachable!("the topology is IPv4") };
        let mut rig = Rig::start(&topology.node, &["eth0"], XdpMode::Native).unwrap();
        rig.serve(&topology.node, NODE, 80, LINE_PORT, &[Spec(backend.into(), UP, 1)]).unwrap();
        Self { rigs: vec![rig], _demo: demo, backends, topology, backend }
    }

    /// What another process does that takes over.
    fn adopt(&mut self) {
        let pin_dir = self.rigs[0].pin_dir.clone();
        let next = Rig::adopt(&self.topology.node, &["eth0"], XdpMode::Native, pin_dir).unwrap();
        self.rigs.push(next);
    }

    /// What is pinned looks as if another version had done so.
    fn disguise(&self) -> PathBuf {
        let other = self.rigs[0].pin_dir.join("v0");
        std::fs::rename(self.pins(), &other).unwrap();
        other
    }

    fn pins(&self) -> PathBuf {
        self.rigs[0].pin_dir.join(format!("v{ABI_VERSION}"))
    }

    fn serve(&mut self, target: u16) {
        let backend = Spec(self.backend.into(), UP, 1);
        let rig = self.rigs.last_mut().unwrap();
        rig.serve(&self.topology.node, NODE, 80, target, &[backend]).unwrap();
    }

    fn open(&self, index: u32) -> LineConnection {
        let open = || LineConnection::open(client(index), vip(80));
        self.topology.clients.enter(open).unwrap().unwrap()
    }

    fn talk(&self) -> anyhow::Result<()> {
        let mut connection =
            self.topology.clients.enter(|| LineConnection::open(client(1), vip(80)))??;
        connection.ask("hello")
    }

    /// What happens at each change of links.
    fn look(&mut self) {
        let backend = IpAddr::V4(self.backend);
        let rig = self.rigs.last_mut().unwrap();
        rig.reach(&self.topology.node, &[backend]).unwrap();
    }
}

/// The programs at tcx ingress, in their order.
fn tcx(node: &Netns, interface: &str) -> Vec<u32> {
    let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let (_, programs) = node.enter(query).unwrap().unwrap();
    programs.iter().map(aya::programs::ProgramInfo::id).collect()
}

/// TCP segments that a namespace's stack received.
fn segments(netns: &Netns) -> u64 {
    let snmp =
        netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names.split(' ').position(|name| name == "InSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn replacing_the_programs_loses_no_packet() {
    const ADOPTIONS: usize = 3;
    let mut node = Node::new();
    // Nobody listens there: each segment is answered by one reset.
    node.serve(7);
    let mac = HOST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    node.topology.node.ip(&format!("link set eth0 address {mac}")).unwrap();
    let (mut to, _from) = wire(&node.topology.clients);
    let mut send = |frame: &[u8]| to.send_to(frame, None).unwrap().unwrap();
    // Neighbours are found first.
    send(&segment(80, "A", b"first"));
    wait::until_true("an answer", Duration::from_secs(5), || {
        Ok(segments(&node.topology.clients) > 0)
    })
    .unwrap();
    let before = [segments(&node.backends), segments(&node.topology.clients)];

    let done = AtomicBool::new(false);
    let (backends, clients) =
        (node.backends.name().to_owned(), node.topology.clients.name().to_owned());
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                send(&segment(80, "A", b"data"));
                sent += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
            sent
        });
        for round in 0..ADOPTIONS {
            // Also from one version to another.
            let earlier = (round % 2 == 1).then(|| node.disguise());
            node.adopt();
            node.serve(7);
            assert!(earlier.is_none_or(|dir| !dir.exists()));
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    assert!(sent > 1000, "only {sent} packets while programs were replaced");
    let counted =
        || [segments(&node.backends) - before[0], segments(&node.topology.clients) - before[1]];
    wait::until_true("the last answer", Duration::from_secs(5), || Ok(counted() >= [sent, sent]))
        .unwrap_or_else(|e| {
            panic!("{e:#}: of {sent}, {:?} arrived in {backends} and {clients}", counted())
        });
    assert_eq!(counted(), [sent, sent], "packets at the backend, answers at the client");
}

#[test]
fn another_version_goes_over_with_its_connections_if_the_maps_are_alike() {
    let mut node = Node::new();
    let mut open: Vec<_> = (0..10).map(|index| node.open(index)).collect();
    let earlier = node.disguise();
    node.adopt();
    let plan_is_empty = {
        let backend = Spec(node.backend.into(), UP, 1);
        let rig = node.rigs.last_mut().unwrap();
        rig.serve(&node.topology.node, NODE, 80, LINE_PORT, &[backend]).unwrap().is_empty()
    };
    assert!(plan_is_empty, "what was loaded is known");
    assert!(!earlier.exists() && node.pins().join("links/reply-4").exists());
    for connection in &mut open {
        connection.ask("across the versions").unwrap();
    }
    assert_eq!(tcx(&node.topology.node, "eth0").len(), 1);

    // One map is laid out otherwise: nothing can be taken over, and the host is never left to answer.
    let earlier = node.disguise();
    let map = earlier.join("maps/BACKEND_IDS");
    std::fs::remove_file(&map).unwrap();
    MapData::from_pin(earlier.join("maps/OUTCOMES")).unwrap().pin(&map).unwrap();
    node.adopt();
    node.talk().expect("the old programs go on until the new maps are filled");
    assert!(earlier.exists());
    node.serve(LINE_PORT);
    assert!(!earlier.exists());
    node.talk().unwrap();
}

#[test]
fn an_interface_may_come_late_and_come_again() {
    let topology = Topology::new().unwrap();
    let node = &topology.node;
    let mut rig = Rig::start(node, &["eth0", "late0"], XdpMode::Auto).unwrap();
    let mut now = || {
        rig.reach(node, &[]).unwrap();
        let [first, late]: [Interface; 2] = rig.path.view.interfaces().try_into().unwrap();
        assert_eq!((first.mode.as_str(), first.problem), ("native", None));
        let pins = std::fs::read_dir(
            rig.pin_dir.join(format!("v{}", sticky_common::ABI_VERSION)).join("links"),
        );
        (late, pins.unwrap().count())
    };
    let (late, pins) = now();
    assert_eq!((late.mode.as_str(), late.pinned, pins), ("none", false, 2));
    assert!(late.problem.unwrap().contains("late0 is not there"));
    for round in 0..3 {
        // The last time with the number of the one before.
        let index = if round == 2 { "index 77" } else { "index 76" };
        node.ip(&format!(
            "link add late0 {index} type veth peer name far0 netns {}",
            topology.other.name()
        ))
        .unwrap();
        let (late, pins) = now();
        assert_eq!((late.mode.as_str(), late.problem, pins), ("native", None, 4), "round {round}");
        assert_eq!(tcx(node, "late0").len(), 1);
        assert!(node.ip("-details link show late0").unwrap().contains("xdp"), "round {round}");
        // A flap is nothing.
        node.ip("link set late0 up").unwrap();
        node.ip("link set late0 down").unwrap();
        assert_eq!(now().1, 4);
        node.ip("link del late0").unwrap();
        if round == 1 {
            // Not seen until another of the same number is there.
            continue;
        }
        let (late, pins) = now();
        assert_eq!((late.mode.as_str(), pins), ("none", 2), "round {round}");
    }
}

#[test]
fn a_link_with_the_number_of_one_that_went_is_attached_anew() {
    let mut node = Node::new();
    node.look();
    let eth2 = node.topology.node.ip("-oneline link show eth2").unwrap();
    let index = eth2.split(':').next().unwrap().to_owned();
    let mac = eth2.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    node.talk().unwrap();
    node.topology.node.ip("link del eth2").unwrap();
    let other = node.backends.name().to_owned();
    node.topology
        .node
        .ip(&format!(
            "link add eth2 index {index} address {mac} type veth peer name eth0 netns {other}"
        ))
        .unwrap();
    node.topology.node.ip("addr add 203.0.113.129/25 dev eth2").unwrap();
    node.topology.node.ip("link set eth2 up").unwrap();
    node.backends.ip(&format!("addr add {}/25 dev eth0", node.backend)).unwrap();
    node.backends.ip("link set eth0 up").unwrap();
    node.backends.ip("route add default via 203.0.113.129").unwrap();
    assert!(tcx(&node.topology.node, "eth2").is_empty());
    node.look();
    node.talk().unwrap();
}

/// What a start says that is refused.
fn refused(node: &Netns, interfaces: &[&str], mode: XdpMode) -> String {
    let pin_dir = PathBuf::from(BPF_DIR).join(unique());
    let refused = Rig::adopt(node, interfaces, mode, pin_dir.clone()).err();
    let links = pin_dir.join(format!("v{ABI_VERSION}/links"));
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 0, "nothing is kept");
    sticky::datapath::detach(&pin_dir).unwrap();
    format!("{:#}", refused.unwrap())
}

#[test]
fn a_foreign_xdp_program_is_left_alone_and_named() {
    let topology = Topology::new().unwrap();
    let node = &topology.node;
    let first = Rig::start(node, &["eth0"], XdpMode::Native).unwrap();
    let before = node.ip("-details link show eth0").unwrap();
    // `eth1` would do, and is not kept when `eth0` does not.
    let text = refused(node, &["eth1", "eth0"], XdpMode::Auto);
    for word in ["eth0", "(sticky_xdp)", "bpftool link detach id", "--iface"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert_eq!(node.ip("-details link show eth0").unwrap(), before);

    // One that no link holds.
    let mut runner = Runner::new(&first).unwrap();
    let pin = PathBuf::from(BPF_DIR).join(unique());
    let program: &mut Xdp = runner.program("sticky_xdp").try_into().unwrap();
    program.pin(&pin).unwrap();
    // `ip -n` would hide the BPF file system.
    let put =
        node.run("ip", &["link", "set", "dev", "eth1", "xdp", "pinned", &pin.to_string_lossy()]);
    std::fs::remove_file(&pin).unwrap();
    put.unwrap();
    let text = refused(node, &["eth1"], XdpMode::Generic);
    assert!(text.contains("`ip link set dev eth1 xdp off`"), "{text}");
}

#[test]
fn other_tc_programs_come_after_ours() {
    let mut node = Node::new();
    let mut runner = Runner::new(&node.rigs[0]).unwrap();
    let program: &mut SchedClassifier = runner.program("sticky_reply").try_into().unwrap();
    program.load().unwrap();
    let foreign = program.info().unwrap().id();
    for interface in ["eth0", "eth2"] {
        let attach = || {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(interface, TcAttachType::Ingress, options)
        };
        node.topology.node.enter(attach).unwrap().unwrap();
        assert_eq!(tcx(&node.topology.node, interface)[0], foreign);
    }
    // Now, and over a restart.
    for restarts in [false, true] {
        if restarts {
            node.adopt();
        }
        node.look();
        node.talk().unwrap();
        for interface in ["eth0", "eth2"] {
            let order = tcx(&node.topology.node, interface);
            assert!(
                order.len() == 2 && order[1] == foreign,
                "{interface}, restarted {restarts}: {order:?}, theirs {foreign}"
            );
        }
    }
}

#[test]
fn auto_takes_generic_mode_where_the_driver_has_no_other() {
    let topology = Topology::new().unwrap();
    let node = &topology.node;
    node.ip("link add br0 type bridge").unwrap();
    let text = refused(node, &["br0"], XdpMode::Native);
    assert!(text.contains("cannot attach to br0 in native mode"), "{text}");
    let rig = Rig::start(node, &["br0"], XdpMode::Auto).unwrap();
    assert_eq!(rig.path.view.interfaces()[0].mode, "generic");
}
