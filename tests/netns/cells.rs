//! What a backend's state means to its clients, cell by cell: connections, known clients and new ones, over TCP and UDP.

use std::net::TcpListener;
use std::time::Duration;

use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;

use crate::dual::{BOTH, Dual, Family};

const BACKENDS: u8 = 4;
const KNOWN: u16 = 40;
const LIMIT: Duration = Duration::from_secs(10);

/// A client with a connection and a flow of datagrams, both with one backend.
struct Client {
    family: Family,
    index: u16,
    line: LineConnection,
    datagrams: Datagrams,
}

fn meet(node: &Dual, family: Family, index: u16) -> anyhow::Result<Client> {
    node.client(|| {
        let line = LineConnection::open(family.client(index), family.frontend(LINE_PORT))?;
        let datagrams = Datagrams::open(family.client(index), family.frontend(DATAGRAM_PORT))?;
        let answer = datagrams.ask(b"first")?;
        anyhow::ensure!(answer.instance == line.instance, "{} and {answer:?}", line.instance);
        Ok(Client { family, index, line, datagrams })
    })
}

/// What became of the clients of one backend, and who was new to it.
#[derive(Debug, PartialEq, Eq)]
struct Cells {
    connection_stays: bool,
    flow_stays: bool,
    known_stays: bool,
    new_comes: bool,
}

/// Puts one backend into a state and looks at its row.
fn row(
    node: &mut Dual,
    begin: u16,
    victim: usize,
    state: impl FnOnce(&mut Dual) -> anyhow::Result<()>,
) -> anyhow::Result<Cells> {
    let mut known = Vec::new();
    for family in BOTH {
        for index in begin..begin + KNOWN {
            known.push(meet(node, family, index)?);
        }
    }
    let names = node.names(victim);
    state(node)?;
    let (mut connections, mut flows, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for client in known {
        let Client { family, index, mut line, datagrams } = client;
        let of_victim = names.contains(&line.instance);
        let stays = line.ask("still there?");
        let answer = datagrams.ask(b"still there?")?;
        let next = meet(node, family, index)?.line.instance;
        if of_victim {
            connections.push(stays.is_ok());
            flows.push(answer.instance == line.instance);
            again.push(next == line.instance);
        } else {
            stays?;
            assert_eq!((&answer.instance, &next), (&line.instance, &line.instance));
        }
    }
    let mut new = Vec::new();
    for family in BOTH {
        for index in begin + 500..begin + 500 + KNOWN {
            new.push(names.contains(&meet(node, family, index)?.line.instance));
        }
    }
    let all = |cell: &[bool], what: &str| {
        assert!(!cell.is_empty() && cell.iter().all(|&c| c == cell[0]), "{what}: {cell:?}");
        cell[0]
    };
    Ok(Cells {
        connection_stays: all(&connections, "established connections"),
        flow_stays: all(&flows, "flows of datagrams"),
        known_stays: all(&again, "known clients"),
        new_comes: new.contains(&true),
    })
}

fn cells(connection_stays: bool, known_stays: bool, new_comes: bool) -> Cells {
    Cells { connection_stays, flow_stays: connection_stays, known_stays, new_comes }
}

fn state(node: &Dual, family: Family, victim: usize, state: &str) -> anyhow::Result<()> {
    node.sticky
        .wait_service(family.service(), &format!("backend {victim} {state}"), LIMIT, |service| {
            service["backends"][victim]["state"] == state
        })
        .map(drop)
}

#[test]
fn each_cell_of_the_table_of_states() -> anyhow::Result<()> {
    // A port more that every backend is checked on, so that one can fail its checks and still talk.
    let labels = [("sticky.health.interval", "200ms"), ("sticky.l4.listen", "7100:7100/tcp")];
    let labels: [&[_]; 2] = [&labels, &[labels[0], ("sticky.l4.listen", "17100:7100/tcp")]];
    let mut doors = Vec::new();
    let mut node =
        Dual::start_prepared(BACKENDS, labels, &["--xdp-mode", "native"], |netns, all| {
            for &address in all {
                doors.push(Some(netns.enter(|| TcpListener::bind((address, 7100)))??));
            }
            Ok(())
        })?;
    let count = usize::from(BACKENDS);
    assert_eq!(row(&mut node, 0, 1, |_| Ok(()))?, cells(true, true, true), "up");

    let drained = row(&mut node, 50, 2, |node| {
        node.write(&[0, 1, 2, 3], &[2])?;
        BOTH.into_iter().try_for_each(|family| state(node, family, 2, "draining"))
    })?;
    assert_eq!(drained, cells(true, true, false), "draining by the operator, in the file");

    let down = row(&mut node, 100, 1, |node| {
        (doors[1], doors[1 + count]) = (None, None);
        BOTH.into_iter().try_for_each(|family| state(node, family, 1, "down"))
    })?;
    assert_eq!(down, cells(true, false, false), "down");

    let gone = row(&mut node, 150, 3, |node| {
        node.write(&[0, 1, 2], &[2])?;
        for family in BOTH {
            node.sticky.wait_service(family.service(), "one less", LIMIT, |service| {
                service["backends"].as_array().is_some_and(|all| all.len() == 3)
            })?;
        }
        Ok(())
    })?;
    assert_eq!(gone, cells(false, false, false), "gone");
    Ok(())
}
