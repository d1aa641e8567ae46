//! The contestants, each with a node, clients and backends of its own, so that nobody pays for another's rules.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use sticky_tests::command::both;
use sticky_tests::demo::demo_image;
use sticky_tests::names::TempDir;
use sticky_tests::netns::{Netns, enter};
use sticky_tests::process::Process;
use sticky_tests::sticky::Sticky;
use sticky_tests::swarm::Swarm;
use sticky_tests::topology::{NODE, Topology, vip};
use sticky_tests::wait;

const BACKENDS: u8 = 5;
/// Where all of them are asked.
const FRONTEND: u16 = 80;
/// Where backends listen.
const BACKEND: u16 = 8000;

/// A contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Nftables,
    Docker,
    Haproxy,
    Nginx,
    Sticky,
}

/// A contestant in its place; its parts are dropped in this order.
pub struct Stage {
    pub kind: Kind,
    /// Where client number N connects to: the one at N modulo their number.
    pub to: Vec<SocketAddr>,
    _runs: Runs,
    _backends: Option<Netns>,
    pub net: Topology,
}

/// What has to run while it is measured.
#[expect(dead_code, reason = "held, and ended when dropped")]
enum Runs {
    Nothing,
    Sticky(Sticky, TempDir),
    Proxy(Process, TempDir),
    Docker(Box<Swarm>),
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Plain, Self::Nftables, Self::Docker, Self::Haproxy, Self::Nginx, Self::Sticky];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain routing, no balancer",
            Self::Nftables => "nftables DNAT",
            Self::Docker => "Docker's mode=host port",
            Self::Haproxy => "HAProxy, mode tcp",
            Self::Nginx => "nginx stream",
            Self::Sticky => "sticky",
        }
    }

    /// Which one it is, and how it chooses.
    pub fn note(self) -> anyhow::Result<String> {
        let version = |program: &str, flag: &str| -> anyhow::Result<String> {
            let text = both(Command::new(program).arg(flag))?;
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        Ok(match self {
            Self::Plain => "plain routing: clients connect to the backends themselves".to_owned(),
            Self::Nftables => {
                let version = version("nft", "--version")?;
                format!("{version}: `dnat to jhash ip saddr mod {BACKENDS} map`, conntrack")
            }
            Self::Docker => {
                let version = version("dockerd", "--version")?;
                format!(
                    "{version}: a task of a private Swarm, by its own rules; one backend, behind a bridge"
                )
            }
            Self::Haproxy => {
                format!("{}: `balance source`, one thread a CPU", version("haproxy", "-v")?)
            }
            Self::Nginx => format!(
                "{}: `hash $remote_addr consistent`, one worker a CPU",
                version("nginx", "-v")?
            ),
            Self::Sticky => {
                "sticky: `com.docker.lb.ip_hash`, native XDP on the clients' link; the kernel takes TSO from the other end of \
                 such a veth, so that the clients split their data themselves"
                    .to_owned()
            }
        })
    }

    /// Whether backends see who asks.
    pub const fn shows_client(self) -> bool {
        !matches!(self, Self::Haproxy | Self::Nginx)
    }
}

impl Stage {
    /// Builds it, and hands over the backends' listeners.
    pub fn new(kind: Kind) -> anyhow::Result<(Self, Vec<TcpListener>)> {
        let net = Topology::new()?;
        net.node.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        short_waits(&net.clients)?;
        short_waits(&net.node)?;
        if kind == Kind::Docker {
            return Self::docker(net);
        }
        let (backends, addrs) = net.backends(BACKENDS)?;
        short_waits(&backends)?;
        let addrs: Vec<SocketAddr> =
            addrs.into_iter().map(|addr| SocketAddr::new(addr, BACKEND)).collect();
        let listeners = enter(&backends.path(), || listen(&addrs))??;
        let runs = match kind {
            Kind::Plain | Kind::Docker => Runs::Nothing,
            Kind::Nftables => nftables(&net.node, &addrs)?,
            Kind::Haproxy => {
                proxy(&net.node, kind, &haproxy(&addrs), |file| command("haproxy", &["-f"], file))?
            }
            Kind::Nginx => {
                // Workers are processes, and end with the first one of their namespace, however that ends.
                let alone = ["--pid", "--fork", "--kill-child", "nginx", "-c"];
                proxy(&net.node, kind, &nginx(&addrs), |file| command("unshare", &alone, file))?
            }
            Kind::Sticky => sticky(&net.node, &addrs)?,
        };
        let to = if kind == Kind::Plain { addrs } else { vec![vip(FRONTEND)] };
        Ok((Self { kind, to, _runs: runs, _backends: Some(backends), net }, listeners))
    }

