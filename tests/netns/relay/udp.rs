//! UDP clients that XDP cannot serve.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, OTHER, client};
use sticky_tests::wait;

use super::{CLIENT_V6, NODE_V6, add_ipv6};
use crate::fixture::{FileNode, service};

const PORT: u16 = 5353;

/// Answers each datagram with its own address, that of the sender, and the datagram.
fn echo(netns: &Netns, at: IpAddr) -> anyhow::Result<()> {
    let socket = netns.enter(|| UdpSocket::bind((at, PORT)))??;
    // Ends with the test's process; it waits for nothing else.
    thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{at} {} ", from.ip()).into_bytes();
            answer.extend(&buffer[..length]);
            // A client that is gone needs no answer.
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(())
}

/// A client that takes answers from where it sends to only.
struct Client(UdpSocket);

impl Client {
    fn open(from: &Netns, source: IpAddr, to: IpAddr) -> anyhow::Result<Self> {
        from.enter(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(SocketAddr::new(to, PORT))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(Self(socket))
        })?
    }

    /// Who answers, and whom it saw.
    fn ask(&self, text: &[u8]) -> anyhow::Result<(String, String)> {
        self.0.send(text)?;
        let mut buffer = vec![0; 65_535];
        let length = self.0.recv(&mut buffer).context("no answer")?;
        let mut words = buffer[..length].splitn(3, |byte| *byte == b' ');
        let mut word = || words.next().map(<[u8]>::to_vec).context("three words");
        let (who, seen, rest) = (word()?, word()?, word()?);
        anyhow::ensure!(rest == text, "another answer");
        Ok((String::from_utf8(who)?, String::from_utf8(seen)?))
    }
}

#[test]
fn datagrams_find_their_backend_and_answers_their_client() -> anyhow::Result<()> {
    let mut node = FileNode::demo(4, 4)?;
    for address in &node.file.addresses {
        echo(&node.backends, *address)?;
    }
    let labels = [("com.docker.lb.ip_hash", "true")];
    let of = |addresses: &[IpAddr]| service("dns", &["5353:5353/udp"], addresses, &labels);
    node.file.write(&of(&node.file.addresses))?;
    node.sticky.wait_up("dns", 4, Duration::from_secs(10))?;
    add_ipv6(&node, "dns")?;
    let net = &node.net;
    let clients: [(&Netns, IpAddr, IpAddr); 3] = [
        (&net.node, NODE.into(), NODE.into()),
        (&net.other, OTHER.into(), NODE.into()),
        (&net.clients, CLIENT_V6.into(), NODE_V6.into()),
    ];
    // One that is known by XDP, and then turns up on the host itself.
    let known = client(7);
    let by_xdp = Client::open(&net.clients, known, NODE.into())?.ask(b"by XDP")?;
    net.node.ip(&format!("addr add {known}/32 dev lo"))?;
    let by_relay = Client::open(&net.node, known, NODE.into())?.ask(b"by the relay")?;
    assert_eq!(by_relay, by_xdp, "another backend, or one that saw somebody else");
    net.node.ip(&format!("addr del {known}/32 dev lo"))?;

    let mut open = Vec::new();
    for (from, source, to) in clients {
        let told = node.sticky.where_is(&source.to_string(), "dns")?;
        assert_eq!(told["path"], "relay", "{told}");
        let client = Client::open(from, source, to)?;
        let (who, seen) = client.ask(b"first").with_context(|| format!("{source}"))?;
        let backend = told["backend"]["addr"].as_str().context("a backend")?;
        assert_eq!(backend.split(':').next(), Some(who.as_str()), "{source}");
        if source == IpAddr::from(NODE) {
            assert_eq!(seen, NODE.to_string(), "the backend sees who it is");
        }
        for length in [0, 1400, 9000, 60_000] {
            assert_eq!(client.ask(&vec![b'x'; length])?.0, who, "{source}, {length} bytes");
        }
        open.push((client, who));
    }

    // One datagram after its backend is gone, each client has another.
    let gone: IpAddr = open[0].1.parse()?;
    let left: Vec<_> = node.file.addresses.iter().copied().filter(|a| *a != gone).collect();
    node.file.write(&of(&left))?;
    node.sticky.wait_up("dns", 3, Duration::from_secs(10))?;
    for (client, before) in &open {
        let (who, _) = client.ask(b"next")?;
        let moved = who != *before;
        assert_eq!(moved, *before == gone.to_string(), "{before} -> {who}");
    }

    // The kernel remembers where it sent these clients, and nobody is there any more.
    let stayed: Vec<_> = open
        .into_iter()
        .map(|(client, _)| Ok((client.ask(b"last")?.0, client)))
        .collect::<anyhow::Result<_>>()?;
    node.sticky.kill();
    for (_, client) in &stayed {
        client.ask(b"nobody").expect_err("nobody is there");
    }
    node.sticky.run()?;
    for (before, client) in &stayed {
        let answered = wait::until("an answer", Duration::from_secs(5), || {
            Ok(client.ask(b"again").map_err(|error| format!("{error:#}")))
        })?;
        assert_eq!(answered.0, *before, "the record outlived the process");
    }
    Ok(())
}
