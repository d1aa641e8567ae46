//! A second thread of load, with backends of its own: what both CPUs can do needs load from both.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::client::Wish;
use super::{backend, load};

type Done = oneshot::Sender<anyhow::Result<()>>;

enum Order {
    Open { to: SocketAddr, wish: Wish, count: usize },
    Ask { requests: usize },
}

/// The thread; it ends with the value.
pub struct Second(mpsc::UnboundedSender<(Order, Done)>);

impl Second {
    /// Starts it on any CPU, in this thread's namespace. Its backends share the addresses of those of the first thread.
    pub fn start(backends: &[SocketAddr], largest: usize) -> anyhow::Result<Self> {
        let listeners = backend::listen(backends)?;
        let (orders, mut taken) = mpsc::unbounded_channel::<(Order, Done)>();
        std::thread::spawn(move || -> anyhow::Result<()> {
            super::pin(super::Cpus::All)?;
            let runtime = super::runtime()?;
            runtime.block_on(async {
                backend::serve_on(listeners, largest)?;
                let mut clients = Vec::new();
                while let Some((order, done)) = taken.recv().await {
                    let result = match order {
                        Order::Open { to, wish, count } => load::open(to, wish, count).await,
                        Order::Ask { requests } => {
                            load::closed(std::mem::take(&mut clients), requests)
                                .await
                                .map(|(_, clients)| clients)
                        }
                    };
                    let result = result.map(|now| clients = now);
                    // Whoever does not wait any more has failed itself.
                    let _ = done.send(result);
                }
                Ok(())
            })
        });
        Ok(Self(orders))
    }

    /// Opens clients in place of those there are.
    pub async fn open(&self, to: SocketAddr, wish: Wish, count: usize) -> anyhow::Result<()> {
        self.order(Order::Open { to, wish, count }).await
    }

    /// Its clients ask, until so many requests are done.
    pub async fn ask(&self, requests: usize) -> anyhow::Result<()> {
        self.order(Order::Ask { requests }).await
    }

    async fn order(&self, order: Order) -> anyhow::Result<()> {
        let (done, wait) = oneshot::channel();
        self.0.send((order, done)).ok().context("the second thread has ended")?;
        wait.await.context("the second thread has ended")?
    }
}
