//! First-session survival: the measure by which Interlock's generated configuration keeps 32 sessions of 200.

use sticky_tests::load;
use sticky_tests::topology::vip;

use crate::fixture::{COOKIE, SwarmNode};

#[test]
fn all_of_200_clients_keep_their_first_session() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let tasks = node.deploy("cookie", 5, &[&COOKIE])?;
    let clients = load::sessions(&node.net.clients, 200, 40, vip(80))?;
    let kept = clients.values().filter(|client| client.kept()).count();
    println!("{kept} of {} clients kept their first session", clients.len());
    assert_eq!((kept, clients.len()), (200, 200));
    assert!(
        clients.values().all(|client| client.upstreams.len() == 1),
        "a client had two backends"
    );
    for task in &tasks {
        let entry = node.sticky.service("demo")?;
        let backend = entry["backends"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|backend| backend["id"] == task.id.as_str());
        let requests = backend.and_then(|backend| backend["requests"].as_u64()).unwrap_or_default();
        // 8000 requests, 1600 each in the mean; by load of two drawn at random nobody is left out.
        assert!(requests > 400, "{} had {requests} requests: {entry}", task.id);
    }
    Ok(())
}
