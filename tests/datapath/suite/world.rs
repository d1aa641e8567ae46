//! Three namespaces around the programs: a client's, the node's, the backends'. All are silent but for the cases' frames.

use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use pnet_datalink::{Channel, ChannelType, Config};
use socket2::{Domain, Socket, Type};
use sticky::control::DataPath as _;
use sticky::control::plan::{Loaded, Plan};
use sticky::datapath::XdpMode;
use sticky_common::maps as names;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, Flow, FlowKey, Opening, Traffic};
use sticky_tests::netns::Netns;

use super::maps::{Maps, SERVICE};
use super::places::{
    BACKEND_MAC, BACKENDS, FAMILIES, Family, NARROW, NARROW_MTU, NODE_MAC, WIDE_MTU,
};
use crate::frames::{CLIENT_MAC, HOST_MAC, Wire};
use crate::rig::{Rig, Runner};

/// Clients whose link address the node knows.
pub const CLIENTS: u8 = 8;

/// The places of connections that open.
type Places = [Opening; 1 << names::OPENING_BITS];

/// Where a frame can come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Client,
    Backend,
    /// In the node's own stack, behind the programs at tc.
    Host,
}

/// Counts of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub outcomes: Vec<u64>,
    /// Packets and bytes, by index of the backend.
    pub towards: Vec<(u64, u64)>,
}

/// The programs between silent namespaces.
pub struct World {
    // In the order in which they go.
    runner: Runner,
    rig: Rig,
    loaded: Maps,
    client: Wire,
    backends: Vec<Wire>,
    taps: Vec<Wire>,
    ifindices: [u32; 3],
    _namespaces: [Netns; 3],
}

