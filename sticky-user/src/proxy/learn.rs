//! What a response does to our cookie: mirror the application's, move with the client, or nothing.

use std::rc::Rc;

use bytes::BytesMut;
use cookie::time::OffsetDateTime;
use cookie::{Cookie, SameSite};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use smallvec::{SmallVec, smallvec};

use super::cookies;
use super::headers;
use super::lifetime;
use super::repeat::Repeats;
use super::seal::{self, Attributes, Pin};
use crate::model::{CookieAffinity, CookieMode};

/// What is known when a response comes.
pub(super) struct Situation<'a> {
    pub affinity: &'a CookieAffinity,
    /// Name of our cookie.
    pub own_name: &'a str,
    /// `Path` of a cookie we insert.
    pub root: &'a str,
    /// The pin that the request carried.
    pub pin: Option<&'a Pin>,
    /// The request went where the pin says.
    pub stayed: bool,
    /// Lines of cookies that the application was sent.
    pub sent: &'a [HeaderValue],
    pub https: bool,
    /// Seconds since 1970.
    pub now: u64,
    pub repeats: &'a Repeats,
}

/// A change of our cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set(Rc<Attributes>),
    Delete(Rc<Attributes>),
}

/// Most that make any make one.
pub(super) type Changes = SmallVec<[Change; 1]>;

/// The changes this response makes; none for most.
pub(super) fn changes(s: &Situation<'_>, response: &HeaderMap) -> Changes {
    let moved = s.pin.filter(|_| !s.stayed);
    let set = |attributes: Attributes| Change::Set(Rc::new(attributes));
    let repin = || moved.map(|pin| set(pin.attributes.clone())).into_iter().collect();
    let owns = |value: &HeaderValue| name(value) == s.own_name.as_bytes();
    match s.affinity.mode {
        CookieMode::Hash => Changes::new(),
        CookieMode::Learn if headers::get(response, &SET_COOKIE).is_none() => repin(),
        // An application that sets a cookie of our name has it for itself.
        _ if response.get_all(SET_COOKIE).iter().any(owns) => Changes::new(),
        CookieMode::Insert if s.pin.is_some() => repin(),
        CookieMode::Insert => smallvec![set(Attributes {
            path: if s.root.is_empty() { "/".to_owned() } else { s.root.to_owned() },
            http_only: true,
            same_site: Some(SameSite::Lax),
            secure: s.https,
            ..Attributes::default()
        })],
        CookieMode::Learn => {
            let mut mirrored = mirror(s, response);
            let sets = mirrored.iter().any(|change| matches!(change, Change::Set(_)));
            if mirrored.is_empty() {
                return repin();
            }
            let present = || cookies::present(s.sent, &s.affinity.names);
            if !sets && present() & !deleted(s, response) != 0 {
                // Another of the named cookies stays, and ours with it.
                mirrored = repin();
            }
            mirrored
        }
    }
}

fn mirror(s: &Situation<'_>, response: &HeaderMap) -> Changes {
    let mut changes = Changes::new();
    for value in response.get_all(SET_COOKIE) {
        if cookies::bit(&s.affinity.names, name(value)).is_none()
            || (bare(value) && s.pin.is_some())
        {
            continue;
        }
        let Some(change) = read(value, s) else { continue };
        // One change for each place a cookie can be in: the last set wins, and any set wins over a deletion.
        match changes.iter_mut().find(|other| other.place() == change.place()) {
            Some(Change::Set(_)) if matches!(change, Change::Delete(_)) => {}
            Some(other) => *other = change,
            None => changes.push(change),
        }
    }
    changes
}

/// Named cookies that the response takes away.
fn deleted(s: &Situation<'_>, response: &HeaderMap) -> u32 {
    response
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| matches!(read(value, s), Some(Change::Delete(_))))
        .filter_map(|value| cookies::bit(&s.affinity.names, name(value)))
        .fold(0, |all, bit| all | bit)
}

impl Change {
    fn place(&self) -> (&str, &str) {
        let (Self::Set(a) | Self::Delete(a)) = self;
        (&a.path, &a.domain)
    }

    /// Writes the header for it; without a value it is deleted.
    pub(super) fn write(
        &self,
        name: &str,
        value: Option<&seal::Value>,
        now: u64,
        repeats: &Repeats,
        out: &mut BytesMut,
    ) -> Option<()> {
        let attributes = repeats.written(self, now, || self.attributes(now))?;
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=");
        if let Some(value) = value {
            value.append(out);
        }
        out.extend_from_slice(attributes.as_bytes());
        Some(())
    }

