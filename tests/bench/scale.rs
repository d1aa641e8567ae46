//! What a large Swarm costs: sticky beside a Docker API that claims to have thousands of services.
//!
//! Every service is balanced at both layers. Its tasks are addresses of one namespace, where one listener accepts for all.
//! Times are of the whole process, user and system, as the kernel counts them. Checks of backends are set to once an hour,
//! since their cost is a matter of their interval; one row has them at their default.

mod node;
mod usage;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::report::{Report, Row, Table};
use node::{Node, Size};

/// How thorough a run is.
struct Rounds {
    /// Nothing changes for so long.
    idle: Duration,
    changes: u32,
}

/// As long as the pause between two looks at everything, so that each span has one of them; the changes take as long.
const THOROUGH: Rounds = Rounds { idle: Duration::from_secs(60), changes: 30 };
const QUICK: Rounds = Rounds { idle: Duration::from_secs(2), changes: 2 };
/// What follows a change in the end: the last of the looks that an event makes more frequent.
const SETTLED: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(2);

const SIZES: [Size; 5] = [
    Size { services: 10, tasks: 10 },
    Size { services: 100, tasks: 10 },
    Size { services: 1_000, tasks: 10 },
    Size { services: 10_000, tasks: 10 },
    Size { services: 1, tasks: 1_000 },
];

/// Rows of one kind, in the order of the sizes.
#[derive(Default)]
struct Found {
    start: Vec<Row>,
    start_cpu: Vec<Row>,
    memory: Vec<Row>,
    idle: Vec<Row>,
    unsettled: Vec<Row>,
    change: Vec<Row>,
    around: Vec<Row>,
    delay: Vec<Row>,
}

/// Measures one size after the other.
pub fn run(binary: &Path, quick: bool) -> anyhow::Result<Report> {
    let (sizes, rounds) = if quick { (&SIZES[..1], QUICK) } else { (&SIZES[..], THOROUGH) };
    let mut found = Found::default();
    for size in sizes {
        println!("{size}");
        measure(binary, *size, &rounds, &mut found)?;
    }
    if !quick {
        println!("{}, checked every 2 s", SIZES[2]);
        let mut node = Node::start(binary, SIZES[2], "2s")?;
        sleep(SETTLED);
        found.idle.push(Row::new(
            format!("{}, checked every 2 s", SIZES[2]),
            vec![idle(&mut node, rounds.idle)?],
        ));
    }
    let table = |name: &str, title: &str, unit, rows| Table {
        name: name.to_owned(),
        title: title.to_owned(),
        unit,
        base: None,
        rows,
    };
    let tables = vec![
        table("start", "from the start of the process to the last map", "s", found.start),
        table("start-cpu", "CPU of that", "s", found.start_cpu),
        table("memory", "memory of the process when idle", "MB", found.memory),
        table("idle", "CPU when nothing changes", "% of a core", found.idle),
        table(
            "unsettled",
            "the same while a task of one service starts for minutes",
            "% of a core",
            found.unsettled,
        ),
        table(
            "change",
            "CPU of one change, with all looks that follow it: less what the same time takes without changes",
            "ms",
            found.change,
        ),
        table(
            "around",
            "the same with all that goes on meanwhile, such as a list of everything and an unsettled service",
            "ms",
            found.around,
        ),
        table("delay", "from the event to the line about the maps", "ms", found.delay),
    ];
    let notes = vec![format!(
        "{} changes {PAUSE:?} apart, idle for {:?}, backends checked once an hour where nothing else is said",
        rounds.changes, rounds.idle
    )];
    Ok(Report { name: "scale", notes, tables })
}

/// A start and some changes, and its end in order.
pub fn train(binary: &Path) -> anyhow::Result<()> {
    let mut node = Node::start(binary, SIZES[1], "2s")?;
    for number in 0..2 * THOROUGH.changes {
        node.change(number as usize)?;
    }
    node.end()
}

fn measure(binary: &Path, size: Size, rounds: &Rounds, found: &mut Found) -> anyhow::Result<()> {
    let mut node = Node::start(binary, size, "1h")?;
    let used = node.usage()?;
    found.start.push(Row::new(size.to_string(), vec![node.took.as_secs_f64()]));
    found.start_cpu.push(Row::new(size.to_string(), vec![used.cpu.as_secs_f64()]));
    sleep(SETTLED);
    found.idle.push(Row::new(size.to_string(), vec![idle(&mut node, rounds.idle)?]));
    found.memory.push(Row::new(size.to_string(), vec![node.usage()?.memory as f64 / 1e6]));

    node.unsettle();
    sleep(SETTLED);
    // As long as the changes take: one is taken from the other.
    let without = node.usage()?.cpu;
    let changes = PAUSE * rounds.changes;
    sleep(changes);
    let without = node.usage()?.cpu - without;
    found.unsettled.push(Row::new(size.to_string(), vec![percent(without, changes)]));

    let before = node.usage()?.cpu;
    let mut delays = Vec::new();
    for number in 0..rounds.changes {
        let next = Instant::now() + PAUSE;
        delays.push(node.change(number as usize)?.as_secs_f64() * 1e3);
        sleep(next.saturating_duration_since(Instant::now()));
    }
    let with = node.usage()?.cpu - before;
    let each = |used: f64| vec![used * 1e3 / f64::from(rounds.changes)];
    let (with, without) = (with.as_secs_f64(), without.as_secs_f64());
    found.change.push(Row::new(size.to_string(), each(with - without)));
    found.around.push(Row::new(size.to_string(), each(with)));
    found.delay.push(Row::new(size.to_string(), delays));
    Ok(())
}

/// Percent of a core.
fn idle(node: &mut Node, window: Duration) -> anyhow::Result<f64> {
    let before = node.usage()?.cpu;
    sleep(window);
    Ok(percent(node.usage()?.cpu - before, window))
}

fn percent(used: Duration, of: Duration) -> f64 {
    used.as_secs_f64() / of.as_secs_f64() * 100.0
}
