//! Three namespaces around the programs: a client's, the node's, the backends'. All are silent but for the cases' frames.

use std::collections::HashMap as Plain;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::{HashMap, MapData, PerCpuArray};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use pnet_datalink::{Channel, ChannelType, Config};
use socket2::{Domain, Socket, Type};
use sticky::control::plan::{FrontendKey, Loaded, Plan, Rule};
use sticky::control::{DataPath as _, Names};
use sticky::datapath::XdpMode;
use sticky::model;
use sticky_common::maps;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, Frontend, Slot, Traffic, addr};
use sticky_tests::netns::Netns;

use super::places::{
    BACKEND_MAC, BACKENDS, FAMILIES, Family, NARROW, NARROW_MTU, NODE_MAC, PORT, Proto, SECOND,
    TARGET, WIDE_MTU,
};
use crate::frames::{CLIENT_MAC, HOST_MAC, Wire};
use crate::rig::{Rig, Runner, TABLE_SIZE, UP};

/// The service of all frontends.
pub const SERVICE: u32 = 7;
/// Clients whose link address the node knows.
pub const CLIENTS: u8 = 8;

/// What the maps say, of user space's part.
#[derive(Clone)]
pub struct Maps {
    pub slots: Arc<[Slot]>,
    pub backends: Vec<Backend>,
    pub frontends: Plain<FrontendKey, Frontend>,
    pub rules: Vec<(u32, Vec<Rule>)>,
}

impl Default for Maps {
    fn default() -> Self {
        let mut frontends = Plain::new();
        for family in FAMILIES {
            for (vip, port) in
                [(family.vip(), PORT), (family.vip(), SECOND), (family.second_vip(), PORT)]
            {
                for proto in [Proto::Tcp, Proto::Udp] {
                    frontends.insert(key(SocketAddr::new(vip, port), proto), frontend(family));
                }
            }
        }
        let backends = BACKENDS.into_iter().chain([NARROW]).map(|i| backend(i, UP)).collect();
        Self { slots: everywhere(BACKENDS[0], false), backends, frontends, rules: Vec::new() }
    }
}

impl Maps {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Every slot leads to this backend.
    pub fn to(self, index: u32, unsettled: bool) -> Self {
        self.with(|m| m.slots = everywhere(index, unsettled))
    }

    /// No backend is up, since before the tick from which packets are refused if `refused`.
    pub fn to_nobody(self, refused: bool) -> Self {
        self.with(|m| m.slots = vec![Slot::EMPTY; TABLE_SIZE as usize].into()).each(|f| {
            f.refuse_at = if refused { 1 } else { u32::MAX };
        })
    }

    pub fn state(self, index: u32, flags: u32) -> Self {
        self.with(|m| {
            let backend = m.backends.iter_mut().find(|b| BackendId(b.id).index() == index);
            backend.unwrap().flags = flags;
        })
    }

    pub fn each(self, change: impl Fn(&mut Frontend)) -> Self {
        self.with(|m| m.frontends.values_mut().for_each(change))
    }
}

pub fn everywhere(index: u32, unsettled: bool) -> Arc<[Slot]> {
    vec![Slot::new(index, unsettled); TABLE_SIZE as usize].into()
}

pub fn key(at: SocketAddr, proto: Proto) -> FrontendKey {
    let proto = match proto {
        Proto::Tcp => model::Proto::Tcp,
        Proto::Udp => model::Proto::Udp,
    };
    FrontendKey::of(&model::Frontend { addr: at.ip(), port: at.port(), proto })
}

fn frontend(family: Family) -> Frontend {
    Frontend {
        service: SERVICE,
        ttl: 1000,
        rules: 0,
        interval: 0,
        refuse_at: 0,
        port: TARGET.to_be_bytes(),
        prefix: if family == Family::V4 { 128 } else { 64 },
        zero: 0,
    }
}

