//! Connections to backends that wait for the next request.

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sticky::proxy::Settings;
use sticky_tests::wait::until_true;

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, keys, service, settings};

/// More than one worker keeps for long.
const CLIENTS: u64 = 600;
const ROUNDS: u64 = 3;
/// Requests that may open a connection each at the same time: the backend has no longer queue.
const AT_ONCE: usize = 50;

#[test]
fn who_is_asked_again_by_as_many_opens_no_more_connections() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let backend = Backend::start("a");
    let bench = Bench::start(Settings { workers: NonZeroUsize::MIN, ..settings() }, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Connection::open(bench.addr)).collect();
    let mut asked = 0;
    for _ in 0..ROUNDS {
        for some in clients.chunks(AT_ONCE) {
            for client in some {
                client.write(b"GET /slow?ms=1500 HTTP/1.1\r\nHost: demo.local\r\n\r\n");
            }
            asked += some.len() as u64;
            let came = || Ok(backend.seen("GET /slow") == asked);
            until_true("the requests", Duration::from_secs(10), came).unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.response(false).unwrap().status, 200);
        }
    }
    assert_eq!(asked, CLIENTS * ROUNDS);
    let opened = backend.state.connections.load(Ordering::SeqCst);
    assert!(opened <= CLIENTS, "{opened} connections for {CLIENTS} clients");
}
