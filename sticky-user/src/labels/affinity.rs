//! Values that say which backend a client keeps.

use super::value::{Wrong, list, number, port, word, wrong};
use crate::model::{IpPrefix, Proto, Publish};

/// `32,64`: the bits of an IPv4 and of an IPv6 address that make one client.
pub(super) fn ip_prefix(value: &str) -> Result<IpPrefix, Wrong> {
    let Some((v4, v6)) = value.split_once(',') else {
        let v4 = value.parse::<u8>().ok().filter(|bits| (1..=32).contains(bits)).unwrap_or(32);
        return wrong(
            "is not two prefix lengths",
            format!("write both, IPv4 first, such as `{v4},64`"),
        );
    };
    let bits = |text: &str, max| {
        number(text.trim(), 1, max).map_err(|wrong| Wrong {
            message: format!("`{}` {}", text.trim(), wrong.message),
            ..wrong
        })
    };
    let (v4, v6) = (bits(v4, 32)?, bits(v6, 128)?);
    match (u8::try_from(v4), u8::try_from(v6)) {
        (Ok(v4), Ok(v6)) => Ok(IpPrefix { v4, v6 }),
        _ => wrong("is not two prefix lengths", "write such as `32,64`"),
    }
}

/// `8080/tcp,53/udp,443:8443/tcp`.
pub(super) fn listen(value: &str) -> Result<Vec<Publish>, Wrong> {
    list(value, publish)
}

/// `port/proto` or `port:target/proto`; TCP without one, as in Docker.
pub(crate) fn publish(value: &str) -> Result<Publish, Wrong> {
    let (ports, proto) = value.split_once('/').unwrap_or((value, "tcp"));
    let proto = word(proto.trim(), &[("tcp", Proto::Tcp), ("udp", Proto::Udp)])?;
    let (listen, target) = ports.split_once(':').unwrap_or((ports, ports));
    let form = |wrong: Wrong| Wrong {
        hint: "write `port/proto` or `port:target/proto`, such as `8080/tcp` or `443:8443/tcp`"
            .to_owned(),
        ..wrong
    };
    Ok(Publish {
        port: port(listen.trim()).map_err(form)?,
        target: port(target.trim()).map_err(form)?,
        proto,
    })
}
