//! The end-to-end half of `l4`: what short connections, questions on long ones and much data cost from client to backend.
//!
//! Each contestant has a node between clients and backends in namespaces of its own; all are of the same shape. Clients
//! have the first CPU, backends the last; what forwards runs on both, as the kernel does it. So both ends are part of
//! every figure, and a contestant that cost nothing would be as fast as plain routing.

mod backend;
mod client;
mod machine;
mod stage;
mod talk;

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use sticky_tests::wait;

use self::client::{Asked, PARALLEL, Took, Way};
use self::machine::{Cpu, pin};
use self::stage::{Kind, Stage};
use crate::report::{Report, Row, Table, quantile};

/// Of what plain routing can do, for latencies: less than what the slowest can.
const PART: f64 = 0.4;
/// Connections of a transfer.
const STREAMS: usize = 4;

/// How long and how often.
struct Effort {
    rounds: usize,
    /// In so many parts of a round all contestants take turns with connections and questions: a virtual machine may be twice
    /// as fast in one second as in the next.
    parts: usize,
    connections: usize,
    questions: usize,
    transfers: usize,
    paced: Duration,
}

const FULL: Effort = Effort {
    rounds: 11,
    parts: 8,
    connections: 8_000,
    questions: 30_000,
    transfers: 12,
    paced: Duration::from_millis(700),
};
const QUICK: Effort = Effort {
    rounds: 1,
    parts: 1,
    connections: 300,
    questions: 500,
    transfers: 4,
    paced: Duration::from_millis(100),
};

/// What is measured; the samples of a contestant are in this order.
const FIGURES: [(&str, &str, &str); 8] = [
    ("connections", "connections: open, ask once, end", "connections/s"),
    ("connection-cpu", "CPU time of a connection, whole machine", "µs"),
    ("requests", "questions on 64 connections that stay", "questions/s"),
    ("request-cpu", "CPU time of a question, whole machine", "µs"),
    ("to-client", "CPU time of data to clients, whole machine", "ms/GB"),
    ("to-backend", "CPU time of data to backends, whole machine", "ms/GB"),
    ("p50", "p50 of a connection at a fixed rate", "µs"),
    ("p99", "p99 of a connection at a fixed rate", "µs"),
];

/// Measures all contestants that are here.
pub fn run(quick: bool) -> anyhow::Result<Report> {
    // Many namespaces and a Swarm are taken down in order.
    wait::watch_signals()?;
    let effort = if quick { QUICK } else { FULL };
    let mut notes = vec![
        format!(
            "{} rounds; clients on the first CPU, backends on the last, {} addresses, {PARALLEL} connections at a time",
            effort.rounds,
            client::CLIENTS
        ),
        "CPU time is that of both ends and all else that ran on the machine".to_owned(),
        format!(
            "latencies: open loop at {PART} of the connections that plain routing can do, from when one was due"
        ),
    ];
    let mut stages = Vec::new();
    let mut listeners = Vec::new();
    for kind in Kind::ALL {
        let built = kind.note().and_then(|note| Ok((note, Stage::new(kind)?)));
        match built {
            Ok((note, (stage, more))) => {
                notes.push(note);
                stages.push(stage);
                listeners.extend(more);
            }
            Err(error) if matches!(kind, Kind::Plain | Kind::Sticky) => return Err(error),
            Err(error) => notes.push(format!("measured without {}: {error:#}", kind.name())),
        }
    }
    backend::serve(listeners)?;
    let samples = std::thread::scope(|scope| {
        // A thread of its own, for it goes from namespace to namespace.
        scope.spawn(|| measure(&stages, &effort)).join()
    });
    let samples = samples.map_err(|_| anyhow::anyhow!("the clients panicked"))??;
    let tables = tables(&stages, &samples);
    notes.extend(summary(&stages, &tables));
    Ok(Report { name: "l4-e2e", notes, tables })
}

type Figures = [f64; FIGURES.len()];

