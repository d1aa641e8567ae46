//! Sessions in memory, and the cookie that names them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cookie::time::{Duration, OffsetDateTime};
use cookie::{Cookie, CookieBuilder};

/// Name of the session cookie.
pub const COOKIE: &str = "session";

/// The sessions that this instance has seen.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, Session>>);

#[derive(Debug, Default)]
struct Session {
    created_here: bool,
    hits: u64,
}

/// What a request's session looks like from this instance.
#[derive(Debug)]
pub struct Visit {
    /// Its number, which is the cookie's value.
    pub id: String,
    /// Whether this instance created it, in this request or before: a request that finds `false` has lost its session.
    pub known: bool,
    /// Requests of the session seen here, this one included.
    pub hits: u64,
    /// The `Set-Cookie` to send: with Path, Expires and Max-Age when the session is new, bare otherwise.
    pub set_cookie: String,
}

impl Sessions {
    /// Counts a request that came with the `Cookie` headers `received`.
    pub fn visit<'a>(&self, received: impl Iterator<Item = &'a str>) -> Visit {
        let sent = received
            .flat_map(Cookie::split_parse)
            .filter_map(Result::ok)
            .find(|cookie| cookie.name() == COOKIE)
            .map(|cookie| cookie.value().to_owned());
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, set_cookie) = match sent {
            Some(id) => {
                let bare = Cookie::new(COOKIE, id.clone()).to_string();
                (id, bare)
            }
            None => {
                let id = fresh(&sessions);
                sessions.insert(id.clone(), Session { created_here: true, hits: 0 });
                let cookie = lasting(&id).build().to_string();
                (id, cookie)
            }
        };
        let session = sessions.entry(id.clone()).or_default();
        session.hits += 1;
        Visit { id, known: session.created_here, hits: session.hits, set_cookie }
    }

    /// Sessions created by this instance.
    pub fn created(&self) -> usize {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().filter(|session| session.created_here).count()
    }
}

/// The time in nanoseconds since 1970, as docker-demo numbers its sessions; the next free number if two fall together.
fn fresh(sessions: &HashMap<String, Session>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut id = now;
    while sessions.contains_key(&id.to_string()) {
        id += 1;
    }
    id.to_string()
}

fn lasting(id: &str) -> CookieBuilder<'_> {
    Cookie::build((COOKIE, id))
        .path("/")
        .expires(OffsetDateTime::now_utc() + Duration::DAY)
        .max_age(Duration::DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_session_has_attributes_and_a_known_one_is_sent_bare() {
        let sessions = Sessions::default();
        let first = sessions.visit(std::iter::empty());
        assert!(first.known);
        assert!(
            first.set_cookie.contains("; Path=/; Max-Age=86400; Expires="),
            "{}",
            first.set_cookie
        );
        let header = format!("a=b; session={}", first.id);
        let again = sessions.visit([header.as_str()].into_iter());
        assert_eq!((again.known, again.hits), (true, 2));
        assert_eq!(again.set_cookie, format!("session={}", first.id));
    }

    #[test]
    fn a_session_of_another_instance_is_not_known() {
        let sessions = Sessions::default();
        assert!(!sessions.visit(["session=1510171444496686286"].into_iter()).known);
        assert!(!sessions.visit(["session=1510171444496686286"].into_iter()).known);
        assert_eq!(sessions.created(), 0);
    }
}
