//! Where a Docker engine is: `unix://`, `tcp://`, `http://` and `https://` URLs, as `docker --host` takes them, with TLS as
//! `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::client::Error;
use super::tls::Tls;

const LOCAL: &str = "unix:///var/run/docker.sock";
/// Ports of the API without and with TLS (IANA).
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// The address of one engine.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    url: String,
    at: At,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// The engine at `url`; `None` is what `DOCKER_HOST` says, or else the local socket.
    ///
    /// # Errors
    /// It is no address that sticky can use.
    pub(crate) fn find(url: Option<&str>) -> Result<Self, Error> {
        let url = url.map(ToOwned::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
        let url = url.filter(|url| !url.is_empty()).unwrap_or_else(|| LOCAL.to_owned());
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || PathBuf::from(set("HOME").unwrap_or_default()).join(".docker");
        let certificates = set("DOCKER_CERT_PATH").map_or_else(home, PathBuf::from);
        Self::parse(url, set("DOCKER_TLS_VERIFY").is_some(), &certificates)
    }

    /// `verify`: `tcp://` is with TLS too, by the `ca.pem`, `cert.pem` and `key.pem` in `certificates`.
    pub(super) fn parse(url: String, verify: bool, certificates: &Path) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Address(format!("Docker at {url}: {what}"));
        let encrypted = url.starts_with("https://") || (verify && url.starts_with("tcp://"));
        let at = match url.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => At::Unix(path.into()),
            None if url.starts_with('/') => At::Unix(url.clone().into()),
            Some(("tcp" | "http" | "https", rest)) => {
                let authority: http::uri::Authority = rest
                    .trim_end_matches('/')
                    .parse()
                    .map_err(|_| wrong("is no address; write tcp://HOST:PORT"))?;
                let usual = if encrypted { TLS_PORT } else { PLAIN_PORT };
                let port = authority.port_u16().unwrap_or(usual);
                At::Tcp { host: authority.host().trim_matches(['[', ']']).to_owned(), port }
            }
            _ => return Err(wrong("is no address; write unix:///PATH or tcp://HOST:PORT")),
        };
        let tls = match &at {
            At::Tcp { host, .. } if encrypted => {
                Some(Tls::new(host, certificates).map_err(|error| wrong(&format!("{error:#}")))?)
            }
            _ => None,
        };
        Ok(Self { url, at, tls })
    }

    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.at {
            At::Unix(path) => Box::new(UnixStream::connect(path).await?),
            At::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match &self.tls {
                    Some(tls) => tls.connect(stream).await?,
                    None => Box::new(stream),
                }
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_docker_does() {
        let nowhere = Path::new("/nowhere");
        let at =
            |url: &str| Address::parse(url.to_owned(), false, nowhere).map(|address| address.at);
        let tcp = |host: &str, port| At::Tcp { host: host.to_owned(), port };
        assert_eq!(at("unix:///run/d.sock").unwrap(), At::Unix("/run/d.sock".into()));
        assert_eq!(at("/run/d.sock").unwrap(), At::Unix("/run/d.sock".into()));
        assert_eq!(at("tcp://manager").unwrap(), tcp("manager", 2375));
        assert_eq!(at("http://192.0.2.1:80/").unwrap(), tcp("192.0.2.1", 80));
        assert_eq!(at("tcp://[2001:db8::1]:2375").unwrap(), tcp("2001:db8::1", 2375));
        for wrong in ["ssh://manager", "unix://run/d.sock", "manager:2375", "tcp://", "tcp://a b"] {
            let error = at(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("write "), "{error}");
        }
        for (url, verify) in [("https://manager", false), ("tcp://manager", true)] {
            let error = Address::parse(url.to_owned(), verify, nowhere).unwrap_err().to_string();
            assert!(error.contains("/nowhere/ca.pem"), "{error}");
        }
    }
}
