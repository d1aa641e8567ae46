//! Large bodies arrive whole in both directions, through packets and through the proxy.

use sticky_tests::demo::HTTP_PORT;
use sticky_tests::http::Connection;
use sticky_tests::topology::{client, vip};

use crate::fixture::FileNode;

const LENGTH: usize = 20_000_000;

#[test]
fn twenty_megabytes_each_way_on_both_layers() -> anyhow::Result<()> {
    let node = FileNode::demo(2, 2)?;
    let body: Vec<u8> =
        (0..LENGTH).map(|at| u8::try_from(at % 251).expect("less than 251")).collect();
    for port in [HTTP_PORT, 80] {
        for index in 0..4 {
            let (path, body) = (format!("/large?bytes={LENGTH}"), &body);
            node.net.clients.block_on(|| async move {
                let mut connection = Connection::open(Some(client(index)), vip(port)).await?;
                let down = connection.get("demo.local", &path, &[]).await?;
                assert!(
                    down.body == body,
                    "port {port}: {} of {LENGTH} bytes came, or others",
                    down.body.len()
                );
                let up = connection.send("POST", "demo.local", "/echo", &[], body.clone()).await?;
                assert!(
                    up.body == body,
                    "port {port}: {} of {LENGTH} bytes were echoed, or others",
                    up.body.len()
                );
                assert_eq!(up.header("x-instance"), down.header("x-instance"));
                anyhow::Ok(())
            })??;
        }
    }
    Ok(())
}
