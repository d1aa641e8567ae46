//! Connections to the line server of the demo application: they are held open, and asked now and then who answers.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Socket, Type};

const LIMIT: Duration = Duration::from_secs(5);

/// An open connection. Belongs to the namespace in which it was opened, and can be used anywhere.
#[derive(Debug)]
pub struct LineConnection {
    stream: BufReader<TcpStream>,
    /// The backend's name, from its greeting.
    pub instance: String,
    /// This end's address as the backend sees it.
    pub seen: SocketAddr,
    /// This end's address.
    pub local: SocketAddr,
}

impl LineConnection {
    /// Connects from the address `source` and reads the greeting.
    pub fn open(source: IpAddr, to: SocketAddr) -> anyhow::Result<Self> {
        Self::open_within(source, to, LIMIT)
    }

    /// The same with less patience for the connection.
    pub fn open_within(source: IpAddr, to: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .with_context(|| format!("cannot send from {source}"))?;
        socket
            .connect_timeout(&to.into(), limit)
            .with_context(|| format!("cannot connect to {to} from {source}"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let local = stream.local_addr()?;
        let mut stream = BufReader::new(stream);
        let greeting =
            read(&mut stream).with_context(|| format!("no greeting from {to} to {local}"))?;
        let (instance, seen) = greeting.split_once(' ').context("a greeting has two words")?;
        Ok(Self { stream, instance: instance.to_owned(), seen: seen.parse()?, local })
    }

    /// Sends a line and checks that the backend of the greeting echoes it.
    pub fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        let asked = format!("connection {} to {}", self.local, self.instance);
        self.stream
            .get_mut()
            .write_all(format!("{text}\n").as_bytes())
            .with_context(|| asked.clone())?;
        let answer = read(&mut self.stream).with_context(|| asked.clone())?;
        anyhow::ensure!(
            answer == format!("{} {text}", self.instance),
            "{asked}: it was answered '{answer}'"
        );
        Ok(())
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    let length = stream.read_line(&mut line)?;
    anyhow::ensure!(length > 0, "the connection was closed");
    Ok(line.trim_end().to_owned())
}
