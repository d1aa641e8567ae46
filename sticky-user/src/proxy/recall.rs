//! The cookies that a connection brought last, and what they say. Clients send the same with each request, and to know them
//! again takes a tenth of what reading them does.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use http::HeaderValue;
use subtle::ConstantTimeEq;

use super::headers::owned;
use super::presented::Cookies;
use super::routes::Route;
use crate::keys::Keys;

/// Of one connection.
#[derive(Default)]
pub(super) struct Recall(RefCell<Option<Known>>);

struct Known {
    line: HeaderValue,
    /// What they were read by; they count for these keys and this route only.
    keys: Arc<Keys>,
    route: Weak<Route>,
    cookies: Rc<Cookies>,
}

impl Recall {
    /// What a line of cookies says by these keys on this route, which is asked for where that is not known.
    pub(super) fn cookies(
        &self,
        line: &HeaderValue,
        keys: &Arc<Keys>,
        route: &Arc<Route>,
        now: u64,
        read: impl FnOnce() -> Cookies,
    ) -> Rc<Cookies> {
        let mut last = self.0.borrow_mut();
        if let Some(known) = &*last
            && Arc::ptr_eq(&known.keys, keys)
            && known.route.as_ptr() == Arc::as_ptr(route)
            && !known.cookies.pin.as_ref().is_some_and(|pin| pin.is_over(now))
            && same(known.line.as_bytes(), line.as_bytes())
        {
            return known.cookies.clone();
        }
        let cookies = Rc::new(read());
        // What is wrong now may be told as something else later.
        if cookies.bad.is_none() {
            let (line, keys, route) = (owned(line), keys.clone(), Arc::downgrade(route));
            *last = Some(Known { line, keys, route, cookies: cookies.clone() });
        }
        cookies
    }
}

/// Whether they are the same. Clients may share a connection behind a proxy: the time must not tell one about another's
/// cookies.
fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks(), b.as_chunks());
    let words = a_words
        .iter()
        .zip(b_words)
        .fold(0, |all, (a, b)| all | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)));
    let rest = a_rest.iter().zip(b_rest).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && bool::from((words | u64::from(rest)).ct_eq(&0))
}

#[cfg(test)]
mod tests {
    use super::super::seal::{Attributes, Bad, Lifetime, Pin};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn says(task: &str) -> Cookies {
        let lifetime = Lifetime { max_age: Some(NOW + 10), expires: None };
        let attributes = Attributes { lifetime, ..Attributes::default() };
        let pin = Pin { service: 7, task: task.to_owned(), attributes };
        Cookies { pin: Some(pin), ..Cookies::default() }
    }

    #[test]
    fn reads_again_whatever_is_not_the_same() {
        let keys = [(); 2].map(|()| Arc::new(Keys::random().unwrap()));
        let routes = [(); 2].map(|()| Arc::new(Route::default()));
        let recall = Recall::default();
        let ask = |line: &'static str, key: usize, route: usize, now, read: fn() -> Cookies| {
            let line = HeaderValue::from_static(line);
            recall.cookies(&line, &keys[key], &routes[route], now, read)
        };
        let task = |cookies: Rc<Cookies>| cookies.pin.as_ref().map(|pin| pin.task.clone());
        let never = || -> Cookies { panic!("it is known") };
        for _ in 0..2 {
            for (line, key, route) in [
                ("own=a; b=2", 0, 0),
                ("own=a; b=3", 0, 0),
                ("own=a; b=3", 1, 0),
                ("own=a; b=3", 1, 1),
            ] {
                assert_eq!(task(ask(line, key, route, NOW, || says("x"))).as_deref(), Some("x"));
                assert_eq!(task(ask(line, key, route, NOW + 9, never)).as_deref(), Some("x"));
            }
            assert_eq!(task(ask("own=a; b=3", 1, 1, NOW + 10, || says("y"))).as_deref(), Some("y"));
            // What is bad is read each time.
            for _ in 0..2 {
                let bad =
                    ask("own=z", 0, 0, NOW, || Cookies { bad: Some(Bad::Expired), ..says("z") });
                assert_eq!(bad.bad, Some(Bad::Expired));
            }
        }
    }

    #[test]
    fn same_is_equal() {
        let all = [
            &b""[..],
            b"a",
            b"b",
            b"12345678",
            b"12345679",
            b"12345678a",
            b"12345678b",
            b"2345678a",
        ];
        for a in all {
            for b in all {
                assert_eq!(same(a, b), a == b, "{a:?} {b:?}");
            }
        }
    }
}
