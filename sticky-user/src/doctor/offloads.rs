//! What `ethtool` shows of a link.

use std::collections::HashSet;

use ethtool::{EthtoolAttr, EthtoolChannelAttr, EthtoolFeatureAttr};
use futures_util::StreamExt;

/// Features that are on, and receive queues.
#[derive(Debug, Default)]
pub struct Offloads {
    active: HashSet<String>,
    /// `None`: the driver does not say.
    pub queues: Option<u32>,
}

impl Offloads {
    pub fn on(&self, feature: &str) -> bool {
        self.active.contains(feature)
    }
}

/// Asks the kernel. `None`: it has no netlink for ethtool, or no such link.
pub async fn read(name: &str) -> Option<Offloads> {
    let (connection, mut handle, _) = ethtool::new_connection().ok()?;
    let connection = tokio::spawn(connection);
    let mut found = Offloads::default();
    let mut features = handle.feature().get(Some(name)).execute().await.ok()?;
    while let Some(Ok(message)) = features.next().await {
        for attribute in message.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                found.active.extend(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name));
            }
        }
    }
    drop(features);
    if let Ok(mut channels) = handle.channel().get(Some(name)).execute().await {
        let (mut combined, mut receive) = (0, 0);
        while let Some(Ok(message)) = channels.next().await {
            for attribute in message.payload.nlas {
                match attribute {
                    EthtoolAttr::Channel(EthtoolChannelAttr::CombinedCount(count)) => {
                        combined = count
                    }
                    EthtoolAttr::Channel(EthtoolChannelAttr::RxCount(count)) => receive = count,
                    _ => {}
                }
            }
        }
        found.queues = Some(combined + receive).filter(|queues| *queues > 0);
    }
    connection.abort();
    Some(found)
}
