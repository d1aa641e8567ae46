//! Labels of layer 4: who may connect and how often, who counts as one client, and for how long.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use sticky_tests::demo::{LINE_PORT, backend_name};
use sticky_tests::lines::LineConnection;
use sticky_tests::topology::{client, vip};

use crate::dual::{BOTH, Dual, Family};
use crate::fixture::FileNode;

const BACKENDS: u8 = 4;

fn open(node: &Dual, source: IpAddr, to: SocketAddr) -> anyhow::Result<LineConnection> {
    node.client(|| LineConnection::open(source, to))
}

/// Whether nobody answers.
fn is_denied(node: &Dual, source: IpAddr, to: SocketAddr) -> bool {
    let limit = Duration::from_millis(300);
    node.client(|| LineConnection::open_within(source, to, limit)).is_err()
}

fn start(labels: [&[(&str, &str)]; 2]) -> anyhow::Result<Dual> {
    Dual::start_prepared(BACKENDS, labels, &["--xdp-mode", "native"], |_, _| Ok(()))
}

#[test]
fn who_may_connect_and_how_often() -> anyhow::Result<()> {
    let allow =
        [("sticky.allow", "198.18.0.0/24,198.18.2.0/24"), ("sticky.deny", "198.18.0.128/25")];
    let rate = [("sticky.rate", "5"), ("sticky.deny", "2001:db8:c:9::/64")];
    let node = start([&allow, &rate])?;
    let to = Family::V4.frontend(LINE_PORT);
    for (index, admitted) in
        [(1, true), (127, true), (128, false), (255, false), (256, false), (513, true)]
    {
        if admitted {
            open(&node, client(index), to)?;
        } else {
            assert!(is_denied(&node, client(index), to), "{}", client(index));
        }
    }
    let six = Family::V6;
    let to = six.frontend(LINE_PORT);
    assert!(is_denied(&node, six.client(9), to));
    // Five a second: of a burst five are let in, and a second later five more; others are not held up.
    for _ in 0..2 {
        let (burst, took) = node.client(|| burst(six.client(1), to))?;
        let most = 6 + (5.0 * took.as_secs_f64()) as usize;
        assert!((4..=most).contains(&burst), "{burst} of 12 in {took:?}");
        open(&node, six.client(2), to)?;
        std::thread::sleep(Duration::from_millis(1200));
    }
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    for outcome in ["denied", "rate_limited"] {
        let start = format!("sticky_packets_total{{outcome=\"{outcome}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&start));
        assert!(count.is_some_and(|count| count != "0"), "{outcome}: {count:?}");
    }
    Ok(())
}

/// How many of twelve first SYNs are answered, and how long it took to send them. Second ones leave after a second.
fn burst(source: IpAddr, to: SocketAddr) -> anyhow::Result<(usize, Duration)> {
    let since = Instant::now();
    let mut sockets = Vec::new();
    for _ in 0..12 {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => sockets.push(socket),
        }
    }
    let took = since.elapsed();
    std::thread::sleep(Duration::from_millis(400));
    Ok((sockets.iter().filter(|socket| socket.peer_addr().is_ok()).count(), took))
}

#[test]
fn a_prefix_is_one_client() -> anyhow::Result<()> {
    let prefix = [("sticky.ip_prefix", "24,56")];
    let node = start([&prefix; 2])?;
    let instances = |of: &dyn Fn(u8) -> IpAddr, family: Family| {
        let to = family.frontend(LINE_PORT);
        (0..12)
            .map(|i| Ok(open(&node, of(i), to)?.instance))
            .collect::<anyhow::Result<BTreeSet<_>>>()
    };
    let within = |i: u8| client(u32::from(i) * 20 + 5);
    let across = |i: u8| client(u32::from(i) * 256 + 5);
    assert_eq!(instances(&within, Family::V4)?.len(), 1);
    assert!(instances(&across, Family::V4)?.len() > 1);
    let within = |i: u8| Family::V6.client(0x1200 + u16::from(i));
    let across = |i: u8| Family::V6.client(u16::from(i) << 8);
    assert_eq!(instances(&within, Family::V6)?.len(), 1);
    assert!(instances(&across, Family::V6)?.len() > 1);
    Ok(())
}

#[test]
fn affinity_for_no_time_and_for_a_short_one() -> anyhow::Result<()> {
    const CLIENTS: u16 = 120;
    let node = start([&[("sticky.affinity_ttl", "0")], &[("sticky.affinity_ttl", "5s")]])?;
    node.serve(0..2)?;
    let meet = |family: Family| -> anyhow::Result<Vec<LineConnection>> {
        let to = family.frontend(LINE_PORT);
        (0..CLIENTS).map(|index| open(&node, family.client(index), to)).collect()
    };
    let moved = |was: &[LineConnection], is: &[LineConnection]| {
        was.iter().zip(is).filter(|(was, is)| was.instance != is.instance).count()
    };
    let mut first = [meet(Family::V4)?, meet(Family::V6)?];
    node.serve(0..usize::from(BACKENDS))?;
    // Nobody is known for no time; who is known for five seconds stays for now.
    let second = [meet(Family::V4)?, meet(Family::V6)?];
    let followed = moved(&first[0], &second[0]);
    assert!(followed > 24, "{followed} of {CLIENTS} follow the hash");
    assert_eq!(moved(&first[1], &second[1]), 0);
    std::thread::sleep(Duration::from_secs(8));
    let third = meet(Family::V6)?;
    let expired = moved(&first[1], &third);
    assert!(expired > 24, "{expired} of {CLIENTS} are new after eight silent seconds");
    // Connections from before stay where they are, whatever holds for new ones.
    for family in BOTH {
        first[family as usize].iter_mut().try_for_each(|line| line.ask("still there?"))?;
    }
    Ok(())
}

#[test]
fn weights_are_shares_of_new_clients() -> anyhow::Result<()> {
    let node = FileNode::start(3, |addresses| {
        let weight = |(address, weight): (&IpAddr, u8)| {
            format!("{{ addr = \"{address}:{LINE_PORT}\", weight = {weight} }}")
        };
        let backends: Vec<_> = addresses.iter().zip([1, 2, 5]).map(weight).collect();
        format!(
            "[[service]]\nname = \"demo\"\npublish = [\"{LINE_PORT}:{LINE_PORT}/tcp\"]\nbackends = [{}]\n\
             [service.labels]\n\"com.docker.lb.ip_hash\" = \"true\"\n",
            backends.join(", ")
        )
    })?;
    let entry = node.sticky.wait_up("demo", 3, Duration::from_secs(10))?;
    for (index, weight) in [1.0, 2.0, 5.0].into_iter().enumerate() {
        let slots = entry["backends"][index]["slots"].as_f64().unwrap_or_default();
        let fair = 16_381.0 * weight / 8.0;
        assert!((slots - fair).abs() / fair < 0.01, "{slots} of {fair}");
    }
    let lightest = backend_name(&node.file.addresses[0]);
    let met: anyhow::Result<Vec<_>> = node.net.clients.enter(|| {
        (0..1000).map(|index| LineConnection::open(client(index), vip(LINE_PORT))).collect()
    })?;
    let light = met?.iter().filter(|line| line.instance == lightest).count();
    // 125 are fair, give or take six standard deviations and more.
    assert!((57..=193).contains(&light), "{light} of 1000");
    Ok(())
}
