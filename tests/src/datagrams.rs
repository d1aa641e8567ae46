//! Datagrams: a server that says who it is, and clients that ask it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};

use crate::demo::backend_name;
use crate::netns::Netns;

/// The port on which the servers answer.
pub const DATAGRAM_PORT: u16 = 5353;
const LIMIT: Duration = Duration::from_secs(3);
/// The largest datagram there is.
const LARGEST: usize = 65_535;

/// Answers each datagram with `NAME CLIENT ` and what came. Ends with the value.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one on an address of a namespace.
    pub fn start(netns: &Netns, address: IpAddr) -> anyhow::Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind((address, DATAGRAM_PORT)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, answered) = (stop.clone(), answered.clone());
            move || answer(&socket, &backend_name(&address), &stop, &answered)
        });
        Ok(Self { stop, answered, thread: Some(thread) })
    }

    /// How many datagrams it has answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say at its end.
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, name: &str, stop: &AtomicBool, answered: &AtomicU64) {
    let mut buffer = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        // Nothing came for a while, or an answer could not be delivered: either is the client's affair.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let mut text = format!("{name} {client} ").into_bytes();
        text.extend(&buffer[..length]);
        let _ = socket.send_to(&text, client);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub instance: String,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
}

impl Datagrams {
    /// A socket on `source` that talks to `to` alone.
    pub fn open(source: IpAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket =
            UdpSocket::bind((source, 0)).with_context(|| format!("cannot send from {source}"))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket })
    }

    /// This end's address.
    pub fn local(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends a datagram and reads one.
    pub fn ask(&self, payload: &[u8]) -> anyhow::Result<Answer> {
        self.send(payload)?;
        self.read(payload)
    }

    /// Sends a datagram.
    pub fn send(&self, payload: &[u8]) -> std::io::Result<()> {
        self.socket.send(payload).map(drop)
    }

    /// How long [`Datagrams::read`] waits.
    pub fn patience(&self, limit: Duration) -> std::io::Result<()> {
        self.socket.set_read_timeout(Some(limit))
    }

    /// Reads an answer that ends with `payload`.
    pub fn read(&self, payload: &[u8]) -> anyhow::Result<Answer> {
        let mut buffer = vec![0; LARGEST];
        let length = self.socket.recv(&mut buffer).context("no answer")?;
        let head = buffer[..length].strip_suffix(payload).context("not what was sent")?;
        let head = std::str::from_utf8(head)?;
        let (instance, seen) = head.trim_end().split_once(' ').context("an answer has a head")?;
        Ok(Answer { instance: instance.to_owned(), seen: seen.parse()? })
    }
}
