//! Large transfers of bytes that both ends know, so that each one is compared.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// The port on which the servers listen.
pub const BULK_PORT: u16 = 7000;
/// A prime, so that a piece which is lost, doubled or out of place shows.
const PERIOD: usize = 1_048_573;
const PIECE: usize = 256 * 1024;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    Up,
    Down,
}

/// Serves transfers on an address of a namespace, to the end of the test program.
pub fn serve(netns: &Netns, address: IpAddr) -> anyhow::Result<()> {
    let listener = netns.enter(|| TcpListener::bind((address, BULK_PORT)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // Whoever asked sees that it failed; a health check asks for nothing.
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [way, length @ ..] = head;
    let length = u64::from_be_bytes(length);
    if way == Way::Down as u8 {
        send(&mut stream, length)
    } else {
        let compared = receive(&mut stream, length)?;
        Ok(stream.write_all(&compared.to_be_bytes())?)
    }
}

/// Transfers `length` bytes from `source` to `to` or back; each is compared with what was sent.
pub fn transfer(source: IpAddr, to: SocketAddr, way: Way, length: u64) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(20);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), LIMIT)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&[&[way as u8][..], &length.to_be_bytes()].concat())?;
    let done = if way == Way::Down {
        receive(&mut stream, length)
    } else {
        send(&mut stream, length)?;
        let mut compared = [0; 8];
        stream.read_exact(&mut compared).context("the other end found an error")?;
        Ok(u64::from_be_bytes(compared))
    }?;
    anyhow::ensure!(done == length, "{done} of {length} bytes");
    Ok(())
}

fn send(stream: &mut TcpStream, length: u64) -> anyhow::Result<()> {
    let pattern = pattern();
    let mut sent = 0;
    while sent < length {
        let piece = piece(&pattern, sent, (length - sent).min(PIECE as u64));
        stream.write_all(piece).with_context(|| format!("after {sent} bytes"))?;
        sent += piece.len() as u64;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, length: u64) -> anyhow::Result<u64> {
    let pattern = pattern();
    let mut buffer = vec![0; PIECE];
    let mut got = 0;
    while got < length {
        let count = stream.read(&mut buffer).with_context(|| format!("after {got} bytes"))?;
        anyhow::ensure!(count > 0, "it ended after {got} bytes");
        let same = &buffer[..count] == piece(&pattern, got, count as u64);
        anyhow::ensure!(same, "other bytes came after {got}");
        got += count as u64;
    }
    Ok(got)
}

/// What is sent, over and over: numbers of a xorshift generator (Marsaglia 2003).
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let once: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[7]
        })
        .collect();
    [&once[..], &once[..PIECE]].concat()
}

fn piece(pattern: &[u8], at: u64, length: u64) -> &[u8] {
    let start = usize::try_from(at % PERIOD as u64).unwrap_or_default();
    &pattern[start..start + usize::try_from(length).unwrap_or(PIECE)]
}
