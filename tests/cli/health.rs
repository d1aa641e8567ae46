//! `sticky.health.*`: how often a backend is asked, and how long it may take.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sticky_tests::wait;

use crate::node::{LIMIT, Place, stdout};

/// A backend that counts how often its health is asked for, and takes its time to tell.
struct Patient {
    addr: SocketAddr,
    asked: Arc<AtomicU64>,
    pause_ms: Arc<AtomicU64>,
}

impl Patient {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let patient =
            Self { addr: listener.local_addr()?, asked: Arc::default(), pause_ms: Arc::default() };
        let (asked, pause_ms) = (patient.asked.clone(), patient.pause_ms.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, pause_ms) = (asked.clone(), pause_ms.clone());
                std::thread::spawn(move || tell(stream, &asked, &pause_ms));
            }
        });
        Ok(patient)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn tell(mut stream: TcpStream, asked: &AtomicU64, pause_ms: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    if reader.read_line(&mut first)? > 0 && first.starts_with("GET /up ") {
        asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(pause_ms.load(Ordering::SeqCst)));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    }
    Ok(())
}

/// Name, interval, timeout.
const SERVICES: [(&str, &str, &str); 3] =
    [("often", "100ms", "100ms"), ("patient", "100ms", "10s"), ("seldom", "1h", "1s")];

/// The states of the services' backends.
fn states(place: &Place) -> anyhow::Result<Vec<String>> {
    let status: serde_json::Value =
        serde_json::from_str(&stdout(&place.sticky(&["status", "--json"])?))?;
    let of = |(name, ..): &(&str, &str, &str)| {
        let mut services = status["services"].as_array().into_iter().flatten();
        let service = services.find(|service| service["name"] == *name);
        let state = service.and_then(|service| service["backends"][0]["state"].as_str());
        state.unwrap_or_default().to_owned()
    };
    Ok(SERVICES.iter().map(of).collect())
}

fn wait_for(place: &Place, wanted: [&str; 3]) -> anyhow::Result<()> {
    wait::until(&format!("{wanted:?}"), LIMIT, || {
        let now = states(place)?;
        Ok(if now == wanted { Ok(()) } else { Err(format!("{now:?}")) })
    })
}

#[test]
fn intervals_and_timeouts_are_those_of_the_labels() -> anyhow::Result<()> {
    let place = Place::new()?;
    let backends = [Patient::start()?, Patient::start()?, Patient::start()?];
    let services = SERVICES.iter().zip(&backends).map(|((name, interval, timeout), backend)| {
        format!(
            "[[service]]\nname = \"{name}\"\nbackends = [\"{}\"]\n[service.labels]\n\
             \"com.docker.lb.hosts\" = \"{name}.local\"\n\"sticky.health.path\" = \"/up\"\n\
             \"sticky.health.interval\" = \"{interval}\"\n\
             \"sticky.health.timeout\" = \"{timeout}\"\n\"sticky.health.fall\" = \"2\"\n",
            backend.addr
        )
    });
    std::fs::write(place.dir.join("services.toml"), services.collect::<String>())?;
    let _node = place.start(&[])?;
    wait_for(&place, ["up"; 3])?;
    let [often, patient, seldom] = &backends;

    let (before, since) = (often.asked(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let (more, most) = (often.asked() - before, since.elapsed().as_millis() / 100 + 2);
    println!("asked {more} times in 2 s every 100 ms, and {} times every hour", seldom.asked());
    assert!((8..=most).contains(&u128::from(more)), "{more}");
    assert_eq!(seldom.asked(), 1);

    // An answer after 0.4 s is too late for one, and early for the other.
    for backend in [often, patient] {
        backend.pause_ms.store(400, Ordering::SeqCst);
    }
    wait_for(&place, ["down", "up", "up"])?;
    let answered = patient.asked();
    std::thread::sleep(Duration::from_secs(2));
    assert!(patient.asked() > answered + 1, "it is asked on");
    wait_for(&place, ["down", "up", "up"])?;
    often.pause_ms.store(0, Ordering::SeqCst);
    wait_for(&place, ["up"; 3])
}
