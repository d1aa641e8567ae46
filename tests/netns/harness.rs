//! The ground the other tests stand on: without sticky, packets reach the backends, and a killed run is swept.

use sticky_tests::demo::{Backends, HTTP_PORT, LINE_PORT, backend_name, demo_binary};
use sticky_tests::http;
use sticky_tests::lines::LineConnection;
use sticky_tests::topology::{Topology, client};

#[test]
fn backends_answer_and_see_the_client() -> anyhow::Result<()> {
    let net = Topology::new()?;
    let (backends, addresses) = net.backends(3)?;
    let _running = Backends::start(&backends, &demo_binary()?, &addresses)?;
    for (index, address) in (0..).zip(&addresses) {
        let source = client(70_000 + index);
        let to = (*address, HTTP_PORT).into();
        let answer =
            net.clients.block_on(|| http::get(Some(source), to, "demo.local", "/ping", &[]))??;
        let ping = answer.json()?;
        assert_eq!(ping["instance"], backend_name(address));
        assert!(
            ping["client"].as_str().is_some_and(|seen| seen.starts_with(&format!("{source}:"))),
            "{ping}"
        );

        let mut line =
            net.clients.enter(|| LineConnection::open(source, (*address, LINE_PORT).into()))??;
        assert_eq!(
            (line.instance.as_str(), line.seen),
            (backend_name(address).as_str(), line.local)
        );
        line.ask("hello")?;
    }
    Ok(())
}