impl World {
    /// Builds it for the XDP program of this name and works in the node's namespace.
    pub fn enter(program: &'static str, work: impl FnOnce(&mut Self) + Send) {
        let node = Netns::new("node").unwrap();
        let handle = Netns::new("client").unwrap();
        let backends = Netns::new("backends").unwrap();
        let path = node.path();
        std::thread::scope(|scope| {
            // Room for all places of connections that open, several times.
            let builder = std::thread::Builder::new().stack_size(size_of::<Places>() * 16);
            let worker = builder.spawn_scoped(scope, move || {
                let file = std::fs::File::open(path).unwrap();
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                // One CPU, so that a frame has come out when the system call that sent it returns.
                let mut cpus = CpuSet::new();
                cpus.set(sched_getcpu().unwrap()).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                work(&mut Self::new(program, node, handle, backends));
            });
            let worker = worker.unwrap();
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new(program: &'static str, node: Netns, client: Netns, backends: Netns) -> Self {
        let mac = |m: [u8; 6]| m.map(|b| format!("{b:02x}")).join(":");
        for (netns, dev, ours, peer, theirs, mtu) in [
            (&client, "eth0", HOST_MAC, "eth0", CLIENT_MAC, WIDE_MTU),
            (&backends, "eth2", NODE_MAC, "eth0", BACKEND_MAC, WIDE_MTU),
            (&backends, "eth3", NODE_MAC, "eth1", BACKEND_MAC, NARROW_MTU),
        ] {
            let ours = format!("name {dev} address {} numtxqueues 1 numrxqueues 1", mac(ours));
            let theirs = format!("name {peer} address {}", mac(theirs));
            node.ip(&format!(
                "link add {ours} mtu {mtu} type veth peer {theirs} mtu {mtu} numtxqueues 1 numrxqueues 1 netns {}",
                netns.name()
            ))
            .unwrap();
            netns.sysctl(&format!("net.ipv6.conf.{peer}.disable_ipv6"), "1").unwrap();
            netns.ip(&format!("link set {peer} arp off up")).unwrap();
            for (key, value) in [("accept_ra", "0"), ("router_solicitations", "0")] {
                node.sysctl(&format!("net.ipv6.conf.{dev}.{key}"), value).unwrap();
            }
            node.ip(&format!("link set {dev} up")).unwrap();
        }
        // What passes ends here.
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            node.sysctl(key, "0").unwrap();
        }
        for (dev, v4, v6) in [
            ("eth0", "198.51.100.254/24", "2001:db8:1::fe/64"),
            ("eth2", "203.0.113.126/25", "2001:db8:2::fe/64"),
            ("eth3", "203.0.113.254/25", "2001:db8:3::fe/64"),
        ] {
            node.ip(&format!("addr add {v4} dev {dev}")).unwrap();
            node.ip(&format!("addr add {v6} dev {dev} nodad")).unwrap();
        }
        for family in FAMILIES {
            let clients = (0..CLIENTS).map(|n| (family.client(n), CLIENT_MAC, "eth0"));
            let wide = BACKENDS.map(|i| (family.backend(i), BACKEND_MAC, "eth2"));
            let narrow = [(family.backend(NARROW), BACKEND_MAC, "eth3")];
            for (addr, link, dev) in clients.chain(wide).chain(narrow) {
                node.ip(&format!("neigh add {addr} lladdr {} dev {dev} nud permanent", mac(link)))
                    .unwrap();
            }
        }
        let mut rig = Rig::start(&node, &["eth0"], XdpMode::Native).unwrap();
        let all: Vec<_> = [BACKENDS[0], NARROW].map(|i| Family::V4.backend(i)).to_vec();
        rig.reach(&node, &all).unwrap();
        let index = |dev: &str| nix::net::if_::if_nametoindex(dev).unwrap();
        let tap = |dev: &str, proto: u16| open(dev, Some(proto));
        let taps = [("eth0", 0x0800), ("eth0", 0x86dd), ("eth2", 0x0800), ("eth2", 0x86dd)];
        let mut world = Self {
            runner: Runner::of(&rig, program).unwrap(),
            rig,
            loaded: Maps::default().with(|m| m.slots = Arc::new([])),
            client: client.enter(|| open("eth0", None)).unwrap(),
            backends: vec![
                backends.enter(|| open("eth0", None)).unwrap(),
                backends.enter(|| open("eth1", None)).unwrap(),
            ],
            taps: taps.map(|(dev, proto)| tap(dev, proto)).into(),
            ifindices: [index("eth0"), index("eth2"), index("eth3")],
            _namespaces: [node, client, backends],
        };
        world.load(&Maps::default());
        world
    }

    /// What user space would write.
    pub fn load(&mut self, maps: &Maps) {
        let [_, wide, narrow] = self.ifindices;
        let backends = maps.backends.iter().map(|b| {
            let index = BackendId(b.id).index();
            let out = if index == NARROW { narrow } else { wide };
            (u64::from(index), Backend { ifindex_v4: out, ifindex_v6: out, ..*b })
        });
        // A swap waits for all CPUs.
        let same = maps.slots == self.loaded.slots;
        let plan = Plan {
            backends: backends.collect(),
            tables: if same { Vec::new() } else { vec![(SERVICE, Arc::clone(&maps.slots))] },
            gone_first: self.loaded.rules.clone(),
            rules: maps.rules.clone(),
            frontends: maps.frontends.iter().map(|(k, f)| (*k, *f)).collect(),
            gone_frontends: self
                .loaded
                .frontends
                .keys()
                .filter(|k| !maps.frontends.contains_key(k))
                .copied()
                .collect(),
            ..Plan::default()
        };
        self.rig.path.executor.apply(&plan, &Loaded::default()).unwrap();
        self.loaded = maps.clone();
    }

    /// Forgets all that packets left, and loads the maps.
    pub fn reset(&mut self, maps: &Maps) {
        use sticky_common::types::{ClientKey, Fragment, FragmentKey};
        self.forget_clients();
        clear(self.map::<ClientKey, u64>(names::RATES));
        let none: Box<[u64; 1 << names::MARK_BITS]> =
            vec![0; 1 << names::MARK_BITS].try_into().unwrap();
        let mut marks: Array<_, [u64; 1 << names::MARK_BITS]> =
            self.runner.map(names::MARKS).try_into().unwrap();
        marks.set(0, none, 0).unwrap();
        clear(self.map::<FlowKey, Flow>(names::FLOWS));
        clear(self.map::<FlowKey, Flow>(names::TRANSIENT));
        self.free_places();
        clear(self.map::<FragmentKey, Fragment>(names::FRAGMENTS));
        self.load(maps);
        self.collect(0);
    }

    /// The connections that have a place.
    pub fn openings(&mut self) -> Vec<Opening> {
        let map: Array<_, Places> = self.runner.map(names::OPENINGS).try_into().unwrap();
        let all = map.get(&0, 0).unwrap();
        all.iter().filter(|opening| opening.state == Opening::HELD).copied().collect()
    }

    /// Changes all of them.
    pub fn change_openings(&mut self, change: impl Fn(&mut Flow)) {
        let mut map: Array<_, Places> = self.runner.map(names::OPENINGS).try_into().unwrap();
        let mut all = map.get(&0, 0).unwrap();
        let held = all.iter_mut().filter(|opening| opening.state == Opening::HELD);
        held.for_each(|opening| change(&mut opening.flow));
        map.set(0, all, 0).unwrap();
    }

    /// Forgets all of them.
    fn free_places(&mut self) {
        let free: Box<[u8; size_of::<Places>()]> = vec![0; size_of::<Places>()].try_into().unwrap();
        let mut map: Array<_, [u8; size_of::<Places>()]> =
            self.runner.map(names::OPENINGS).try_into().unwrap();
        map.set(0, free, 0).unwrap();
    }

    /// Takes the clients' records away.
    pub fn forget_clients(&mut self) {
        use sticky_common::types::{ClientKey, Record};
        clear(self.map::<ClientKey, Record>(names::CLIENTS));
        clear(self.map::<ClientKey, Record>(names::CANDIDATES));
    }

    /// One of the maps that packets write.
    pub fn map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.runner.map(name).try_into().unwrap()
    }

    pub fn counts(&mut self) -> Counts {
        let outcomes: PerCpuArray<_, u64> = self.runner.map(names::OUTCOMES).try_into().unwrap();
        let sum = |i| outcomes.get(&i, 0).unwrap().iter().sum();
        let outcomes = (0..Outcome::COUNT).map(sum).collect();
        let stats: PerCpuArray<_, [Traffic; names::BACKENDS_COUNTED as usize]> =
            self.runner.map(names::BACKEND_STATS).try_into().unwrap();
        let towards = (0..=NARROW).map(|i| {
            let all = stats.get(&(i / names::BACKENDS_COUNTED), 0).unwrap();
            let all = || all.iter().map(|cpu| cpu[(i % names::BACKENDS_COUNTED) as usize]);
            (all().map(|t| t.packets).sum(), all().map(|t| t.bytes).sum())
        });
        Counts { outcomes, towards: towards.collect() }
    }

    /// A frame of a client through both programs.
    pub fn client_sends(&mut self, frame: &[u8]) {
        self.runner.run_live(frame, self.ifindices[0]).unwrap();
    }

    /// The same over the link, which takes frames of any length.
    pub fn client_sends_by_wire(&mut self, frame: &[u8]) {
        self.client.0.send_to(frame, None).unwrap().unwrap();
    }

    pub fn backend_sends(&mut self, frame: &[u8]) {
        self.backends[0].0.send_to(frame, None).unwrap().unwrap();
    }

    /// Through the program at XDP alone.
    pub fn choose(&self, frame: &[u8]) -> crate::rig::Ran {
        self.runner.run(frame).unwrap()
    }

    /// What came out since the last time; waits a little for as many as are expected.
    pub fn collect(&mut self, expected: usize) -> Vec<(Place, Vec<u8>)> {
        let end = Instant::now() + Duration::from_secs(2);
        let mut out = Vec::new();
        loop {
            let wires = std::iter::once((&mut self.client, Place::Client))
                .chain(self.backends.iter_mut().map(|w| (w, Place::Backend)))
                .chain(self.taps.iter_mut().map(|w| (w, Place::Host)));
            for (wire, place) in wires {
                while let Ok(frame) = wire.1.next() {
                    // The node's own multicast of IPv6.
                    if frame[0] & 1 == 0 {
                        out.push((place, frame.to_vec()));
                    }
                }
            }
            if out.len() >= expected || Instant::now() > end {
                return out;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn clear<K: Pod, V: Pod>(mut map: HashMap<&mut MapData, K, V>) {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().unwrap();
    for key in keys {
        map.remove(&key).unwrap();
    }
}

/// Raw frames at a device of this namespace; of one protocol only those that no program at tc took.
fn open(device: &str, proto: Option<u16>) -> Wire {
    let device = pnet_datalink::interfaces().into_iter().find(|i| i.name == device).unwrap();
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    let config = Config {
        read_timeout: Some(Duration::ZERO),
        read_buffer_size: 1 << 16,
        write_buffer_size: 1 << 16,
        promiscuous: false,
        channel_type: proto.map_or(ChannelType::Layer2, ChannelType::Layer3),
        socket_fd: Some(socket.into_raw_fd()),
        ..Config::default()
    };
    match pnet_datalink::channel(&device, config).unwrap() {
        Channel::Ethernet(to, from) => (to, from),
        _ => panic!("not an Ethernet"),
    }
}

/// The tick of the maps' clock.
pub fn now() -> u32 {
    sticky::control::reconcile::now()
}

/// Waits for the next tick, so that what follows is not in the same one.
pub fn next_tick() {
    let before = now();
    while now() == before {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the tick lasts this many milliseconds more.
pub fn room_in_tick(millis: u64) {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    let nanos = Duration::from(nix::time::clock_gettime(clock).unwrap()).as_nanos() as u64;
    let left = (1 << 30) - nanos % (1 << 30);
    if left < millis * 1_000_000 {
        next_tick();
    }
}
