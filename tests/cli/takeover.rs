//! `--takeover`: one sticky succeeds another without a gap.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::node::{LIMIT, Place, backend, get, stdout};

#[test]
fn the_successor_serves_before_the_first_one_ends() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut first = place.start(&[])?;
    let (http, admin) = (first.http.to_string(), first.admin.to_string());

    let sockets = listening(first.http)?;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU32::new(0));
    let clients = {
        let (stop, served, http) = (Arc::clone(&stop), Arc::clone(&served), first.http);
        std::thread::spawn(move || -> anyhow::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let answer = get(http, "/")?;
                anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let mut second = place.run(&http, &admin, &["--takeover"])?;
    second.wait_line(LIMIT, 0, |line| line.contains("took over"))?;
    assert_eq!(first.process.wait(LIMIT)?.code(), Some(0));
    // One that is closed would reset whose handshake is on its way, which is rare enough here to be overlooked.
    assert!(!sockets.is_empty() && listening(first.http)? == sockets, "the same sockets listen");
    let before = served.load(Ordering::Relaxed);
    sticky_tests::wait::until_true("more requests", LIMIT, || {
        Ok(served.load(Ordering::Relaxed) > before + 10)
    })?;
    stop.store(true, Ordering::Relaxed);
    clients.join().expect("the clients do not panic")?;
    let status = stdout(&place.sticky(&["status", "--json"])?);
    assert!(status.contains("\"demo\""), "the successor has the socket");
    Ok(())
}

/// The sockets that listen on an address, by inode.
fn listening(addr: SocketAddr) -> anyhow::Result<BTreeSet<u64>> {
    let all = procfs::net::tcp()?.into_iter();
    let ours = all.filter(|s| s.state == procfs::net::TcpState::Listen && s.local_address == addr);
    Ok(ours.map(|socket| socket.inode).collect())
}

#[test]
fn a_successor_that_cannot_serve_leaves_the_work_to_the_first() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let first = place.start(&[])?;
    // Its key file is missing, which it finds out after it has the socket.
    let keys = place.dir.join("no-keys").display().to_string();
    let arguments = ["--takeover", "--cookie-key-file", &keys];
    let mut second = place.run(&first.http.to_string(), &first.admin.to_string(), &arguments)?;
    assert_eq!(second.wait(LIMIT)?.code(), Some(1));
    assert!(get(first.http, "/")?.starts_with("HTTP/1.1 200"));
    sticky_tests::wait::until_true("the first to have its socket again", LIMIT, || {
        Ok(place.sticky(&["status"])?.status.success())
    })
}