/// The figures of each contestant, round by round.
fn measure(stages: &[Stage], effort: &Effort) -> anyhow::Result<Vec<Vec<Figures>>> {
    pin(Cpu::First)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let all: Vec<Rc<Asked>> = stages.iter().map(|stage| Rc::new(Asked::new(stage))).collect();
    let mut samples = vec![Vec::new(); stages.len()];
    let mut rate = f64::NAN;
    for round in 0..=effort.rounds {
        let mut turns = vec![Turn::default(); stages.len()];
        for step in effort.steps() {
            for ((stage, asked), turn) in stages.iter().zip(&all).zip(&mut turns) {
                anyhow::ensure!(!wait::interrupted(), "interrupted");
                sticky_tests::netns::join(&stage.net.clients.path())?;
                runtime
                    .block_on(turn.take(step, asked, effort, rate))
                    .with_context(|| stage.kind.name())?;
            }
        }
        for ((stage, turn), samples) in stages.iter().zip(turns).zip(&mut samples) {
            let found = turn.figures(effort);
            // The first round warms caches and makes the records of the clients.
            if round > 0 {
                samples.push(found);
            } else if stage.kind == Kind::Plain {
                let [connections, ..] = found;
                rate = connections * PART;
            }
        }
    }
    Ok(samples)
}

/// What all contestants do before any does the next.
#[derive(Clone, Copy)]
enum Step {
    Connections,
    Questions,
    Data(Way),
    Paced,
}

impl Effort {
    /// Those of a round.
    fn steps(&self) -> impl Iterator<Item = Step> + use<> {
        let parts = |step| std::iter::repeat_n(step, self.parts);
        let once = [Step::Data(Way::ToClient), Step::Data(Way::ToBackend), Step::Paced];
        parts(Step::Connections).chain(parts(Step::Questions)).chain(once)
    }
}

/// What one contestant took in a round.
#[derive(Clone, Default)]
struct Turn {
    connections: Took,
    questions: Took,
    to_client: Took,
    to_backend: Took,
    times: Vec<f64>,
}

impl Turn {
    /// Without a rate, no latencies.
    async fn take(
        &mut self,
        step: Step,
        asked: &Rc<Asked>,
        effort: &Effort,
        rate: f64,
    ) -> anyhow::Result<()> {
        match step {
            Step::Connections => {
                let count = effort.connections / effort.parts;
                self.connections += client::connections(asked, count).await?;
            }
            Step::Questions => {
                let count = effort.questions / effort.parts;
                self.questions += client::questions(asked, PARALLEL, count, None).await?;
            }
            Step::Data(way) => {
                let took = client::questions(asked, STREAMS, effort.transfers, Some(way)).await?;
                match way {
                    Way::ToClient => self.to_client += took,
                    Way::ToBackend => self.to_backend += took,
                }
            }
            Step::Paced if rate.is_nan() => {}
            Step::Paced => self.times = client::paced(asked, rate, effort.paced).await?,
        }
        Ok(())
    }

    fn figures(&self, effort: &Effort) -> Figures {
        let each = |took: &Took, count: usize| {
            let count = count / effort.parts * effort.parts;
            [count as f64 / took.seconds, took.cpu_us / count as f64]
        };
        let data = |took: &Took| took.cpu_us / 1e3 / (client::bytes(effort.transfers) / 1e9);
        let [rate, cost] = each(&self.connections, effort.connections);
        let [question_rate, question_cost] = each(&self.questions, effort.questions);
        let (p50, p99) = (quantile(&self.times, 0.5), quantile(&self.times, 0.99));
        let (to_client, to_backend) = (data(&self.to_client), data(&self.to_backend));
        [rate, cost, question_rate, question_cost, to_client, to_backend, p50, p99]
    }
}

fn tables(stages: &[Stage], samples: &[Vec<Figures>]) -> Vec<Table> {
    let table = |(at, (name, title, unit)): (usize, &(&str, &str, &'static str))| {
        let row = |(stage, samples): (&Stage, &Vec<Figures>)| {
            let all = samples.iter().filter_map(|figures| figures.get(at).copied()).collect();
            Row::new(stage.kind.name(), all)
        };
        let rows = stages.iter().zip(samples).map(row).collect();
        let (name, title) = ((*name).to_owned(), (*title).to_owned());
        Table { name, title, unit, base: Some(0), rows }
    };
    FIGURES.iter().enumerate().map(table).collect()
}

/// What sticky is to each of the others, in the two figures that count connections and questions.
fn summary(stages: &[Stage], tables: &[Table]) -> Vec<String> {
    let Some(own) = stages.iter().position(|stage| stage.kind == Kind::Sticky) else {
        return Vec::new();
    };
    let line = |table: &Table| {
        let own = table.rows.get(own)?;
        let others = table.rows.iter().filter(|row| row.name != own.name);
        let all: Vec<String> = others
            .map(|row| format!("{:.2} x {}", own.samples.ratio(&row.samples), row.name))
            .collect();
        Some(format!("sticky, {}: {}", table.unit, all.join(", ")))
    };
    tables.iter().filter(|table| table.unit.ends_with("/s")).filter_map(line).collect()
}
