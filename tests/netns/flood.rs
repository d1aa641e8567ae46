//! Sources that anybody can invent wash nobody out: neither connections nor clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;
use sticky_tests::spoof::{Kind, Spoof};

use crate::dual::{BOTH, Dual, Family, Labels};

/// Of each family.
const WORKING: u16 = 250;
const SYNS: u32 = 1_000_000;
const DATAGRAMS: u32 = 100_000;
/// Room for few more than those who work.
const MAX_CLIENTS: &str = "2000";

/// Where the invented packets come from: 65,536 addresses of IPv4, and as many networks of IPv6 as there are numbers.
fn source(family: Family, number: u32) -> SocketAddr {
    let [a, b, c, d] = number.to_be_bytes();
    let port = 1024 + u16::from_be_bytes([c, d]) % 60_000;
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(198, 19, c, d).into(),
        Family::V6 => {
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Ipv6Addr::new(0x2001, 0xdb8, 0x8000 | high, low, 0, 0, 0, 1).into()
        }
    };
    SocketAddr::new(ip, port.wrapping_add(u16::from(b)))
}

#[test]
fn two_million_invented_clients_wash_nobody_out() -> anyhow::Result<()> {
    let arguments = ["--xdp-mode", "native", "--max-clients", MAX_CLIENTS];
    // Sent as fast as can be, the flood takes the packets of checks too: a backend that is called down for it loses clients.
    let checks: Labels<'_> = &[("sticky.health.interval", "1h")];
    let node = Dual::start_prepared(8, [checks; 2], &arguments, |_, _| Ok(()))?;
    node.serve(0..4)?;
    let clients = &node.net.clients;
    // The answers to them are for nobody.
    clients.ip("route add blackhole 198.19.0.0/16 table local")?;
    // Where a link is full, packets wait (Linux 6.16): dropped, those of the clients at work would be among them, the same
    // ones again and again. An end without GRO, and one whose other end has TSO, has no queue of its own: what it is sent
    // goes through the CPU's, which holds 1000 packets of all links and drops the rest.
    let net = &node.net;
    let ends =
        [(clients, "eth0"), (&net.node, "eth0"), (&net.node, "eth2"), (&node.backends, "eth0")];
    for (netns, device) in ends {
        netns.run("ethtool", &["-K", device, "gro", "on", "tso", "off"])?;
        netns.run("tc", &["qdisc", "replace", "dev", device, "root", "pfifo", "limit", "10000"])?;
    }
    let mut open: Vec<(Family, u16, LineConnection)> = node.client(|| {
        let all = BOTH.into_iter().flat_map(|family| (0..WORKING).map(move |i| (family, i)));
        all.map(|(family, index)| {
            let to = family.frontend(LINE_PORT);
            Ok((family, index, LineConnection::open(family.client(index), to)?))
        })
        .collect()
    })?;
    let talkers: Vec<(Datagrams, String)> = node.client(|| {
        let all = BOTH.into_iter().flat_map(|family| (0..20).map(move |i| (family, i)));
        all.map(|(family, index)| {
            let to = family.frontend(DATAGRAM_PORT);
            let datagrams = Datagrams::open(family.client(1000 + index), to)?;
            let instance = datagrams.ask(b"who are you?")?.instance;
            Ok((datagrams, instance))
        })
        .collect()
    })?;
    // A source that goes on is real: in another second than the first.
    std::thread::sleep(Duration::from_millis(1200));
    for (datagrams, instance) in &talkers {
        anyhow::ensure!(datagrams.ask(b"and again")?.instance == *instance);
    }

    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                for (family, index, line) in &mut open {
                    line.ask("at work")
                        .map_err(|error| error.context(format!("{family:?} {index}")))?;
                }
                rounds += 1;
            }
            anyhow::Ok(rounds)
        });
        let flooded = flood(&node);
        stop.store(true, Ordering::Relaxed);
        let worked = working.join().expect("no assertion in there");
        flooded.and(worked)
    })?;

    for (datagrams, instance) in &talkers {
        let answer = datagrams.ask(b"still there?")?;
        assert_eq!(answer.instance, *instance, "a client of datagrams moved");
    }
    // With twice as many backends half of the slots move: whoever is not remembered would too.
    node.serve(0..8)?;
    node.client(|| {
        for (family, index, line) in &open {
            let to = family.frontend(LINE_PORT);
            let again = LineConnection::open(family.client(*index), to)?;
            anyhow::ensure!(again.instance == line.instance, "{family:?} {index} moved");
        }
        for ((_, instance), at) in talkers.iter().zip(0..) {
            let (family, index) = (BOTH[usize::from(at / 20)], 1000 + at % 20);
            let again = Datagrams::open(family.client(index), family.frontend(DATAGRAM_PORT))?
                .ask(b"me")?;
            anyhow::ensure!(again.instance == *instance, "{family:?} {index} moved");
        }
        Ok(())
    })?;
    println!("{} connections answered {rounds} times each meanwhile", open.len());
    assert!(rounds > 0);
    Ok(())
}

fn flood(node: &Dual) -> anyhow::Result<()> {
    for (kind, port, count) in
        [(Kind::Syn, LINE_PORT, SYNS), (Kind::Datagram, DATAGRAM_PORT, DATAGRAMS)]
    {
        let (since, before) = (Instant::now(), begun(node)?);
        let (mut sent, mut came) = (0, 0);
        // A sender this fast loses some on its own link: what did not come is made up for.
        while came < u64::from(2 * count) {
            let missing = count - u32::try_from(came / 2)?;
            anyhow::ensure!(sent < 4 * count, "only {came} of {} {kind:?}s came", 2 * sent);
            std::thread::scope(|scope| {
                let both = BOTH.map(|family| {
                    scope.spawn(move || {
                        let spoof = Spoof::new(&node.net.clients, family.frontend(port), kind)?;
                        spoof.send((sent..sent + missing).map(|number| source(family, number)))
                    })
                });
                both.into_iter().try_for_each(|one| one.join().expect("no assertion in there"))
            })?;
            sent += missing;
            came = begun(node)? - before;
        }
        let rate = f64::from(2 * sent) / since.elapsed().as_secs_f64();
        println!("{kind:?}: {came} in {:?}, {rate:.0} a second", since.elapsed());
    }
    for family in BOTH {
        let entry = node.sticky.service(family.service())?;
        println!("{}: {} clients are remembered", family.service(), entry["clients"]);
    }
    Ok(())
}

/// First packets of connections, as the program counted them.
fn begun(node: &Dual) -> anyhow::Result<u64> {
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    let reasons = ["new", "pinned", "repinned", "expired"];
    let of = |reason: &str| {
        let line = format!("sticky_packets_total{{outcome=\"{reason}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&line)).context("no such metric")
    };
    reasons.into_iter().try_fold(0, |sum, reason| Ok(sum + of(reason)?.parse::<u64>()?))
}
