//! One reader for each kind of value. They are given the value without the blanks around it.

use std::time::Duration;

use ipnet::IpNet;

use super::names::nearest;

/// Why a value is not valid, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: String,
}

pub(super) fn wrong<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), hint: hint.into() })
}

pub(super) fn boolean(value: &str) -> Result<bool, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        "1" | "yes" | "on" | "y" | "t" => wrong("is neither true nor false", "write `true`"),
        "0" | "no" | "off" | "n" | "f" | "none" => {
            wrong("is neither true nor false", "write `false`")
        }
        other => match nearest(other, &["true", "false"]) {
            Some(meant) => wrong("is neither true nor false", format!("write `{meant}`")),
            None => wrong("is neither true nor false", "write `true` or `false`"),
        },
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, meant)) = words.iter().find(|(name, _)| *name == value) {
        return Ok(*meant);
    }
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let hint = match nearest(value, &names) {
        Some(meant) => format!("write `{meant}`"),
        None => format!("write one of {list}"),
    };
    wrong(format!("is none of {list}"), hint)
}

/// A whole number in a range.
pub(super) fn number(value: &str, min: u32, max: u32) -> Result<u32, Wrong> {
    let range = || format!("write a whole number from {min} to {max}");
    match value.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) => wrong(format!("is not between {min} and {max}"), range()),
        Err(_) => wrong("is not a whole number", range()),
    }
}

pub(super) fn port(value: &str) -> Result<u16, Wrong> {
    match value.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => match value
            .split(['/', ':'])
            .find_map(|part| part.parse::<u16>().ok().filter(|p| *p != 0))
        {
            Some(inner) if value.contains(['/', ':']) => wrong(
                "is not a port number",
                format!("write only the container's port, such as `{inner}`"),
            ),
            _ => wrong("is not a port number", "write a number from 1 to 65535"),
        },
    }
}

/// The longest duration a label may give.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// `30s`, `1h30m`, `500ms`; `0` needs no unit.
pub(super) fn duration(value: &str) -> Result<Duration, Wrong> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    if value.parse::<f64>().is_ok() {
        return wrong(
            "is a duration without a unit",
            format!("write `{value}s` for seconds, or use ms, m, h"),
        );
    }
    match humantime::parse_duration(value) {
        Ok(duration) if duration <= YEAR => Ok(duration),
        Ok(_) => wrong("is longer than a year", "write a shorter duration"),
        Err(_) => wrong(
            "is not a duration",
            "write a number with its unit, such as `30s`, `5m` or `1h30m`",
        ),
    }
}

/// A duration that is not zero.
pub(super) fn span(value: &str) -> Result<Duration, Wrong> {
    match duration(value)? {
        Duration::ZERO => wrong("must be longer than zero", "write a duration such as `2s`"),
        span => Ok(span),
    }
}

/// Things with commas between them; empty ones (a comma too many) do not count, but there must be one.
pub(super) fn list<T>(
    value: &str,
    item: impl Fn(&str) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let items: Vec<T> = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            item(part)
                .map_err(|wrong| Wrong { message: format!("`{part}` {}", wrong.message), ..wrong })
        })
        .collect::<Result<_, _>>()?;
    if items.is_empty() {
        return wrong("is empty", "write at least one, or take the label away");
    }
    Ok(items)
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(value: &str) -> Result<IpNet, Wrong> {
    if let Ok(network) = value.parse::<IpNet>() {
        return Ok(network.trunc());
    }
    match value.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => wrong(
            "is not a network",
            "write an address and a prefix, such as `10.0.0.0/8` or `2001:db8::/32`",
        ),
    }
}

/// A token of RFC 9110, section 5.6.2: cookie and header names.
pub(super) fn token(value: &str) -> Result<String, Wrong> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !value.is_empty() && value.chars().all(valid) {
        return Ok(value.to_owned());
    }
    let repaired: String = value.chars().filter(|c| valid(*c)).collect();
    let hint = if repaired.is_empty() {
        "write letters, digits, `-` and `_`".to_owned()
    } else {
        format!("write letters, digits, `-` and `_`, such as `{repaired}`")
    };
    wrong("is not a valid name", hint)
}

/// Anything that is not empty and has no blank in it.
pub(super) fn name(value: &str) -> Result<String, Wrong> {
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("is not a name", "write one name without blanks");
    }
    Ok(value.to_owned())
}

/// A path as a request has it.
pub(super) fn path(value: &str) -> Result<String, Wrong> {
    let valid = value.starts_with('/')
        && value.parse::<http::uri::PathAndQuery>().is_ok_and(|p| p.as_str() == value);
    if valid {
        return Ok(value.to_owned());
    }
    let hint = match value.find('/') {
        _ if value.starts_with('/') => "write a path without blanks, such as `/healthz`".to_owned(),
        Some(_) if value.contains("://") => "write only the path, such as `/healthz`".to_owned(),
        _ => format!("write `/{}`", value.trim()),
    };
    wrong("is not a path", hint)
}
