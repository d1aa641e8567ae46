//! Backends that have both families: each client is delivered to in its own, and is one client of one table.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use sticky_tests::demo::{Backends, LINE_PORT, backend_name, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{NODE_V6, Topology, client, client_v6, vip};

use crate::fixture::ServiceFile;

const BACKENDS: u8 = 3;
const CLIENTS: u16 = 24;
const LIMIT: Duration = Duration::from_secs(10);

/// A client of each family.
fn clients() -> impl Iterator<Item = (IpAddr, SocketAddr)> {
    let v6 = SocketAddr::new(NODE_V6.into(), LINE_PORT);
    (0..CLIENTS)
        .flat_map(move |index| [(client(index.into()), vip(LINE_PORT)), (client_v6(index), v6)])
}

/// The service with these backends, the last of them with this second address.
fn text(pairs: &[(IpAddr, Option<IpAddr>)]) -> String {
    let mut backends = String::new();
    for (v4, v6) in pairs {
        let at = |addr: IpAddr| SocketAddr::new(addr, LINE_PORT);
        let second = v6.map(|v6| format!(", addr_v6 = \"{}\"", at(v6))).unwrap_or_default();
        let _ = write!(backends, "{{ addr = \"{}\"{second} }}, ", at(*v4));
    }
    format!(
        "[[service]]\nname = \"demo\"\npublish = [\"{LINE_PORT}:{LINE_PORT}/tcp\"]\nbackends = [{backends}]\n\
         [service.labels]\n\"com.docker.lb.ip_hash\" = \"true\"\n"
    )
}

fn paths(entry: &Value) -> Vec<(bool, String)> {
    let frontends = entry["frontends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = frontends.iter().map(|f| (text(&f["addr"]).contains(':'), text(&f["path"])));
    all.filter(|(v6, path)| *v6 || path == "xdp").collect()
}

#[test]
fn clients_of_both_families_keep_their_addresses_and_their_connections() -> anyhow::Result<()> {
    let net = Topology::new()?;
    let (backends, v4) = net.backends(BACKENDS + 2)?;
    net.add_v6()?;
    let v6 = net.backends_v6(&backends, BACKENDS + 1)?;
    let both = usize::from(BACKENDS);
    // The backend after these has a second address at which nobody listens, the last has none.
    let serving = [&v4[..], &v6[..both]].concat();
    let _running = Backends::start(&backends, &demo_binary()?, &serving)?;
    let pairs: Vec<_> = v4.iter().enumerate().map(|(at, v4)| (*v4, v6.get(at).copied())).collect();
    let names = |addr: &str| -> anyhow::Result<Vec<String>> {
        let v4 = addr.parse::<SocketAddr>()?.ip();
        let pair = pairs.iter().find(|pair| pair.0 == v4).context("it is a backend")?;
        Ok([Some(pair.0), pair.1].into_iter().flatten().map(|a| backend_name(&a)).collect())
    };

    let file = ServiceFile::new(v4.clone())?;
    let write = |range: Range<usize>| file.write(&text(&pairs[range]));
    write(0..both)?;
    let provider = format!("file:{}", file.path().display());
    let arguments = ["--iface", "eth0", "--provider", &provider, "--http", "none"];
    let mut sticky = Sticky::start(&net.node, &arguments)?;
    let entry = sticky.wait_up("demo", both, LIMIT)?;
    assert!(paths(&entry).iter().all(|(_, path)| path == "xdp"), "{entry}");

    let open =
        |sticky: &Sticky, source: IpAddr, to: SocketAddr| -> anyhow::Result<LineConnection> {
            let told = sticky.where_is(&source.to_string(), "demo")?;
            let line = net.clients.enter(|| LineConnection::open(source, to))??;
            let addr = told["backend"]["addr"].as_str().with_context(|| told.to_string())?;
            assert!(
                names(addr)?.contains(&line.instance),
                "{source}: {told}, and it is {}",
                line.instance
            );
            Ok(line)
        };
    let mut lines = Vec::new();
    for (source, to) in clients() {
        let line = open(&sticky, source, to)?;
        assert_eq!(line.seen, line.local, "the backend sees who it is");
        let own = if source.is_ipv4() { &v4 } else { &v6 };
        assert!(own.iter().any(|addr| backend_name(addr) == line.instance), "in its own family");
        lines.push((source, to, line));
    }
    let used = |v6: bool| {
        let of = lines.iter().filter(|(source, ..)| source.is_ipv6() == v6);
        of.map(|(_, _, line)| &line.instance).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(used(false) > 1 && used(true) > 1, "{lines:?}");

    // Without sticky, and with another one: connections live, and new ones of known clients find the same backend.
    sticky.kill();
    for (source, to, line) in &mut lines {
        line.ask("alone")?;
        let again = net.clients.enter(|| LineConnection::open(*source, *to))??;
        assert_eq!((&again.instance, again.seen), (&line.instance, again.local), "{source}");
    }
    sticky.run()?;
    let entry = sticky.wait_up("demo", both, LIMIT)?;
    assert!(paths(&entry).iter().all(|(_, path)| path == "xdp"), "{entry}");
    for (source, to, line) in &mut lines {
        line.ask("adopted")?;
        assert_eq!(open(&sticky, *source, *to)?.instance, line.instance, "{source}");
    }

    // IPv6 cannot go everywhere now: all of it goes through the relay, by the same table.
    for count in [both + 1, both + 2] {
        write(0..count)?;
        let entry = sticky.wait_up("demo", count, LIMIT)?;
        let wanted = |(v6, path): &(bool, String)| path == if *v6 { "relay" } else { "xdp" };
        assert!(paths(&entry).iter().all(wanted), "{count}: {entry}");
        for (source, to) in clients() {
            let mut line = open(&sticky, source, to)?;
            line.ask("mixed")?;
            assert_eq!(line.seen == line.local, source.is_ipv4(), "{source}");
        }
        for (source, _, line) in lines.iter_mut().filter(|(source, ..)| source.is_ipv4()) {
            line.ask("still").with_context(|| source.to_string())?;
        }
    }
    Ok(())
}
