//! What is under way while backends come and go: connections of layer 4, sessions of layer 7, and clients that come again.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use sticky_tests::topology::{client, vip};
use tokio::net::TcpSocket;
use tokio::task::spawn_local;

use crate::l7::client::{Client, HOST, Wish};
use crate::l7::load;
use crate::report::quantile;

const HTTP: u16 = 80;
/// Of the first service of the fake API.
const PUBLISHED: u16 = 10_000;
const SESSION: Wish = Wish { body: 1000, session: true };
const STRANGER: Wish = Wish { body: 1000, session: false };
/// Connections that stay open, of each layer.
const OPEN: u32 = 64;
/// Clients that come again and again with a new connection.
const KNOWN: u32 = 200;
const VISIT: Duration = Duration::from_millis(5);
/// Requests a second, on each layer.
const RATE: f64 = 1000.0;

/// All of them.
pub struct Traffic {
    layer4: Vec<Client>,
    layer7: Vec<Client>,
    /// The backend of each known client.
    known: Rc<Vec<String>>,
}

/// What one round saw, µs.
pub struct Seen {
    pub layer4: Vec<f64>,
    pub layer7: Vec<f64>,
}

impl Traffic {
    /// Opens what stays open, and makes the others known.
    pub async fn open() -> anyhow::Result<Self> {
        let mut layer4 = Vec::new();
        for number in 0..OPEN {
            layer4.push(come(number, SESSION).await?);
        }
        let mut known = Vec::new();
        for number in 0..KNOWN {
            known.push(backend(&come(OPEN + number, SESSION).await?)?);
        }
        let layer7 = load::open(vip(HTTP), SESSION, OPEN as usize).await?;
        Ok(Self { layer4, layer7, known: Rc::new(known) })
    }

    /// Lets all of them talk for so long.
    pub async fn round(self, time: Duration) -> anyhow::Result<(Self, Seen)> {
        let stop = Rc::new(Cell::new(false));
        let visits = spawn_local(visit(self.known.clone(), stop.clone()));
        let layer4 = async {
            load::paced(self.layer4, RATE, time).await.context("open connections of layer 4")
        };
        let layer7 = async {
            load::paced(self.layer7, RATE, time).await.context("open sessions of layer 7")
        };
        let both = tokio::try_join!(layer4, layer7);
        stop.set(true);
        let ((times4, layer4), (times7, layer7)) = both?;
        visits.await?.context("clients that come again")?;
        Ok((Self { layer4, layer7, known: self.known }, Seen { layer4: times4, layer7: times7 }))
    }
}

/// Known clients return to their backends on new connections; at layer 7 strangers come, whom anyone may serve.
async fn visit(known: Rc<Vec<String>>, stop: Rc<Cell<bool>>) -> anyhow::Result<()> {
    for (number, at) in (0..).zip(known.iter()).cycle() {
        if stop.get() {
            break;
        }
        let now = backend(&come(OPEN + number, SESSION).await?)?;
        anyhow::ensure!(*at == now, "{} moved from {at} to {now}", client(OPEN + number));
        Client::open(vip(HTTP), STRANGER).await.context("a new session of layer 7")?;
        tokio::time::sleep(VISIT).await;
    }
    Ok(())
}

/// A client connects at layer 4, from its own address.
async fn come(number: u32, wish: Wish) -> anyhow::Result<Client> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(client(number), 0))?;
    Client::over(socket.connect(vip(PUBLISHED)).await?, wish, &[HOST]).await
}

fn backend(client: &Client) -> anyhow::Result<String> {
    Ok(client.backend().context("a session has a backend")?.to_owned())
}

/// The median and the 99th percentile.
pub fn p50_and_p99(times: &[f64]) -> [f64; 2] {
    [quantile(times, 0.5), quantile(times, 0.99)]
}
