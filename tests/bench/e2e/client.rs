//! The clients: one thread on the first CPU, in the clients' namespace of the contestant whose turn it is.
//!
//! Every answer is checked: it is the one to this question, it comes from the backend that this client had before, and
//! that backend saw this client's address, unless the contestant is a proxy, which hides it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::AddAssign;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use sticky_tests::topology::client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backend::{CHUNK, give, take};
use super::machine::busy_us;
use super::stage::Stage;
use super::talk::{Answer, HEAD, Question};
use crate::pace::pace;

/// Addresses that connections come from, in turn.
pub const CLIENTS: u32 = 4096;
/// Connections at a time.
pub const PARALLEL: usize = 64;
/// Bytes of one transfer.
const TRANSFER: u32 = 16 << 20;

/// The runtime's own clock has milliseconds, a thread's has less than a tenth of one. (To spin instead would take the CPU from
/// the contestants.)
const TICK: Duration = Duration::from_micros(100);

/// Who is asked, and what is known of it.
pub struct Asked {
    to: Vec<SocketAddr>,
    shows_client: bool,
    next: Cell<u64>,
    /// The backend of each client.
    known: RefCell<Vec<Option<Ipv4Addr>>>,
}

/// How a load went.
#[derive(Clone, Default)]
pub struct Took {
    pub seconds: f64,
    /// CPU time of the whole machine.
    pub cpu_us: f64,
}

impl AddAssign for Took {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.cpu_us += other.cpu_us;
    }
}

/// Which way data goes.
#[derive(Clone, Copy)]
pub enum Way {
    ToClient,
    ToBackend,
}

struct Client {
    number: u32,
    address: Ipv4Addr,
    stream: TcpStream,
}

impl Asked {
    pub fn new(stage: &Stage) -> Self {
        let (to, shows_client) = (stage.to.clone(), stage.kind.shows_client());
        let known = RefCell::new(vec![None; CLIENTS as usize]);
        Self { to, shows_client, next: Cell::new(0), known }
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Connects from the next client's address.
    async fn connect(&self) -> anyhow::Result<Client> {
        let number = (self.number() % u64::from(CLIENTS)) as u32;
        let IpAddr::V4(address) = client(number) else { anyhow::bail!("a client of IPv6") };
        let to = self.to.get(number as usize % self.to.len()).context("nobody to ask")?;
        let socket = TcpSocket::new_v4()?;
        // Its port is chosen when it connects, when it is known whom it must differ from.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(address.into(), 0))?;
        let stream = socket.connect(*to).await.with_context(|| format!("{address} to {to}"))?;
        Ok(Client { number, address, stream })
    }

    fn check(&self, client: &Client, asked: u64, head: &[u8]) -> anyhow::Result<()> {
        let Answer { number, backend, client: seen } = Answer::read(head)?;
        anyhow::ensure!(number == asked, "the answer to another question");
        if self.shows_client {
            let own = client.address;
            anyhow::ensure!(seen == own, "the backend saw {seen} and not {own}");
        }
        let mut known = self.known.borrow_mut();
        let known = known.get_mut(client.number as usize).context("a client more")?;
        let before = *known.get_or_insert(backend);
        anyhow::ensure!(
            before == backend,
            "client {} moved from {before} to {backend}",
            client.address
        );
        Ok(())
    }

    /// One connection with one question.
    async fn short(&self) -> anyhow::Result<()> {
        let mut client = self.connect().await?;
        let number = self.number();
        let question = Question { number, up: 0, down: 0, last: true };
        client.stream.write_all(&question.bytes()).await?;
        let mut head = [0; HEAD + 1];
        let mut filled = 0;
        loop {
            let free = head.get_mut(filled..).unwrap_or_default();
            match client.stream.read(free).await? {
                0 => break,
                read => filled += read,
            }
            anyhow::ensure!(filled <= HEAD, "more than the answer");
        }
        anyhow::ensure!(filled == HEAD, "the connection ended before the answer");
        self.check(&client, number, &head)
    }

    /// One question of many on a connection, with data.
    async fn ask(&self, client: &mut Client, data: Option<(Way, &[u8])>) -> anyhow::Result<()> {
        let number = self.number();
        let (up, down) = match data {
            Some((Way::ToBackend, _)) => (TRANSFER, 0),
            Some((Way::ToClient, _)) => (0, TRANSFER),
            None => (0, 0),
        };
        let question = Question { number, up, down, last: false };
        client.stream.write_all(&question.bytes()).await?;
        give(&mut client.stream, up as usize, data.map_or(&[], |(_, data)| data)).await?;
        let mut head = [0; HEAD];
        client.stream.read_exact(&mut head).await?;
        self.check(client, number, &head)?;
        take(&mut client.stream, down as usize, &mut Vec::new()).await
    }
}

/// `count` connections with one question each.
pub async fn connections(asked: &Rc<Asked>, count: usize) -> anyhow::Result<Took> {
    let left = Rc::new(Cell::new(count));
    timed(async {
        let mut asking = JoinSet::new();
        for _ in 0..PARALLEL {
            let (asked, left) = (asked.clone(), left.clone());
            asking.spawn_local(async move {
                while take_one(&left) {
                    asked.short().await?;
                }
                anyhow::Ok(())
            });
        }
        all(asking).await
    })
    .await
}

/// `count` questions on connections that stay, each with a transfer in that direction if there is one.
pub async fn questions(
    asked: &Rc<Asked>,
    connections: usize,
    count: usize,
    way: Option<Way>,
) -> anyhow::Result<Took> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = asked.connect().await?;
        client.stream.set_nodelay(true)?;
        clients.push(client);
    }
    let data: Rc<[u8]> = vec![b'y'; if way.is_some() { CHUNK } else { 0 }].into();
    let left = Rc::new(Cell::new(count));
    timed(async {
        let mut asking = JoinSet::new();
        for mut client in clients {
            let (asked, left, data) = (asked.clone(), left.clone(), data.clone());
            asking.spawn_local(async move {
                while take_one(&left) {
                    asked.ask(&mut client, way.map(|way| (way, &*data))).await?;
                }
                anyhow::Ok(())
            });
        }
        all(asking).await
    })
    .await
}

