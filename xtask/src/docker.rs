//! One question to the user's Docker: is it a Swarm manager?

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{env, io};

const LOCAL: &str = "unix:///var/run/docker.sock";
/// A daemon that does not answer by then is not at hand.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a Swarm manager answers: `DOCKER_HOST` (without TLS), else the local socket.
pub(crate) fn swarm_manager() -> Option<String> {
    let host = env::var("DOCKER_HOST").unwrap_or_else(|_| LOCAL.to_owned());
    let info = info(&host).ok()?;
    is_manager(&info).then_some(host)
}

/// The answer to `GET /info`; HTTP/1.0, so that it ends when the connection does.
fn info(host: &str) -> io::Result<String> {
    const REQUEST: &[u8] = b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n";
    let mut answer = Vec::new();
    if let Some(path) = host.strip_prefix("unix://") {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        stream.read_to_end(&mut answer)?;
    } else if let Some(addr) = host.strip_prefix("tcp://") {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        stream.read_to_end(&mut answer)?;
    } else {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Docker writes compact JSON; this key is true on managers alone.
fn is_manager(info: &str) -> bool {
    info.contains(r#""ControlAvailable":true"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_manager_counts() {
        assert!(is_manager(r#"{"Swarm":{"NodeID":"x","ControlAvailable":true,"Error":""}}"#));
        assert!(!is_manager(r#"{"Swarm":{"NodeID":"x","ControlAvailable":false}}"#));
        assert!(!is_manager("HTTP/1.0 400 Bad Request"));
    }

    #[test]
    fn a_dead_socket_is_no_manager() {
        assert!(info("unix:///nonexistent/docker.sock").is_err());
        assert!(info("ssh://host").is_err());
    }
}
