//! Load: as much as there is room for, or so much a second.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};

use super::client::{Client, Wish};
use crate::pace::pace;

/// Clients that connect at the same time.
const OPENING: usize = 64;

/// Opens `count` clients.
pub async fn open(to: SocketAddr, wish: Wish, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let mut opening = JoinSet::new();
        for _ in 0..OPENING.min(count - clients.len()) {
            opening.spawn_local(Client::open(to, wish));
        }
        while let Some(client) = opening.join_next().await {
            clients.push(client??);
        }
    }
    Ok(clients)
}

/// Each client asks again as soon as it has its answer, until `requests` are done; returns how long that took.
pub async fn closed(
    clients: Vec<Client>,
    requests: usize,
) -> anyhow::Result<(Duration, Vec<Client>)> {
    let left = Rc::new(Cell::new(requests));
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for mut client in clients {
        let left = left.clone();
        asking.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                client.ask().await?;
            }
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::with_capacity(asking.len());
    while let Some(client) = asking.join_next().await {
        clients.push(client??);
    }
    Ok((began.elapsed(), clients))
}

/// `rate` requests a second for `time`, whatever the answers do: each one's latency in µs, from when it was due. So
/// nothing that was slow is left out because somebody waited for it.
pub async fn paced(
    clients: Vec<Client>,
    rate: f64,
    time: Duration,
) -> anyhow::Result<(Vec<f64>, Vec<Client>)> {
    let mut asking = JoinSet::new();
    let mut queues = Vec::with_capacity(clients.len());
    for mut client in clients {
        let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
        queues.push(queue);
        asking.spawn_local(async move {
            let mut times = Vec::new();
            while let Some(due) = due.recv().await {
                client.ask().await?;
                times.push(due.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok((times, client))
        });
    }
    let (mut times, mut clients) = (Vec::new(), Vec::with_capacity(queues.len()));
    let mut next = queues.iter().cycle();
    for due in pace(rate, time) {
        // Not in a thread of its own, which would wait for this one's slice of the CPU, up to 4 ms.
        while Instant::now() < due {
            yield_now().await;
        }
        // A client that failed is found when it is joined.
        let _ = next.next().map(|queue| queue.send(due));
    }
    drop(queues);
    while let Some(asked) = asking.join_next().await {
        let (more, client) = asked??;
        times.extend(more);
        clients.push(client);
    }
    Ok((times, clients))
}
