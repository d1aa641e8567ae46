//! Values that say which requests are for a service.

use super::value::{Wrong, list, path, wrong};
use crate::model::{HostPattern, Redirect};

pub(super) fn hosts(value: &str) -> Result<Vec<HostPattern>, Wrong> {
    let mut hosts = list(value, host_pattern)?;
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    Ok(hosts)
}

fn host_pattern(value: &str) -> Result<HostPattern, Wrong> {
    match value.strip_prefix("*.") {
        Some(domain) => Ok(HostPattern::Wildcard(host(domain)?)),
        None if value == "*" => wrong(
            "is not a host name",
            "for every other host set com.docker.lb.default_backend=true",
        ),
        None => Ok(HostPattern::Exact(host(value)?)),
    }
}

/// A host name in lower case (RFC 1123, and `_`, which is common), without the dot at its end.
fn host(value: &str) -> Result<String, Wrong> {
    let bare = value.split_once("://").map_or(value, |(_, rest)| rest);
    let bare = bare.split(['/', ':']).next().unwrap_or_default();
    if bare != value {
        return wrong(
            "is more than a host name",
            format!("write `{bare}`, without scheme, port and path"),
        );
    }
    if !value.is_ascii() {
        return wrong("is not an ASCII host name", "write its `xn--` form");
    }
    let name = value.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return wrong(
            "is not a host name",
            "write names such as `shop.example.com` or `*.example.com`",
        );
    }
    Ok(name)
}

/// A path prefix without a slash at its end; `None` is every path.
pub(super) fn context_root(value: &str) -> Result<Option<String>, Wrong> {
    let root = path(value)?;
    let trimmed = root.trim_end_matches('/');
    if root.contains('?')
        || trimmed.contains("//")
        || trimmed.split('/').any(|s| s == "." || s == "..")
    {
        return wrong("is not a path prefix", "write a prefix such as `/app`");
    }
    Ok((!trimmed.is_empty()).then(|| trimmed.to_owned()))
}

pub(super) fn websocket_endpoints(value: &str) -> Result<Vec<String>, Wrong> {
    list(value, path)
}

/// `source,target` pairs with semicolons between them.
pub(super) fn redirects(value: &str) -> Result<Vec<Redirect>, Wrong> {
    let pairs = value.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let redirects = pairs.map(redirect).collect::<Result<Vec<_>, _>>()?;
    if redirects.is_empty() {
        return wrong(
            "is empty",
            "write pairs such as `http://old.example.com,http://new.example.com`",
        );
    }
    Ok(redirects)
}

fn redirect(pair: &str) -> Result<Redirect, Wrong> {
    let Some((source, target)) = pair.split_once(',') else {
        return wrong(
            format!("`{pair}` is not a pair"),
            "write source and target with a comma between them, pairs with `;` between them",
        );
    };
    let (source, target) = (source.trim(), target.trim().trim_end_matches('/'));
    let bare = source.split_once("://").map_or(source, |(_, rest)| rest).trim_end_matches('/');
    let source = host(bare)
        .map_err(|wrong| Wrong { message: format!("`{source}` {}", wrong.message), ..wrong })?;
    let Ok(uri) = target.parse::<http::Uri>() else {
        return wrong(
            format!("`{target}` is not a URL"),
            "write a target such as `https://new.example.com`",
        );
    };
    let scheme = uri.scheme_str().unwrap_or_default();
    let Some(authority) = uri.authority().filter(|_| matches!(scheme, "http" | "https")) else {
        return wrong(
            format!("`{target}` has no scheme"),
            format!("write `http://{target}` or `https://{target}`"),
        );
    };
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/")
        || authority.as_str().contains('@')
    {
        return wrong(
            format!("`{target}` is more than a scheme and a host"),
            format!("write `{scheme}://{authority}`: path and query of the request are kept"),
        );
    }
    if authority.as_str().eq_ignore_ascii_case(&source) && authority.port().is_none() {
        // The scheme is not part of the source, so this would lead to itself.
        return wrong(
            format!("`{pair}` leads to itself"),
            "for https use com.docker.lb.ssl_only=true",
        );
    }
    Ok(Redirect { source, target: target.to_owned() })
}