fn backend(index: u32, flags: u32) -> Backend {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (Family::V4.backend(index), Family::V6.backend(index))
    else {
        panic!("each family gives its own")
    };
    Backend {
        v6: addr::from_bytes(v6.octets()),
        v4: v4.octets(),
        // Set at load, when the interfaces are there.
        ifindex_v4: 0,
        ifindex_v6: 0,
        id: BackendId::new(index, 1).0,
        flags,
        service: SERVICE,
    }
}

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
    /// Builds it and works in the node's namespace.
    pub fn enter(work: impl FnOnce(&mut Self) + Send) {
        let node = Netns::new("node").unwrap();
        let handle = Netns::new("client").unwrap();
        let backends = Netns::new("backends").unwrap();
        let path = node.path();
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let file = std::fs::File::open(path).unwrap();
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                // One CPU, so that a frame has come out when the system call that sent it returns.
                let mut cpus = CpuSet::new();
                cpus.set(sched_getcpu().unwrap()).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                work(&mut Self::new(node, handle, backends));
            });
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new(node: Netns, client: Netns, backends: Netns) -> Self {
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
        node.enter(|| rig.path.executor.reach(&all)).unwrap().unwrap();
        let index = |dev: &str| nix::net::if_::if_nametoindex(dev).unwrap();
        let tap = |dev: &str, proto: u16| open(dev, Some(proto));
        let taps = [("eth0", 0x0800), ("eth0", 0x86dd), ("eth2", 0x0800), ("eth2", 0x86dd)];
        let mut world = Self {
            runner: Runner::new(&rig).unwrap(),
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
        self.rig.path.executor.apply(&plan, &Loaded::default(), &Names::default()).unwrap();
        self.loaded = maps.clone();
    }

    /// Forgets all that packets left, and loads the maps.
    pub fn reset(&mut self, maps: &Maps) {
        use sticky_common::types::{ClientKey, Flow, FlowKey, Fragment, FragmentKey, Record};
        clear(self.map::<ClientKey, Record>(maps::CLIENTS));
        clear(self.map::<ClientKey, Record>(maps::CANDIDATES));
        clear(self.map::<ClientKey, u64>(maps::RATES));
        clear(self.map::<FlowKey, Flow>(maps::FLOWS));
        clear(self.map::<FlowKey, Flow>(maps::TRANSIENT));
        clear(self.map::<FragmentKey, Fragment>(maps::FRAGMENTS));
        self.load(maps);
        self.collect(0);
    }

    /// One of the maps that packets write.
    pub fn map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.runner.map(name).try_into().unwrap()
    }

    pub fn counts(&mut self) -> Counts {
        let outcomes: PerCpuArray<_, u64> = self.runner.map(maps::OUTCOMES).try_into().unwrap();
        let sum = |i| outcomes.get(&i, 0).unwrap().iter().sum();
        let outcomes = (0..Outcome::COUNT).map(sum).collect();
        let stats: PerCpuArray<_, Traffic> =
            self.runner.map(maps::BACKEND_STATS).try_into().unwrap();
        let towards = (0..=NARROW).map(|i| {
            let all = stats.get(&i, 0).unwrap();
            (all.iter().map(|t| t.packets).sum(), all.iter().map(|t| t.bytes).sum())
        });
        Counts { outcomes, towards: towards.collect() }
    }

    /// A frame of a client through both programs.
    pub fn from_client(&mut self, frame: &[u8]) {
        self.runner.run_live(frame, self.ifindices[0]).unwrap();
    }

    /// The same over the link, which takes frames of any length.
    pub fn by_wire(&mut self, frame: &[u8]) {
        self.client.0.send_to(frame, None).unwrap().unwrap();
    }

    pub fn from_backend(&mut self, frame: &[u8]) {
        self.backends[0].0.send_to(frame, None).unwrap().unwrap();
    }

    /// Through `sticky_xdp` alone.
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

/// An address as the maps have it.
pub fn mapped(addr: IpAddr) -> sticky_common::types::Addr {
    match addr {
        IpAddr::V4(v4) => addr::mapped(v4.octets()),
        IpAddr::V6(v6) => addr::from_bytes(v6.octets()),
    }
}
