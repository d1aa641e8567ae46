//! An upgrade: one sticky succeeds another, and the maps go over with everything in them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::process::Process;
use sticky_tests::topology::{client, vip};

use crate::fixture::FileNode;

const OPEN: u32 = 20;
const KNOWN: u32 = 100;
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn connections_and_clients_outlive_a_takeover() -> anyhow::Result<()> {
    let mut node = FileNode::demo(4, 3)?;
    let clients = &node.net.clients;
    let known = load::visit(clients, 0..KNOWN, vip(HTTP_PORT))?;
    let open: anyhow::Result<Vec<_>> = clients.enter(|| {
        (0..OPEN).map(|index| LineConnection::open(client(index), vip(LINE_PORT))).collect()
    })?;
    let mut open = open?;

    let provider = format!("file:{}", node.file.path().display());
    let run = ["run", "--takeover", "--iface", "eth0", "--provider", &provider];
    let stop = AtomicBool::new(false);
    let _successor = std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                open.iter_mut().try_for_each(|connection| connection.ask("still there"))?;
                std::thread::sleep(Duration::from_millis(5));
            }
            anyhow::Ok(())
        });
        let outcome = (|| {
            let mut successor = Process::spawn("successor", &node.sticky.command(&run))?;
            successor.wait_line(LIMIT, 0, |line| line.contains("took over"))?;
            let code = node.sticky.process()?.wait(LIMIT)?.code();
            assert_eq!(code, Some(0), "the first one ends well");
            // The successor is the one that changes the maps now.
            node.scale(4)?;
            anyhow::Ok(successor)
        })();
        stop.store(true, Ordering::Relaxed);
        talking.join().expect("no assertion in there")?;
        outcome
    })?;

    let after = load::visit(&node.net.clients, 0..KNOWN, vip(HTTP_PORT))?;
    let moved =
        known.iter().filter(|(index, visit)| after[*index].instance != visit.instance).count();
    assert_eq!(moved, 0, "known clients moved");
    Ok(())
}
