//! The ground the other tests stand on: without sticky, a private Swarm runs, scales, and is gone afterwards.

use std::time::Instant;

use sticky_tests::demo::{IMAGE, demo_image};
use sticky_tests::http;
use sticky_tests::swarm::Swarm;
use sticky_tests::topology::{NODE, Topology};

#[test]
fn tasks_answer_on_their_local_addresses() -> anyhow::Result<()> {
    let started = Instant::now();
    let net = Topology::new()?;
    let swarm = Swarm::start(&net.node, &NODE.to_string(), &demo_image()?)?;
    println!("a Swarm with {IMAGE} after {:?}", started.elapsed());
    swarm.docker(&["network", "create", "--driver", "overlay", "demo"])?;
    swarm.create(&["--name", "demo", "--network", "demo", "--replicas", "3"])?;
    let tasks = swarm.wait_running("demo", 3)?;
    println!("three tasks after {:?}", started.elapsed());

    let addresses = swarm.addresses("docker_gwbridge")?;
    for task in &tasks {
        let (_, address) = addresses
            .iter()
            .find(|(id, _)| *id == task.container)
            .expect("a task has a local address");
        let to = format!("{address}:8080").parse()?;
        let answer = net.node.block_on(|| http::get(None, to, "demo.local", "/ping", &[]))??;
        assert_eq!(answer.json()?["instance"], task.instance());
    }
    swarm.scale("demo", 1)?;
    swarm.wait_running("demo", 1)?;
    println!("one task after {:?}", started.elapsed());
    swarm.remove("demo")
}