/// Bytes that `count` questions with a transfer bring.
pub fn bytes(count: usize) -> f64 {
    count as f64 * f64::from(TRANSFER)
}

/// `rate` connections a second for `time`, whatever the answers do: how long each took in µs, from when it was due. So
/// nothing that was slow is left out because somebody waited for it.
pub async fn paced(asked: &Rc<Asked>, rate: f64, time: Duration) -> anyhow::Result<Vec<f64>> {
    let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
    let pacer = std::thread::spawn(move || {
        for due in pace(rate, time) {
            while Instant::now() < due {
                std::thread::sleep(TICK);
            }
            // Whoever failed is found when it is joined.
            let _ = queue.send(due);
        }
    });
    let mut asking = JoinSet::new();
    let mut times = Vec::new();
    while let Some(due) = due.recv().await {
        let asked = asked.clone();
        asking.spawn_local(async move {
            asked.short().await?;
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e6)
        });
        while let Some(done) = asking.try_join_next() {
            times.push(done??);
        }
    }
    while let Some(done) = asking.join_next().await {
        times.push(done??);
    }
    pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
    Ok(times)
}

fn take_one(left: &Cell<usize>) -> bool {
    let before = left.get();
    left.set(before.saturating_sub(1));
    before > 0
}

async fn all(mut asking: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(done) = asking.join_next().await {
        done??;
    }
    Ok(())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Took> {
    /// Nothing here takes so long, unless packets are lost for good.
    const LIMIT: Duration = Duration::from_secs(60);
    let before = busy_us()?;
    let began = Instant::now();
    tokio::time::timeout(LIMIT, work).await.context("the clients hang")??;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Took { seconds, cpu_us: busy_us()? - before })
}
