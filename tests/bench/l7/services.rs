//! What a request costs sticky as the services become many.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpStream;

use super::client::Client;
use super::measure::Lab;
use super::peers::{Kind, Mode, PROXY, Proxy, config};
use super::{PLAIN, load, usage};
use crate::report::{Row, Table};

/// Services with a host each.
pub const MANY: [usize; 3] = [10, 1_000, 10_000];
const CLIENTS: usize = 64;
/// Backends of a service.
const EACH: usize = 2;
/// Hosts that are asked in turn: a connection to each of their backends stays open, on both ends.
const ASKED: usize = 4_000;
/// Of a round, while one host is asked.
const TURNS: usize = 4;

/// Starts a sticky for each number of services, and lets clients ask one host, and all of them in turn.
pub async fn measure(
    lab: &Lab<'_>,
    many: &[usize],
    rounds: usize,
    requests: usize,
) -> anyhow::Result<Vec<Table>> {
    let mut proxies = Vec::new();
    for (&count, port) in many.iter().zip(8400..) {
        proxies.push(start(lab, count, port).await?);
    }
    let mut found = [const { Vec::new() }; 2].map(|_: Vec<()>| vec![Vec::new(); many.len()]);
    for _ in 0..rounds {
        for (found, all) in found.iter_mut().zip([false, true]) {
            // Short turns, since a machine may have half of its speed a moment later; all hosts take a long one.
            let (turns, requests) = if all { (1, requests) } else { (TURNS, requests / TURNS) };
            for _ in 0..turns {
                for ((proxy, found), &count) in proxies.iter().zip(found.iter_mut()).zip(many) {
                    let asked = if all { count.min(ASKED) } else { 1 };
                    found.push(one(proxy, asked, requests).await?);
                }
            }
        }
    }
    let names = [
        ("services-one", "CPU per request as services become many: one host asked"),
        (
            "services-all",
            "CPU per request as services become many: up to 4,000 hosts asked in turn",
        ),
    ];
    let table = |((name, title), found): ((&str, &str), Vec<Vec<f64>>)| {
        let row = |(count, all): (&usize, Vec<f64>)| Row::new(format!("{count} services"), all);
        let rows = many.iter().zip(found).map(row).collect();
        Table { name: name.to_owned(), title: title.to_owned(), unit: "µs", base: Some(0), rows }
    };
    Ok(names.into_iter().zip(found).map(table).collect())
}

/// Waits until the last of its hosts answers.
async fn start(lab: &Lab<'_>, count: usize, port: u16) -> anyhow::Result<Proxy> {
    let mut text = String::new();
    for number in 0..count {
        let backends = lab.backends.iter().cycle().skip(number % lab.backends.len()).take(EACH);
        let backends: Vec<SocketAddr> = backends.copied().collect();
        text += &config::service(&format!("s{number}"), &host(number), &backends);
        text += "\"sticky.health.interval\" = \"1h\"\n";
    }
    let addr = SocketAddr::new(IpAddr::V4(PROXY), port);
    let mut proxy = Proxy::start_with(Kind::Sticky, Mode::PLAIN, addr, lab.netns, &text)?;
    let limit = Instant::now() + Duration::from_secs(60);
    let last = host(count - 1);
    while let Err(error) = open(addr, &[&last]).await {
        proxy.check()?;
        anyhow::ensure!(Instant::now() < limit, "{count} services are not served: {error:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first checks of all backends, and what follows from them.
    let mut used = usage::cpu_us(proxy.pid())?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = usage::cpu_us(proxy.pid())?;
        if now - used < 20_000.0 || Instant::now() > limit {
            return Ok(proxy);
        }
        used = now;
    }
}

async fn open(to: SocketAddr, hosts: &[&str]) -> anyhow::Result<Client> {
    Client::over(TcpStream::connect(to).await?, PLAIN, hosts).await
}

/// CPU time per request, µs; the clients share the hosts between them.
async fn one(proxy: &Proxy, hosts: usize, requests: usize) -> anyhow::Result<f64> {
    let hosts: Vec<String> = (0..hosts).map(host).collect();
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mine: Vec<&str> = if hosts.len() < CLIENTS {
            hosts.iter().map(String::as_str).collect()
        } else {
            hosts.iter().skip(number).step_by(CLIENTS).map(String::as_str).collect()
        };
        let client = open(proxy.addr, &mine).await;
        clients.push(client.with_context(|| format!("{} hosts", hosts.len()))?);
    }
    let (_, clients) = load::closed(clients, requests / 10).await?;
    let before = usage::cpu_us(proxy.pid())?;
    load::closed(clients, requests).await?;
    Ok((usage::cpu_us(proxy.pid())? - before) / requests as f64)
}

fn host(number: usize) -> String {
    format!("s{number}.example")
}
