//! One backend asked over and over.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::connect::connect;
use super::judge::{Judge, Verdict};
use super::plan::{Http, Plan};
use super::{Key, Report};
use crate::model::{ProxyProtocol, State};

/// A starting backend is asked this often, for as long as a start takes.
const EAGER: Duration = Duration::from_millis(100);
const EAGER_FOR: Duration = Duration::from_secs(60);

/// A closed UDP port of this host's containers says so at once, and to the same host no more than once a second
/// (net.ipv4.icmp_ratelimit): who asks more often takes the silence in between for an answer.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
const REFUSED_EVERY: Duration = Duration::from_millis(1100);

/// A backend's second address that refuses so often, or does not answer for so long after the first did, is not used: many
/// applications listen on IPv4 alone. The address of a bridge is no source for two seconds after its first container starts.
const V6_REFUSALS: u32 = 3;
const V6_PATIENCE: Duration = Duration::from_secs(4);

/// Asks one backend.
pub(super) struct Checker {
    pub(super) key: Key,
    pub(super) number: u64,
    pub(super) plan: Plan,
    /// Not known yet is whether its IPv6 address answers.
    pub(super) ask_v6: bool,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) limit: Arc<Semaphore>,
}

impl Checker {
    /// Asks until it is aborted, or nobody listens any more; reports only what changes.
    pub(super) async fn run(self, verdict: Verdict) {
        let began = Instant::now();
        let mut judge = Judge::new(verdict);
        let interval = self.plan.config.interval;
        let mut spread = Some(spread(interval));
        let mut both = self.ask_v6.then(Both::default);
        loop {
            let asked = Instant::now();
            let Ok(permit) = self.limit.acquire().await else { return };
            let mut outcome = self.plan.check().await;
            let mut v6 = None;
            if let (Ok(()), Some(asking)) = (&outcome, &mut both) {
                v6 = asking.see(self.plan.check_v6().await, Instant::now());
                if v6.is_some() {
                    both = None;
                } else if judge.verdict.state == State::Starting {
                    outcome = Err("its IPv6 address does not answer".to_owned());
                }
            }
            drop(permit);
            if let Err(error) = &outcome {
                let (service, backend) = &self.key;
                debug!(service, backend, error, took = ?asked.elapsed(), "a check failed");
            }
            if judge.see(outcome, &self.plan.config) || v6.is_some() {
                let report = Report {
                    key: self.key.clone(),
                    checker: self.number,
                    verdict: judge.verdict.clone(),
                    v6: self.plan.v6.addr().zip(v6),
                };
                if self.reports.send(report).await.is_err() {
                    return;
                }
            }
            let eager = judge.verdict.state == State::Starting && began.elapsed() < EAGER_FOR;
            let pause = match (eager, spread) {
                (true, _) => EAGER.min(interval),
                // Those that started together are not asked together for ever.
                (false, Some(first)) => {
                    spread = None;
                    first
                }
                (false, None) => interval,
            };
            let floor = if self.plan.datagrams.is_empty() { Duration::ZERO } else { REFUSED_EVERY };
            sleep(pause.max(floor).saturating_sub(asked.elapsed())).await;
        }
    }
}

/// Somewhere between half an interval and a whole one.
fn spread(interval: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8);
    let part = u32::try_from(random % 500).unwrap_or(0) + 500;
    interval * part / 1000
}

/// Asking for a second address, once the first answers.
#[derive(Default)]
struct Both {
    refusals: u32,
    since: Option<Instant>,
}

impl Both {
    /// Whether there is an answer for good. Clients come to both addresses or to one of them for as long as the backend lives:
    /// if they changed while it serves, their connections would break.
    fn see(&mut self, outcome: io::Result<()>, now: Instant) -> Option<bool> {
        let since = *self.since.get_or_insert(now);
        match outcome {
            Ok(()) => return Some(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.refusals += 1,
            Err(_) => {}
        }
        (self.refusals >= V6_REFUSALS || now - since >= V6_PATIENCE).then_some(false)
    }
}

impl Plan {
    /// Asks at every port of the IPv6 address.
    async fn check_v6(&self) -> io::Result<()> {
        let again = self.again();
        let all = async {
            for addr in &self.v6.connect {
                connect(*addr, again).await?;
            }
            for addr in &self.v6.datagrams {
                heard(*addr).await?;
            }
            Ok(())
        };
        timeout(self.config.timeout, all).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// When a second connection is tried.
    fn again(&self) -> Duration {
        self.config.timeout / 3
    }

    /// Asks everything there is to ask, in the time there is.
    async fn check(&self) -> Result<(), String> {
        let again = self.again();
        let all = async {
            for addr in &self.connect {
                connect(*addr, again).await.map_err(|error| not_connected(*addr, &error))?;
            }
            for addr in &self.datagrams {
                heard(*addr).await.map_err(|error| not_heard(*addr, &error))?;
            }
            match &self.http {
                Some(http) => http.get(again).await,
                None => Ok(()),
            }
        };
        match timeout(self.config.timeout, all).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(format!("no answer within {}", humantime::format_duration(self.config.timeout)))
            }
        }
    }
}

fn not_connected(addr: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("port {} refuses connections", addr.port()),
        _ => format!("port {}: {error}", addr.port()),
    }
}

/// Sends an empty datagram, which says nothing to anybody. Only a closed port answers it, by ICMP.
async fn heard(addr: SocketAddr) -> io::Result<()> {
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    socket.send(&[]).await?;
    match timeout(REFUSED_WITHIN, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(error),
        // Silence, or an answer.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn not_heard(addr: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("port {}/udp is closed", addr.port()),
        _ => format!("port {}/udp: {error}", addr.port()),
    }
}

impl Http {
    async fn get(&self, again: Duration) -> Result<(), String> {
        let refused = |error: io::Error| not_connected(self.addr, &error);
        let stream = connect(self.addr, again).await.map_err(refused)?;
        let mut stream = TcpStream::from_std(stream).map_err(refused)?;
        // No proxied connection: UNKNOWN in version 1, LOCAL in version 2 of HAProxy's PROXY protocol.
        let greeting: &[u8] = match self.proxy_protocol {
            None => b"",
            Some(ProxyProtocol::V1) => b"PROXY UNKNOWN\r\n",
            Some(ProxyProtocol::V2) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        };
        let failed = |error: &dyn std::fmt::Display| format!("GET {}: {error}", self.path);
        stream.write_all(greeting).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let request = Request::get(&self.path)
            .header(http::header::HOST, &self.host)
            .header(http::header::USER_AGENT, "sticky-health")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let answer = sender.send_request(request);
        tokio::pin!(answer, connection);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            closed = &mut connection => match closed {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        let status = answer.map_err(|error| failed(&error))?.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        Err(failed(&status))
    }
}
