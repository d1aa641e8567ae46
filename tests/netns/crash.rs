//! The control plane may die: packets do not notice.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::topology::{client, vip};

use crate::fixture::FileNode;

const OPEN: u32 = 20;
const KNOWN: u32 = 100;

/// What a process that ends by itself, and not well, says.
fn ends(mut process: Child) -> anyhow::Result<String> {
    let ended = sticky_tests::wait::until_true("its end", Duration::from_secs(20), || {
        Ok(process.try_wait()?.is_some_and(|status| !status.success()))
    });
    process.kill()?;
    let output = process.wait_with_output()?;
    ended.map(|()| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn connections_outlive_kill_9_and_a_restart_adopts_them() -> anyhow::Result<()> {
    let mut node = FileNode::demo(5, 5)?;
    let clients = &node.net.clients;
    let known = load::visit(clients, 0..KNOWN, vip(HTTP_PORT))?;
    let open: anyhow::Result<Vec<_>> = clients.enter(|| {
        (0..OPEN).map(|index| LineConnection::open(client(index), vip(LINE_PORT))).collect()
    })?;
    let mut open = open?;
    let before = node.sticky.service("demo")?;

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let mut said = 0;
            while !stop.load(Ordering::Relaxed) {
                open.iter_mut()
                    .try_for_each(|connection| connection.ask(&format!("line {said}")))?;
                said += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            anyhow::Ok(said)
        });
        let outcome = (|| {
            std::thread::sleep(Duration::from_millis(300));
            node.sticky.kill();
            let orphaned = load::visit(clients, 0..KNOWN + 100, vip(HTTP_PORT))?;
            let moved = known
                .iter()
                .filter(|(index, visit)| orphaned[*index].instance != visit.instance)
                .count();
            assert_eq!(moved, 0, "known clients moved while nobody was there");

            // Other sizes than those of the maps that are there are refused, and what is there goes on.
            for (flag, value, there) in [
                ("--max-clients", "5000", "1000000 clients"),
                ("--table-size", "65537", "16381 slots"),
            ] {
                let provider = format!("file:{}", node.file.path().display());
                let run = ["run", "--iface", "eth0", "--http", "none", "--provider", &provider];
                let mut process = node.sticky.command(&[&run[..], &[flag, value]].concat());
                let told = ends(process.stderr(Stdio::piped()).spawn()?)?;
                let named = told.contains(there) && told.contains("sticky detach");
                anyhow::ensure!(named, "{flag}: {told}");
            }
            node.sticky.run()?;
            let adopted = node.sticky.wait_up("demo", 5, Duration::from_secs(10))?;
            assert!(
                adopted["clients"].as_u64() >= before["clients"].as_u64(),
                "clients were forgotten: {adopted}"
            );
            let after = load::visit(clients, 0..KNOWN + 100, vip(HTTP_PORT))?;
            let moved = orphaned
                .iter()
                .filter(|(index, visit)| after[*index].instance != visit.instance)
                .count();
            assert_eq!(moved, 0, "clients moved at the restart");
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let said = talking.join().expect("no assertion in there")?;
        assert!(said > 20, "the connections were busy all the time: {said}");
        outcome
    })?;

    let status = node.sticky.status()?;
    let interfaces = status["datapath"]["interfaces"].as_array().cloned().unwrap_or_default();
    assert!(
        interfaces
            .iter()
            .any(|interface| interface["name"] == "eth0" && interface["pinned"] == true),
        "{status}"
    );
    Ok(())
}

#[test]
fn sigterm_leaves_the_data_path_and_detach_removes_it() -> anyhow::Result<()> {
    let mut node = FileNode::demo(2, 2)?;
    let clients = &node.net.clients;
    let before = load::visit(clients, 0..50, vip(HTTP_PORT))?;
    let refused =
        node.sticky.sticky(&["detach"]).expect_err("detach must refuse while sticky runs");
    assert!(refused.to_string().contains("exit status: 1"), "{refused}");

    node.sticky.terminate(Duration::from_secs(40))?;
    let after = load::visit(clients, 0..50, vip(HTTP_PORT))?;
    let moved =
        before.iter().filter(|(index, visit)| after[*index].instance != visit.instance).count();
    assert_eq!(moved, 0, "clients moved after SIGTERM");

    node.sticky.sticky(&["detach"])?;
    let left = std::fs::read_dir(node.sticky.pin_dir()).map(Iterator::count).unwrap_or(0);
    assert_eq!(left, 0, "pins are left in {}", node.sticky.pin_dir().display());
    load::visit(clients, 0..1, vip(HTTP_PORT)).expect_err("nothing forwards after detach");
    Ok(())
}
