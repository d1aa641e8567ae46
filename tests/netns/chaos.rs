//! A thousand connections through random changes without a pause between them, and through the ends of sticky itself.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;

use crate::dual::{BOTH, Dual, Family};

/// Connections of each family; every third says nothing until the end.
const CONNECTIONS: u16 = 500;
/// Clients with datagrams, of each family.
const TALKERS: u16 = 50;
const CHANGES: u32 = 20;
const BACKENDS: u8 = 8;
/// These never leave: they may be drained at most.
const STEADY: usize = 4;

/// Steele, Lea and Flood's SplitMix64: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap_or_default()
    }
}

/// The seed: `STICKY_TEST_SEED`, or another one each time.
fn seed() -> anyhow::Result<u64> {
    match std::env::var("STICKY_TEST_SEED") {
        Ok(seed) => Ok(seed.parse()?),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
    }
}

#[test]
fn a_thousand_connections_through_twenty_changes_and_three_ends_of_sticky() -> anyhow::Result<()> {
    let seed = seed()?;
    println!("STICKY_TEST_SEED={seed}");
    let mut node = Dual::start(BACKENDS, "native", &[])?;
    let mut open = connections(&node)?;
    let talkers = talkers(&node)?;
    let first: Vec<_> = open.iter().map(|(at, line)| (*at, line.instance.clone())).collect();
    // Backends that have left since the connections were opened.
    let left = Mutex::new(BTreeSet::new());
    let stays = |instance: &str| !left.lock().expect("no panic while locked").contains(instance);

    let stop = AtomicBool::new(false);
    let (said, told) = std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let (mut said, mut told) = (0_u32, 0_u32);
            while !stop.load(Ordering::Relaxed) {
                for (at, line) in open.iter_mut().filter(|(at, _)| at.1 % 3 != 0) {
                    if stays(&line.instance)
                        && let Err(error) = line.ask("still there?")
                    {
                        anyhow::ensure!(!stays(&line.instance), "{at:?}: {error:#}");
                    }
                    said += 1;
                }
                for (at, instance, datagrams) in &talkers {
                    // One lost datagram is within the rules of UDP, an answer of another backend is not.
                    let Ok(answer) = datagrams.ask(b"still there?") else { continue };
                    let moved = answer.instance != *instance && stays(instance);
                    anyhow::ensure!(!moved, "{at:?}: {instance}, then {}", answer.instance);
                    told += 1;
                }
            }
            anyhow::Ok((said, told))
        });
        let changed = change(&mut node, &left, Random(seed));
        stop.store(true, Ordering::Relaxed);
        let talked = talking.join().expect("no assertion in there");
        changed.and(talked)
    })?;

    // The silent ones too, and a new connection of each client.
    let mut lived = 0;
    for (at, line) in open.iter_mut().filter(|(_, line)| stays(&line.instance)) {
        line.ask("at last").map_err(|error| error.context(format!("{at:?}")))?;
        lived += 1;
    }
    let mut kept = 0;
    node.client(|| {
        for ((family, index), instance) in first.iter().filter(|(_, instance)| stays(instance)) {
            let frontend = family.frontend(LINE_PORT);
            let again = LineConnection::open(family.client(*index), frontend)?;
            anyhow::ensure!(again.instance == *instance, "{family:?} {index} moved");
            kept += 1;
        }
        Ok(())
    })?;
    println!(
        "{lived} connections lived, {said} lines and {told} datagrams in between; {kept} kept"
    );
    // Half of the backends never leave.
    assert!(lived >= usize::from(CONNECTIONS) * 4 / 5, "too few to mean anything: {lived}");
    Ok(())
}

type At = (Family, u16);

fn connections(node: &Dual) -> anyhow::Result<Vec<(At, LineConnection)>> {
    node.client(|| {
        let all = BOTH.into_iter().flat_map(|family| (0..CONNECTIONS).map(move |i| (family, i)));
        all.map(|at| {
            let line = LineConnection::open(at.0.client(at.1), at.0.frontend(LINE_PORT))?;
            Ok((at, line))
        })
        .collect()
    })
}

fn talkers(node: &Dual) -> anyhow::Result<Vec<(At, String, Datagrams)>> {
    node.client(|| {
        let all = BOTH.into_iter().flat_map(|family| (0..TALKERS).map(move |i| (family, i)));
        all.map(|at| {
            let client = at.0.client(CONNECTIONS + at.1);
            let datagrams = Datagrams::open(client, at.0.frontend(DATAGRAM_PORT))?;
            let answer = datagrams.ask(b"who are you?")?;
            datagrams.patience(Duration::from_millis(300))?;
            Ok((at, answer.instance, datagrams))
        })
        .collect()
    })
}

/// Changes which backends serve and which are drained, again and again.
fn change(
    node: &mut Dual,
    left: &Mutex<BTreeSet<String>>,
    mut random: Random,
) -> anyhow::Result<()> {
    for number in 0..CHANGES {
        let backends = usize::from(BACKENDS);
        let mut serving: Vec<usize> = (0..STEADY).collect();
        let mut drained = Vec::new();
        match random.below(3) {
            // To another number.
            0 => serving.extend(STEADY..STEADY + random.below(backends - STEADY + 1)),
            // A rolling change: one of them is away.
            1 => {
                let away = STEADY + random.below(backends - STEADY);
                serving.extend((STEADY..backends).filter(|&index| index != away));
            }
            _ => {
                serving.extend(STEADY..backends);
                drained.extend((0..backends).filter(|_| random.below(3) == 0));
            }
        }
        drained.retain(|index| serving.contains(index));
        let gone = (0..backends).filter(|index| !serving.contains(index));
        let gone = gone.flat_map(|index| node.names(index));
        left.lock().expect("no panic while locked").extend(gone);
        println!("change {number}: {serving:?} serve, {drained:?} are drained");
        node.write(&serving, &drained)?;
        match number {
            5 => {
                node.sticky.kill();
                node.sticky.run()?;
            }
            10 => {
                node.sticky.terminate(Duration::from_secs(20))?;
                node.sticky.run()?;
            }
            15 => node.sticky.take_over()?,
            // The next one follows as soon as this one is in force, or at once.
            _ if number % 3 > 0 => in_force(node, serving.len(), drained.len())?,
            _ => {}
        }
    }
    // The last word is that all serve.
    node.serve(0..usize::from(BACKENDS))
}

/// Waits until both services have as many backends, and as many of them drained.
fn in_force(node: &Dual, serving: usize, drained: usize) -> anyhow::Result<()> {
    for family in BOTH {
        node.sticky.wait_service(
            family.service(),
            "changed",
            Duration::from_secs(10),
            |entry| {
                let backends = entry["backends"].as_array().map_or(&[][..], Vec::as_slice);
                let draining = backends.iter().filter(|backend| backend["state"] == "draining");
                (backends.len(), draining.count()) == (serving, drained)
            },
        )?;
    }
    Ok(())
}