    /// What stands behind the value.
    fn attributes(&self, now: u64) -> Option<String> {
        let (Self::Set(a) | Self::Delete(a)) = self;
        let mut cookie = Cookie::build(("", "")).secure(a.secure).build();
        if a.http_only {
            cookie.set_http_only(true);
        }
        cookie.set_same_site(a.same_site);
        if !a.path.is_empty() {
            cookie.set_path(a.path.as_str());
        }
        if !a.domain.is_empty() {
            cookie.set_domain(a.domain.as_str());
        }
        if let Self::Delete(_) = self {
            cookie.set_max_age(cookie::time::Duration::ZERO);
            cookie.set_expires(OffsetDateTime::UNIX_EPOCH);
        } else {
            if let Some(until) = a.lifetime.max_age {
                let left = i64::try_from(until.saturating_sub(now)).unwrap_or(i64::MAX);
                cookie.set_max_age(cookie::time::Duration::seconds(left));
            }
            if let Some(until) = a.lifetime.expires {
                let until = i64::try_from(until).ok()?;
                cookie.set_expires(OffsetDateTime::from_unix_timestamp(until).ok()?);
            }
        }
        let mut attributes = cookie.to_string().strip_prefix('=')?.to_owned();
        if a.partitioned {
            // By hand, for the crate adds a Secure that the application did not write.
            attributes.push_str("; Partitioned");
        }
        Some(attributes)
    }
}

/// What stands before the attributes of a `Set-Cookie`, and these.
fn split(value: &HeaderValue) -> (&[u8], &[u8]) {
    let bytes = value.as_bytes();
    bytes.split_at(bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len()))
}

/// Name of a `Set-Cookie`.
fn name(value: &HeaderValue) -> &[u8] {
    let (pair, _) = split(value);
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// Whether a `Set-Cookie` has no attributes at all.
fn bare(value: &HeaderValue) -> bool {
    let (_, attributes) = split(value);
    attributes.get(1..).is_none_or(|rest| rest.trim_ascii().is_empty())
}

/// A `Set-Cookie` as a change of ours; `None` if it is none that a browser takes.
fn read(value: &HeaderValue, s: &Situation<'_>) -> Option<Change> {
    let (pair, attributes) = split(value);
    if !pair.contains(&b'=') || name(value).is_empty() {
        return None;
    }
    s.repeats.read(attributes, s.now, || {
        // The attributes are ASCII, the application's value need not be.
        let line = String::from_utf8_lossy(value.as_bytes());
        let lifetime = lifetime::of(&line, s.now);
        let cookie = Cookie::parse(line).ok()?;
        let attributes = Rc::new(Attributes {
            path: cookie.path().unwrap_or_default().to_owned(),
            domain: cookie.domain().unwrap_or_default().to_owned(),
            secure: cookie.secure().unwrap_or(false),
            http_only: cookie.http_only().unwrap_or(false),
            partitioned: cookie.partitioned().unwrap_or(false),
            same_site: cookie.same_site(),
            lifetime,
        });
        Some(if lifetime.until().is_some_and(|until| until <= s.now) {
            Change::Delete(attributes)
        } else {
            Change::Set(attributes)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of a line's attributes says nothing of what stands before them.
    #[test]
    fn lines_with_the_same_attributes_are_read_each_for_itself() {
        let affinity = CookieAffinity {
            names: vec!["session".to_owned()],
            mode: CookieMode::Learn,
            own_name: None,
        };
        let repeats = Repeats::default();
        let situation = Situation {
            affinity: &affinity,
            own_name: "sticky_lb",
            root: "",
            pin: None,
            stayed: false,
            sent: &[],
            https: false,
            now: 1_800_000_000,
            repeats: &repeats,
        };
        let said = |line: &'static str| {
            let headers = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static(line))]);
            changes(&situation, &headers)
        };
        let first = said("session=1; Path=/a");
        assert!(matches!(first.as_slice(), [Change::Set(a)] if a.path == "/a"), "{first:?}");
        assert_eq!(said("session=2; Path=/a"), first);
        for none in ["session; Path=/a", "=1; Path=/a", "other=1; Path=/a"] {
            assert!(said(none).is_empty(), "{none}");
        }
        assert_ne!(said("session=1; Path=/b"), first);
        assert_eq!(said("session=1; Path=/a"), first);
    }
}
