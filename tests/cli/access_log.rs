//! The access log: one line a request, with who, what, where and why.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use sticky_tests::process::Process;

use crate::node::{LIMIT, Place, backend, get};

const COOKIE: &str = "\"com.docker.lb.sticky_session_cookie\" = \"session\"";

/// The access log's lines so far.
fn lines(process: &Process) -> Vec<Value> {
    let all = process.log().into_iter().filter_map(|line| serde_json::from_str(&line.text).ok());
    all.filter(|line: &Value| line["target"] == "access").collect()
}

/// The line that `wanted` accepts, once it is there.
fn line(process: &Process, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    sticky_tests::wait::until("a line of the access log", Duration::from_secs(5), || {
        let found = lines(process).into_iter().find(&wanted);
        Ok(found.ok_or_else(|| process.tail(5)))
    })
}

/// One request with more header lines; the whole answer.
pub fn ask(to: SocketAddr, path: &str, more: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: demo.local\r\nconnection: close\r\n{more}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

#[test]
fn every_request_is_a_line_that_explains_it() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (a, b) = (backend()?, backend()?);
    place.serve_by(COOKIE, &[a, b])?;
    let node = place.start(&[])?;
    let first = ask(node.http, "/first?secret=1", "")?;
    let new = line(&node.process, |line| line["path"] == "/first")?;
    assert_eq!(new["client"], "127.0.0.1", "{new}");
    assert_eq!((&new["method"], &new["host"]), (&"GET".into(), &"demo.local".into()));
    assert_eq!((&new["status"], &new["service"]), (&200.into(), &"demo".into()));
    assert_eq!((&new["affinity"], &new["complete"]), (&"new".into(), &true.into()));
    let addr = first.rsplit("\r\n\r\n").next().unwrap_or_default();
    assert_eq!((new["upstream"].as_str(), &new["bytes"]), (Some(addr), &addr.len().into()));
    let name = if addr == a.to_string() { "demo.1" } else { "demo.2" };
    assert_eq!(new["backend"], name);
    assert_eq!(new["request_id"], header(&first, "x-request-id"));
    let (all, there) = (new["ms"].as_f64(), new["upstream_ms"].as_f64());
    assert!(there.is_some_and(|ms| ms > 0.0) && all >= there && all < Some(5000.0), "{new}");
    assert!(!new.to_string().contains("secret"), "queries are not logged: {new}");

    let pin = first.lines().find_map(|line| line.strip_prefix("set-cookie: sticky_lb="));
    let pin = pin.and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned();
    ask(node.http, "/again", &format!("cookie: session=1; sticky_lb={pin}\r\n"))?;
    let again = line(&node.process, |line| line["path"] == "/again")?;
    assert_eq!((&again["affinity"], &again["backend"]), (&"pinned".into(), &name.into()));
    ask(node.http, "/forged", &format!("cookie: session=1; sticky_lb=A{pin}\r\n"))?;
    let forged = line(&node.process, |line| line["path"] == "/forged")?;
    assert_eq!(forged["affinity"], "invalid", "{forged}");

    ask(node.http, "/unknown", "host: elsewhere\r\n")?;
    let refused = line(&node.process, |line| line["path"] == "/unknown")?;
    assert_eq!(refused["status"], 400, "two hosts");
    assert!(refused["backend"].is_null() && refused["affinity"].is_null(), "{refused}");

    // A client that leaves before the answer.
    let mut gone = TcpStream::connect(node.http)?;
    gone.write_all(b"GET /slow?gone HTTP/1.1\r\nhost: demo.local\r\n\r\n")?;
    std::thread::sleep(Duration::from_millis(200));
    drop(gone);
    let left = line(&node.process, |line| line["status"] == 499)?;
    assert_eq!((&left["path"], &left["complete"]), (&"/slow".into(), &false.into()), "{left}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines(&node.process).len(), 5, "one line each");
    Ok(())
}

/// The arguments of a run that logs text.
fn as_text(place: &Place) -> anyhow::Result<Command> {
    let provider = format!("file:{}", place.dir.join("services.toml").display());
    place.command(&[
        "run",
        "--iface",
        "none",
        "--provider",
        &provider,
        "--http",
        "127.0.0.1:0",
        "--admin",
        "none",
    ])
}

/// Where it listens, by its line about that.
fn http(line: &str) -> anyhow::Result<SocketAddr> {
    let addr = line.split("http=").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(addr.unwrap_or_default().trim_matches('"').parse()?)
}

#[test]
fn text_has_the_same_fields() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve_by(COOKIE, &[backend()?])?;
    let mut process = Process::spawn("sticky", &as_text(&place)?)?;
    let http = http(&process.wait_line(LIMIT, 0, |line| line.contains("listening"))?.text)?;
    process.wait_line(LIMIT, 0, |line| line.contains("ready"))?;
    let answer = ask(http, "/text", "")?;
    let line = process.wait_line(LIMIT, 0, |line| line.contains("/text"))?.text;
    let id = format!("request_id=\"{}\"", header(&answer, "x-request-id"));
    for field in [
        "client=127.0.0.1",
        "method=\"GET\"",
        "host=\"demo.local\"",
        "path=\"/text\"",
        "status=200",
        "bytes=",
        " ms=",
        "upstream_ms=",
        "service=\"demo\"",
        "backend=\"demo.1\"",
        "upstream=127.0.0.1:",
        "affinity=\"new\"",
        &id,
        "complete=true",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    Ok(())
}

/// Killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reader_that_stops_reading_stops_no_request() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut command = as_text(&place)?;
    let mut sticky = Killed(command.stderr(Stdio::piped()).spawn()?);
    let mut log = BufReader::new(sticky.0.stderr.take().context("it was piped")?);
    let mut line = String::new();
    let mut to = None;
    while !line.contains("ready") {
        line.clear();
        anyhow::ensure!(log.read_line(&mut line)? > 0, "it ended");
        if line.contains("listening") {
            to = Some(http(&line)?);
        }
    }
    // More than wait to be written, and more than a pipe holds; nobody reads.
    let mut stream = TcpStream::connect(to.context("it listens")?)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = b"GET / HTTP/1.1\r\nhost: elsewhere\r\n\r\n";
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut said = String::new();
    for _ in 0..120 {
        stream.write_all(&request.repeat(100))?;
        for _ in 0..100 {
            said.clear();
            while !said.starts_with("404: ") {
                said.clear();
                anyhow::ensure!(answers.read_line(&mut said)? > 0, "the connection ended");
            }
        }
    }
    // Each line is there, or said to be lost.
    let (mut written, mut lost) = (0, 0);
    while written + lost < 12_000 {
        line.clear();
        anyhow::ensure!(log.read_line(&mut line)? > 0, "{written} lines written, {lost} lost");
        written += usize::from(line.contains("status=404"));
        if line.contains("access log lines lost") {
            lost += line.split("lines=").nth(1).unwrap_or_default().trim().parse::<usize>()?;
        }
    }
    assert_eq!(written + lost, 12_000);
    assert!(lost > 0, "nothing was lost, so nothing was tried");
    Ok(())
}

#[test]
fn the_end_loses_no_line() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let mut node = place.start(&[])?;
    for _ in 0..20 {
        get(node.http, "/")?;
    }
    node.process.signal(Signal::SIGTERM)?;
    assert!(node.process.wait(LIMIT)?.success());
    // What it wrote at its end is read by another thread.
    line(&node.process, |_| lines(&node.process).len() == 20)?;
    Ok(())
}
