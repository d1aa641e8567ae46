//! `sticky drain`: the operator's row of the states, at both layers, over a crash of sticky.

use std::collections::{BTreeMap, BTreeSet};

use sticky_tests::demo::{HTTP_PORT, LINE_PORT, backend_name};
use sticky_tests::http::{Connection, Jar};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::topology::{client, vip};

use crate::fixture::{FileNode, service};

const KNOWN: u32 = 90;
const OPEN: u32 = 60;
const PINNED: u32 = 60;

#[test]
fn a_drained_backend_keeps_its_own_clients_and_gets_no_other() -> anyhow::Result<()> {
    let mut node = FileNode::start(3, |addresses| {
        let hashed = [("com.docker.lb.ip_hash", "true")];
        let cookie = [("com.docker.lb.hosts", "web.local"), ("sticky.cookie.mode", "insert")];
        service("demo", &["8080:8080/tcp", "9090:9090/tcp"], addresses, &hashed)
            + &service("web", &[], addresses, &cookie)
    })?;
    let limit = std::time::Duration::from_secs(10);
    node.sticky.wait_up("demo", 3, limit)?;
    node.sticky.wait_up("web", 3, limit)?;
    let address = format!("{}:{HTTP_PORT}", node.file.addresses[0]);
    let drained = backend_name(&node.file.addresses[0]);

    let before = Clients::come(&node)?;
    assert!(before.known.values().any(|instance| *instance == drained));
    assert!(before.pinned.values().any(|(_, instance)| *instance == drained));
    let (mine, others): (Vec<_>, Vec<_>) =
        Clients::open(&node)?.into_iter().partition(|connection| connection.instance == drained);
    assert!(!mine.is_empty() && !others.is_empty());
    let mut open: Vec<_> = mine.into_iter().chain(others).collect();

    let said = node.sticky.sticky(&["drain", &address])?;
    assert!(said.contains("gets no new client, its own stay"), "{said}");
    for round in ["drained", "still drained after a crash"] {
        for connection in &mut open {
            connection.ask(round)?;
        }
        before.stay(&node)?;
        let new = Clients::strangers(&node, if round == "drained" { 10_000 } else { 20_000 })?;
        assert!(!new.contains(&drained) && new.len() == 2, "{round}: new clients went to {new:?}");
        told(&node, &before, &address, &drained)?;
        if round == "drained" {
            node.sticky.kill();
            node.sticky.run()?;
        }
    }

    let error = node.sticky.sticky(&["undrain", "demo"]).unwrap_err().to_string();
    assert!(error.contains("demo is not drained; drained are: backend"), "{error}");
    let error = node.sticky.sticky(&["drain", "nobody"]).unwrap_err().to_string();
    assert!(error.contains("no backend, service or node nobody"), "{error}");
    node.sticky.sticky(&["undrain", "web.1"])?;
    let new = Clients::strangers(&node, 30_000)?;
    assert!(new.contains(&drained), "after undrain: {new:?}");
    before.stay(&node)?;

    // All of a service: its clients stay, and nobody else gets in.
    node.sticky.sticky(&["drain", "web"])?;
    let status = node.sticky.status()?;
    assert_eq!(status["drains"], serde_json::json!(["service web"]), "{status}");
    before.stay(&node)?;
    Ok(())
}

/// What `status`, `where` and the metrics say of it.
fn told(node: &FileNode, before: &Clients, address: &str, drained: &str) -> anyhow::Result<()> {
    let service = node.sticky.service("demo")?;
    let backends = service["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let backend = backends.iter().find(|backend| backend["id"] == address);
    let backend = backend.cloned().unwrap_or_default();
    assert_eq!(backend["state"], "draining", "{service}");
    assert_eq!(backend["reason"], "drained by the operator", "{service}");
    assert_eq!(backend["slots"], 0, "{service}");
    let (index, _) = before.known.iter().find(|(_, i)| *i == drained).expect("it has clients");
    let answer = node.sticky.where_is(&client(*index).to_string(), "demo")?;
    assert_eq!(
        (&answer["reason"], &answer["backend"]["id"]),
        (&"draining".into(), &address.into())
    );
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    assert!(metrics.contains("sticky_drains 1\n"), "{metrics}");
    Ok(())
}

/// Clients of before, and the instance each has.
struct Clients {
    known: BTreeMap<u32, String>,
    pinned: BTreeMap<u32, (Jar, String)>,
}

impl Clients {
    fn come(node: &FileNode) -> anyhow::Result<Self> {
        let known = load::visit(&node.net.clients, 0..KNOWN, vip(HTTP_PORT))?;
        let pinned = load::each(&node.net.clients, (1000..1000 + PINNED).collect(), |index| {
            ask(index, Jar::default())
        })?;
        let known = known.into_iter().map(|(index, visit)| (index, visit.instance)).collect();
        Ok(Self { known, pinned })
    }

    /// Open connections of strangers, at layer 4.
    fn open(node: &FileNode) -> anyhow::Result<Vec<LineConnection>> {
        let open = |index| LineConnection::open(client(index), vip(LINE_PORT));
        node.net.clients.enter(|| (500..500 + OPEN).map(open).collect())?
    }

    /// Each comes again, and to the same one.
    fn stay(&self, node: &FileNode) -> anyhow::Result<()> {
        let again = load::visit(&node.net.clients, self.known.keys().copied(), vip(HTTP_PORT))?;
        for (index, visit) in again {
            assert_eq!(visit.instance, self.known[&index], "layer 4, client {index}");
        }
        let jars: BTreeMap<u32, Jar> =
            self.pinned.iter().map(|(index, (jar, _))| (*index, jar.clone())).collect();
        let again = load::each(&node.net.clients, jars.keys().copied().collect(), move |index| {
            ask(index, jars[&index].clone())
        })?;
        for (index, (_, instance)) in again {
            assert_eq!(instance, self.pinned[&index].1, "layer 7, client {index}");
        }
        Ok(())
    }

    /// The instances that clients nobody has seen get, at both layers.
    fn strangers(node: &FileNode, first: u32) -> anyhow::Result<BTreeSet<String>> {
        let visits = load::visit(&node.net.clients, first..first + 100, vip(HTTP_PORT))?;
        let mut all: BTreeSet<_> = visits.into_values().map(|visit| visit.instance).collect();
        let new: Vec<u32> = (first + 1000..first + 1040).collect();
        let asked = load::each(&node.net.clients, new, |index| ask(index, Jar::default()))?;
        all.extend(asked.into_values().map(|(_, instance)| instance));
        Ok(all)
    }
}

/// One request through the proxy, on a connection of its own.
async fn ask(index: u32, mut jar: Jar) -> anyhow::Result<(Jar, String)> {
    let mut connection = Connection::open(Some(client(index)), vip(80)).await?;
    let answer = jar.get(&mut connection, "web.local", "/headers").await?;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok((jar, answer.header("x-instance").to_owned()))
}
