//! Which calls share a connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::docker::address::Address;
use crate::docker::client::Docker;

/// What an engine does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keeps,
    /// As it said.
    Closes,
    Vanishes,
    /// A little later.
    Leaves,
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
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let said = if after == After::Closes { "Connection: close\r\n" } else { "" };
                let body = r#"{"ApiVersion":"1.41"}"#;
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{said}\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                if after == After::Leaves {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if after != After::Keeps {
                    break;
                }
            }
        }
    });
    connections
}

#[tokio::test]
async fn calls_share_a_connection_as_long_as_there_is_one() {
    for (after, expected) in [(After::Keeps, 2), (After::Closes, 4), (After::Vanishes, 4)] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let connections = engine(&socket, after);
        let url = format!("unix://{}", socket.display());
        let address = Address::parse(url, false, directory.path()).unwrap();
        let docker = Docker::reach(address).await.unwrap();
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
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _connections = engine(&socket, After::Leaves);
    let url = format!("unix://{}", socket.display());
    let address = Address::parse(url, false, directory.path()).unwrap();
    let docker = Docker::reach(address).await.unwrap();
    for _ in 0..200 {
        // It has ended before it is looked at, and which of the two ends is looked at first is chance.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = Instant::now();
        docker.get::<Value>("/info", &[]).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
}
