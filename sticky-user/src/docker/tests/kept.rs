//! Which calls share a connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::docker::address::Address;
use crate::docker::client::{Docker, Reader};

/// What an engine does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keeps,
    /// As it said.
    Closes,
    Vanishes,
    /// A little later.
    Leaves,
    /// In the middle of the next.
    BreaksOff,
}

/// An engine, and how many connections it has had.
fn engine(socket: &Path, after: After) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let mut answers = 0;
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let said = if after == After::Closes { "Connection: close\r\n" } else { "" };
                let body = r#"{"ApiVersion":"1.41"}"#;
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{said}\r\n{body}");
                answers += 1;
                if after == After::BreaksOff && answers > 1 {
                    let part = answer.len() - length / 2;
                    stream.write_all(&answer.as_bytes()[..part]).await.unwrap();
                    break;
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                if after == After::Leaves {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if !matches!(after, After::Keeps | After::BreaksOff) {
                    break;
                }
            }
        }
    });
    connections
}

/// A client of such an engine; the directory has the socket, which each new connection needs.
async fn reached(after: After) -> (Docker, Arc<AtomicUsize>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let connections = engine(&socket, after);
    let url = format!("unix://{}", socket.display());
    let address = Address::parse(url, false, directory.path()).unwrap();
    (Docker::reach(address).await.unwrap(), connections, directory)
}

#[tokio::test]
async fn calls_share_a_connection_as_long_as_there_is_one() {
    for (after, expected) in [(After::Keeps, 2), (After::Closes, 4), (After::Vanishes, 4)] {
        let (docker, connections, _directory) = reached(after).await;
        for _ in 0..2 {
            docker.get::<Value>("/info", &[]).await.unwrap();
        }
        // What may be done only once is not asked where nobody may listen any more.
        docker.send(Method::POST, "/services/create", &[], Bytes::new()).await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), expected, "{after:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_ended_meanwhile_delays_nothing() {
    let (docker, _, _directory) = reached(After::Leaves).await;
    for _ in 0..200 {
        // It has ended before it is looked at, and which of the two ends is looked at first is chance.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = Instant::now();
        docker.get::<Value>("/info", &[]).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
}

/// What was read, by beginnings.
#[derive(Default)]
struct Log(Vec<String>);

impl Reader for Log {
    fn begin(&mut self, length: Option<u64>) {
        assert_eq!(length, Some(21));
        self.0.push(String::new());
    }

    fn piece(&mut self, piece: &[u8]) {
        self.0.last_mut().unwrap().push_str(std::str::from_utf8(piece).unwrap());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_on_a_kept_connection_is_read_anew() {
    let (docker, connections, _directory) = reached(After::BreaksOff).await;
    let mut log = Log::default();
    docker.read("/info", &[], &mut log).await.unwrap();
    assert_eq!(log.0, [r#"{"ApiVersio"#, r#"{"ApiVersion":"1.41"}"#]);
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    let (_, answer) = docker.ask("/info", &[]).await.unwrap();
    assert_eq!(answer, r#"{"ApiVersion":"1.41"}"#);
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}
