//! `sticky capture`: packets with what became of them. Works on what is pinned, whether `sticky run` is there or not.

mod headers;
mod names;
mod pcapng;
mod text;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use sticky_common::outcome::Outcome;
use sticky_common::types::capture::{Event, Request};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Places;
use crate::datapath::{Packet, Tap};
use crate::failure::Failure;
use headers::Headers;
use names::{Names, Who};

/// How often more packets are asked for.
const ASK: Duration = Duration::from_secs(1);

/// What is wanted, and where it goes.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `-`: standard output. `None`: standard output too, as lines if it is a terminal.
    pub write: Option<PathBuf>,
    pub iface: Option<String>,
    pub client: Option<IpNet>,
    /// Name or id.
    pub service: Option<String>,
    /// None of them: all but what is for no frontend.
    pub outcomes: Vec<Outcome>,
    /// Ends after so many packets.
    pub count: Option<u64>,
    /// Bytes of each packet; 0: as many as fit.
    pub snaplen: u32,
}

/// A packet with all that is known of it.
struct Seen<'a> {
    event: &'a Event,
    at: SystemTime,
    bytes: &'a [u8],
    outcome: Outcome,
    iface: &'a str,
    headers: Option<&'a Headers>,
    who: Who<'a>,
}

/// Where packets go.
trait Sink {
    fn packet(&mut self, seen: &Seen<'_>) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// Captures until a signal, the number of packets or a reader that has enough ends it.
///
/// # Errors
/// Nothing is loaded, somebody else captures, or the output cannot be written.
pub fn run(places: &Places, wanted: &Wanted) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime for the capture")?.block_on(capture(places, wanted))
}

async fn capture(places: &Places, wanted: &Wanted) -> Result<(), Failure> {
    let mut names = Names::open(places, wanted.service.as_deref())?;
    let mut tap = Tap::open(&places.pin_dir, request(wanted)?)?;
    let mut sink = sink(wanted)?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be waited for")?;
    let mut ask = tokio::time::interval(ASK);
    eprintln!("sticky: capturing, Ctrl-C ends it");
    let (mut count, mut ending) = (0, false);
    let mut written = Ok(());
    loop {
        // What is left over from the last look first: the ring tells of a packet once.
        let more = tap.take(|packet| {
            written = one(packet, wanted, &mut names, &mut *sink, &mut count);
            written.is_ok() && wanted.count.is_none_or(|limit| count < limit)
        });
        written = written.and_then(|()| sink.flush());
        if ending || !more || written.is_err() {
            break;
        }
        tokio::select! {
            ready = tap.ready() => ready.context("the ring of packets cannot be read")?,
            _ = ask.tick() => tap.go_on()?,
            _ = terminate.recv() => ending = true,
            _ = interrupt.recv() => ending = true,
            _ = hangup.recv() => ending = true,
        }
        if ending {
            tap.end();
        }
    }
    let lost = tap.lost();
    drop(tap);
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::Failed(anyhow!(
                "the capture cannot be written: {e}; is the disk full?"
            )));
        }
        _ => {}
    }
    eprintln!("sticky: {count} packets captured, {lost} lost because they came too fast");
    Ok(())
}

fn one(
    packet: &Packet<'_>,
    wanted: &Wanted,
    names: &mut Names,
    sink: &mut dyn Sink,
    count: &mut u64,
) -> io::Result<()> {
    let Some(outcome) = Outcome::ALL.get(packet.event.outcome as usize).copied() else {
        return Ok(());
    };
    let headers = headers::read(packet.bytes);
    let iface = names.interface(packet.event.ifindex);
    let who = names.who(&packet.event, headers.as_ref().and_then(Headers::tuple));
    if wanted.service.is_some() && !who.wanted {
        return Ok(());
    }
    *count += 1;
    let Packet { event, at, bytes } = packet;
    sink.packet(&Seen {
        event,
        at: *at,
        bytes,
        outcome,
        iface: &iface,
        headers: headers.as_ref(),
        who,
    })
}

fn request(wanted: &Wanted) -> Result<Request, Failure> {
    let ifindex = match &wanted.iface {
        None => 0,
        Some(name) => nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| {
            Failure::Usage(format!("interface {name} is not there; `ip link` lists those that are"))
        })?,
    };
    let bits = |outcomes: &[Outcome]| outcomes.iter().fold(0, |all, o| all | 1 << *o as u32);
    let outcomes = match &wanted.outcomes[..] {
        [] => bits(Outcome::ALL) & !bits(&[Outcome::NotOurs]),
        some => bits(some),
    };
    let (mut client, mut mask) = ([0; 16], [0; 16]);
    if let Some(net) = wanted.client {
        put(&mut client, net.network());
        put(&mut mask, net.netmask());
    }
    Ok(Request {
        outcomes,
        lost: 0,
        bytes: match wanted.snaplen {
            0 => Event::MAX_BYTES,
            some => some.min(Event::MAX_BYTES),
        },
        ifindex,
        client,
        mask,
        version: match wanted.client {
            None => 0,
            Some(IpNet::V4(_)) => 4,
            Some(IpNet::V6(_)) => 6,
        },
        owner: std::process::id(),
    })
}

fn put(to: &mut [u8; 16], addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => to[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => *to = v6.octets(),
    }
}

fn sink(wanted: &Wanted) -> Result<Box<dyn Sink>, Failure> {
    let out: Box<dyn Write> = match &wanted.write {
        Some(path) if path.as_os_str() != "-" => {
            Box::new(File::create(path).with_context(|| {
                format!("{} cannot be written; choose another file with -w", path.display())
            })?)
        }
        None if io::stdout().is_terminal() => return Ok(Box::new(text::Lines)),
        _ => Box::new(io::stdout().lock()),
    };
    Ok(Box::new(
        pcapng::Pcapng::new(out).map_err(|e| anyhow!("the capture cannot be written: {e}"))?,
    ))
}
