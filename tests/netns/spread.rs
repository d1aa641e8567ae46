//! New clients spread evenly; known ones stay through any number of changes.

use std::collections::BTreeMap;

use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::topology::{client, vip};

use crate::fixture::FileNode;

#[test]
fn clients_and_connections_stay_through_many_changes() -> anyhow::Result<()> {
    let node = FileNode::demo(10, 4)?;
    let clients = &node.net.clients;
    let known = load::visit(clients, 0..200, vip(HTTP_PORT))?;
    let open: anyhow::Result<Vec<_>> = clients.enter(|| {
        (0..40).map(|index| LineConnection::open(client(1000 + index), vip(LINE_PORT))).collect()
    })?;
    let mut open = open?;
    // Never below four: the backends of the known clients stay in service all the time.
    for (round, serving) in (1..).zip([10, 4, 7, 5, 10, 6, 4, 9]) {
        node.scale(serving)?;
        let again = load::visit(clients, 0..200, vip(HTTP_PORT))?;
        let moved =
            known.iter().filter(|(index, visit)| again[*index].instance != visit.instance).count();
        assert_eq!(moved, 0, "known clients moved when {serving} backends served");
        // The last ten are silent until the end.
        open.iter_mut().take(30).try_for_each(|connection| connection.ask("still there?"))?;

        let new = load::visit(clients, round * 2000..round * 2000 + 2000, vip(HTTP_PORT))?;
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        new.values().for_each(|visit| *shares.entry(&visit.instance).or_default() += 1);
        // Seven standard deviations of a fair draw: an even one is beyond them once in five thousand million times.
        let fair = 2000.0 / serving as f64;
        let even = shares.values().all(|&share| (share as f64 - fair).abs() < 7.0 * fair.sqrt());
        assert!(even && shares.len() == serving, "{serving} backends: {shares:?}");
    }
    open.iter_mut().try_for_each(|connection| connection.ask("at last"))
}
