//! What drivers say of XDP: the kernel's `netdev` family of generic netlink (Documentation/netlink/specs/netdev.yaml, 6.3).

use std::collections::HashMap;

use futures_util::StreamExt;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    ParseableParametrized, parse_u32, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// NETDEV_CMD_DEV_GET.
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// NETDEV_XDP_ACT_BASIC: XDP_PASS, XDP_DROP, XDP_ABORTED and XDP_TX in the driver.
const BASIC: u64 = 1;

/// What one driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    index: u32,
    bits: u64,
}

impl Features {
    pub fn native(self) -> bool {
        self.bits & BASIC != 0
    }
}

impl GenlFamily for Features {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn version(&self) -> u8 {
        1
    }

    fn command(&self) -> u8 {
        DEV_GET
    }
}

impl Features {
    /// The only attribute of a question.
    fn asked(&self) -> DefaultNla {
        DefaultNla::new(IFINDEX, self.index.to_ne_bytes().to_vec())
    }
}

impl Emitable for Features {
    fn buffer_len(&self) -> usize {
        self.asked().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.asked().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Features {
    fn parse_with_param(payload: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for attribute in NlasIterator::new(payload) {
            let attribute = attribute?;
            match attribute.kind() {
                IFINDEX => found.index = parse_u32(attribute.value())?,
                XDP_FEATURES => found.bits = parse_u64(attribute.value())?,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// By interface; those are left out of which the kernel does not say. One question each: the kernel's answers to a
/// question about all are not marked as parts of one.
pub async fn xdp(interfaces: impl IntoIterator<Item = u32>) -> HashMap<u32, Features> {
    let mut all = HashMap::new();
    let Ok((connection, mut handle, _)) = genetlink::new_connection() else { return all };
    let connection = tokio::spawn(connection);
    for index in interfaces {
        let mut question =
            NetlinkMessage::from(GenlMessage::from_payload(Features { index, bits: 0 }));
        question.header.flags = NLM_F_REQUEST;
        let Ok(mut answers) = handle.request(question).await else { break };
        if let Some(Ok(answer)) = answers.next().await
            && let NetlinkPayload::InnerMessage(GenlMessage { payload, .. }) = answer.payload
        {
            all.insert(index, payload);
        }
    }
    connection.abort();
    all
}
