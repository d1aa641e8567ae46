//! What a client hears when its packet cannot go on: silence at first, then a refusal; time exceeded, as from a router.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;

use crate::dual::{BOTH, Dual, Family};

/// A socket that hears ICMP errors, with one hop to live.
fn short_lived(source: IpAddr, kind: Type, protocol: Protocol) -> anyhow::Result<Socket> {
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if source.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        socket.set_ttl_v4(1)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        socket.set_unicast_hops_v6(1)?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    Ok(socket)
}

#[test]
fn a_packet_that_lived_too_long_is_answered_as_by_a_router() -> anyhow::Result<()> {
    for mode in ["native", "generic"] {
        let node = Dual::start(1, mode, &[])?;
        for family in BOTH {
            let source = family.client(1);
            let heard = node.client(|| {
                let udp = short_lived(source, Type::DGRAM, Protocol::UDP)?;
                udp.connect(&family.frontend(DATAGRAM_PORT).into())?;
                udp.send(b"hello")?;
                let datagram = UdpSocket::from(udp).recv(&mut [0; 100]).map_err(|e| e.kind());
                let tcp = short_lived(source, Type::STREAM, Protocol::TCP)?;
                let to = family.frontend(LINE_PORT).into();
                let segment = tcp.connect_timeout(&to, Duration::from_secs(2));
                Ok((datagram, segment.map_err(|e| e.kind())))
            })?;
            let unreachable = ErrorKind::HostUnreachable;
            assert_eq!(heard, (Err(unreachable), Err(unreachable)), "{mode}, {family:?}");
        }
    }
    Ok(())
}

/// When a frontend with no backend first refuses, counted from `since`.
fn refused(work: impl Fn() -> Option<ErrorKind>, since: Instant) -> anyhow::Result<Duration> {
    loop {
        let tried = since.elapsed();
        match work() {
            Some(ErrorKind::ConnectionRefused) => return Ok(tried),
            // Silence.
            Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
            other => anyhow::bail!("after {tried:?}: {other:?}"),
        }
        anyhow::ensure!(tried < Duration::from_secs(12), "nothing was refused");
    }
}

fn connect(source: IpAddr, to: SocketAddr) -> Option<ErrorKind> {
    let work = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&to.into(), Duration::from_millis(150))
    };
    work().err().map(|error: std::io::Error| error.kind())
}

fn ask(source: IpAddr, to: SocketAddr) -> Option<ErrorKind> {
    let work = || {
        let socket = UdpSocket::bind((source, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(150)))?;
        socket.send(b"anybody?")?;
        socket.recv(&mut [0; 100])
    };
    work().err().map(|error| error.kind())
}

#[test]
fn with_no_backend_there_is_silence_and_then_a_refusal() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let modes = ["native", "generic"].map(|mode| scope.spawn(move || silence(mode)));
        modes.into_iter().try_for_each(|mode| mode.join().expect("no assertion in there"))
    })
}

fn silence(mode: &str) -> anyhow::Result<()> {
    let node = Dual::start(1, mode, &[])?;
    node.serve(0..0)?;
    let since = Instant::now();
    let wait = |family: Family, udp: bool| {
        let (source, to) = if udp {
            (family.client(2), family.frontend(DATAGRAM_PORT))
        } else {
            (family.client(2), family.frontend(LINE_PORT))
        };
        node.client(|| refused(|| if udp { ask(source, to) } else { connect(source, to) }, since))
    };
    let cases = [(Family::V4, false), (Family::V4, true), (Family::V6, false), (Family::V6, true)];
    std::thread::scope(|scope| {
        let all = cases.map(|(family, udp)| (family, udp, scope.spawn(move || wait(family, udp))));
        for (family, udp, thread) in all {
            let after = thread.join().expect("no assertion in there")?;
            println!(
                "{mode}, {family:?}, udp {udp}: refused {after:?} after the last backend left"
            );
            anyhow::ensure!(after > Duration::from_secs(2), "{family:?} udp {udp}: {after:?}");
            anyhow::ensure!(after < Duration::from_secs(8), "{family:?} udp {udp}: {after:?}");
        }
        anyhow::Ok(())
    })?;
    // It comes back.
    node.serve(0..1)?;
    for family in BOTH {
        node.sticky.wait_up(family.service(), 1, Duration::from_secs(5))?;
        node.client(|| {
            LineConnection::open(family.client(2), family.frontend(LINE_PORT))?.ask("again")?;
            Datagrams::open(family.client(2), family.frontend(DATAGRAM_PORT))?.ask(b"again")
        })?;
    }
    Ok(())
}
