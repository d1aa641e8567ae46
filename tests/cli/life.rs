//! Start and end: one owner of a socket, signals, drains, the last snapshot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::{LimitValue, Process};

use crate::node::{LIMIT, Place, backend, get, stderr, stdout};

#[test]
fn a_second_run_names_the_first() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let first = place.start(&[])?;
    let mode = fs::metadata(place.socket())?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let pid = format!("pid {}", first.process.id());
    for args in [&["run", "--iface", "none"][..], &["detach"]] {
        let output = place.sticky(args)?;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&pid), "{args:?}: {}", stderr(&output));
    }
    assert!(get(first.http, "/")?.starts_with("HTTP/1.1 200"), "the first goes on");
    Ok(())
}

/// A table that grows while there are threads makes whoever opens a file wait.
#[test]
fn there_is_room_for_many_connections_from_the_start() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let sticky = place.start(&[])?;
    let process = Process::new(i32::try_from(sticky.process.id())?)?;
    let most = match process.limits()?.max_open_files.hard_limit {
        LimitValue::Value(most) => most,
        LimitValue::Unlimited => u64::MAX,
    };
    let room = u64::from(process.status()?.fdsize);
    assert!(room >= most.min(65_536), "room for {room} of {most}");
    assert!(process.fd_count()? < 1000);
    Ok(())
}

#[test]
fn a_port_of_somebody_else_is_not_shared() -> anyhow::Result<()> {
    let place = Place::new()?;
    let taken = backend()?.to_string();
    place.serve(&[backend()?])?;
    for (http, admin, flag) in [(&*taken, "none", "--http"), ("none", &*taken, "--admin")] {
        let mut process = place.run(http, admin, &[])?;
        assert_eq!(process.wait(LIMIT)?.code(), Some(1));
        let line = process.wait_line(LIMIT, 0, |line| line.contains("in use"));
        assert!(line.is_ok_and(|line| line.text.contains(flag)), "{}", process.tail(5));
    }
    Ok(())
}

#[test]
fn what_a_killed_one_left_is_no_hindrance() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    place.start(&[])?.process.kill();
    assert!(place.socket().exists(), "killed, it could not clean up");
    let again = place.start(&[])?;
    assert!(get(again.http, "/")?.starts_with("HTTP/1.1 200"));
    drop(again);

    fs::remove_file(place.socket())?;
    drop(UnixListener::bind(place.socket())?);
    place.start(&[])?;
    Ok(())
}

#[test]
fn sigterm_finishes_what_was_begun_and_takes_nothing_new() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut node = place.start(&[])?;
    let http = node.http;
    let slow = std::thread::spawn(move || get(http, "/slow"));
    std::thread::sleep(Duration::from_millis(300));
    node.process.signal(Signal::SIGTERM)?;
    node.process.wait_line(LIMIT, 0, |line| line.contains("draining"))?;
    std::thread::sleep(Duration::from_millis(100));
    assert!(get(http, "/").is_err(), "a new connection was served");
    assert!(slow.join().expect("the client does not panic")?.starts_with("HTTP/1.1 200"));
    assert_eq!(node.process.wait(LIMIT)?.code(), Some(0));
    assert!(!place.socket().exists());
    Ok(())
}

#[test]
fn the_drain_has_an_end() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut node = place.start(&["--drain-timeout", "100ms"])?;
    let http = node.http;
    let slow = std::thread::spawn(move || get(http, "/slow"));
    std::thread::sleep(Duration::from_millis(300));
    node.process.signal(Signal::SIGINT)?;
    let status = node.process.wait(Duration::from_millis(900))?;
    assert_eq!(status.code(), Some(0));
    // Cut or refused: only its end counts.
    let _ = slow.join().expect("the client does not panic");
    Ok(())
}

#[test]
fn without_the_provider_the_last_snapshot_is_served() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut first = place.start(&[])?;
    first.process.signal(Signal::SIGTERM)?;
    first.process.wait(LIMIT)?;
    fs::remove_file(place.dir.join("services.toml"))?;

    let again = place.start(&[])?;
    assert!(get(again.http, "/")?.starts_with("HTTP/1.1 200"));
    let status = stdout(&place.sticky(&["status", "--json"])?);
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(status["provider"]["connected"], false);
    assert!(status["provider"]["error"].as_str().is_some_and(|e| e.contains("services.toml")));
    assert_eq!(status["services"][0]["backends"][0]["state"], "up");
    Ok(())
}

#[test]
fn nobody_there_is_said_with_what_to_do() -> anyhow::Result<()> {
    let place = Place::new()?;
    for args in [&["status"][..], &["where", "198.51.100.7"]] {
        let output = place.sticky(args)?;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("sticky run"), "{}", stderr(&output));
    }
    Ok(())
}