    /// A task of a Swarm with a port in host mode; our backend listens in its container.
    fn docker(net: Topology) -> anyhow::Result<(Self, Vec<TcpListener>)> {
        let swarm = Swarm::start(&net.node, &NODE.to_string(), &demo_image()?)?;
        let port = format!("mode=host,published={FRONTEND},target={BACKEND}");
        swarm.create(&["--name", "bench", "--publish", &port])?;
        let tasks = swarm.wait_running("bench", 1)?;
        let container = &tasks.first().context("one task")?.container;
        let inspect = |format: &str| -> anyhow::Result<String> {
            Ok(swarm.docker(&["inspect", "--format", format, container])?.trim().to_owned())
        };
        let addr: IpAddr = inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")?
            .parse()
            .context("a task's address")?;
        let netns = swarm.daemon.file(Path::new(&inspect("{{.NetworkSettings.SandboxKey}}")?));
        let listeners = enter(&netns, || listen(&[SocketAddr::new(addr, BACKEND)]))??;
        // It would go on with its own work, and rules and container stay.
        swarm.daemon.kill()?;
        let to = vec![vip(FRONTEND)];
        let runs = Runs::Docker(Box::new(swarm));
        Ok((Self { kind: Kind::Docker, to, _runs: runs, _backends: None, net }, listeners))
    }
}

/// Connections that are over are forgotten soon: else a long run would be one through ever larger tables.
fn short_waits(netns: &Netns) -> anyhow::Result<()> {
    netns.sysctl("net.ipv4.tcp_max_tw_buckets", "4096")
}

fn listen(addrs: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    /// Connections that wait to be accepted.
    const BACKLOG: i32 = 4096;
    let one = |addr: &SocketAddr| -> anyhow::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&(*addr).into()).with_context(|| format!("cannot listen on {addr}"))?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    addrs.iter().map(one).collect()
}

fn sticky(node: &Netns, addrs: &[SocketAddr]) -> anyhow::Result<Runs> {
    let dir = TempDir::new()?;
    let file = dir.join("services.toml");
    let all: Vec<String> = addrs.iter().map(|addr| format!("{:?}", addr.to_string())).collect();
    let text = format!(
        "[[service]]\nname = \"bench\"\npublish = [\"{FRONTEND}:{BACKEND}/tcp\"]\nbackends = [{}]\n\
         [service.labels]\n\"com.docker.lb.ip_hash\" = \"true\"\n",
        all.join(", ")
    );
    fs::write(&file, text)?;
    let provider = format!("file:{}", file.display());
    let arguments =
        ["--iface", "eth0", "--xdp-mode", "native", "--provider", &provider, "--http", "none"];
    let sticky = Sticky::start(node, &arguments)?;
    sticky.wait_up("bench", addrs.len(), Duration::from_secs(10))?;
    Ok(Runs::Sticky(sticky, dir))
}

fn nftables(node: &Netns, addrs: &[SocketAddr]) -> anyhow::Result<Runs> {
    let all: Vec<String> =
        (0..).zip(addrs).map(|(number, addr)| format!("{number} : {}", addr.ip())).collect();
    let rules = format!(
        "table ip bench {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n\
         ip daddr {NODE} tcp dport {FRONTEND} dnat to jhash ip saddr mod {} map {{ {} }} : {BACKEND}\n}}\n}}\n",
        addrs.len(),
        all.join(", ")
    );
    let dir = TempDir::new()?;
    let file = dir.join("rules");
    fs::write(&file, rules)?;
    node.run("nft", &["--file", &file.to_string_lossy()])?;
    // Its table would grow by each connection for two minutes.
    node.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "5")?;
    Ok(Runs::Nothing)
}

fn command(program: &str, flags: &[&str], file: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(flags).arg(file);
    command
}

fn proxy(
    node: &Netns,
    kind: Kind,
    text: &str,
    command: impl FnOnce(&Path) -> Command,
) -> anyhow::Result<Runs> {
    let dir = TempDir::new()?;
    let file = dir.join("config");
    fs::write(&file, text.replace("DIR", &dir.path().to_string_lossy()))?;
    let proxy = command(&file);
    let mut inside = node.command(&proxy.get_program().to_string_lossy());
    inside.args(proxy.get_args());
    let mut process = Process::spawn(kind.name(), &inside)?;
    wait::until(&format!("{} to listen", kind.name()), Duration::from_secs(10), || {
        process.check()?;
        let open = node.enter(|| std::net::TcpStream::connect(vip(FRONTEND)))?;
        Ok(open.map(drop).map_err(|error| error.to_string()))
    })?;
    Ok(Runs::Proxy(process, dir))
}

fn haproxy(addrs: &[SocketAddr]) -> String {
    let servers: String = (0..)
        .zip(addrs)
        .map(|(number, addr)| format!("    server s{number} {addr} check\n"))
        .collect();
    format!(
        "global\n    maxconn 9000\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 75s\n    \
         timeout server 75s\nfrontend f\n    bind {NODE}:{FRONTEND} backlog 4096\n    default_backend b\n\
         backend b\n    balance source\n    hash-type consistent\n{servers}"
    )
}

fn nginx(addrs: &[SocketAddr]) -> String {
    /// Where Debian and Ubuntu put it; elsewhere it may be part of the program.
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let module = if PathBuf::from(MODULE).exists() {
        format!("load_module {MODULE};\n")
    } else {
        String::new()
    };
    let servers: String = addrs.iter().map(|addr| format!("server {addr};\n")).collect();
    format!(
        "{module}daemon off;\nuser root;\nworker_processes auto;\npid DIR/pid;\nerror_log stderr;\n\
         events {{ worker_connections 9000; }}\n\
         stream {{\nupstream app {{\nhash $remote_addr consistent;\n{servers}}}\n\
         server {{\nlisten {NODE}:{FRONTEND} backlog=4096;\nproxy_pass app;\n}}\n}}\n"
    )
}
