//! An address whose owner has gone, and that the kernel still asks for, gets another one.

use std::time::Duration;

use crate::dual::{BOTH, Dual};

/// The kernel does not ask again within the time of a test.
const RETRANSMIT: &str = "600000";

#[test]
fn who_comes_to_an_address_that_is_asked_for_is_found() -> anyhow::Result<()> {
    let node = Dual::start(2, "native", &[("sticky.health.interval", "1s")])?;
    for family in ["ipv4", "ipv6"] {
        node.net.node.sysctl(&format!("net.{family}.neigh.eth2.retrans_time_ms"), RETRANSMIT)?;
    }
    let addresses = BOTH.map(|family| (family, node.file.addresses[family as usize * 2]));
    let prefix = |address: &std::net::IpAddr| if address.is_ipv4() { 25 } else { 64 };
    for (_, address) in &addresses {
        node.backends.ip(&format!("addr del {address}/{} dev eth0", prefix(address)))?;
    }
    // What leaves a bridge with its last container.
    node.net.node.ip("neigh flush dev eth2")?;
    for (family, _) in &addresses {
        node.sticky.wait_up(family.service(), 1, Duration::from_secs(15))?;
    }
    for (_, address) in &addresses {
        let prefix = prefix(address);
        node.backends.ip(&format!("addr add {address}/{prefix} dev eth0 nodad"))?;
    }
    for (family, _) in &addresses {
        node.sticky.wait_up(family.service(), 2, Duration::from_secs(15))?;
    }
    Ok(())
}
