//! What a request carries that a choice can go by; read once, whatever is tried.

use std::rc::Rc;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::cookies;
use super::reason::Reason;
use super::recall::Recall;
use super::routes::Route;
use super::seal::{self, Bad, Pin};
use super::service::Service;
use super::tag::Tag;
use crate::keys::Keys;
use crate::model::CookieMode;

#[derive(Default)]
pub(super) struct Presented {
    cookies: Option<Rc<Cookies>>,
    /// Of a header.
    pub tag: Option<Box<Tag>>,
}

/// What the cookies of a request say.
#[derive(Default)]
pub(super) struct Cookies {
    /// Of a cookie, and that cookie's name: with a Domain it may have begun on another host of the service.
    pub pin: Option<Pin>,
    pub own_name: Option<String>,
    pub bad: Option<Bad>,
    /// Some cookie is ours, whatever it says.
    pub sealed: bool,
    /// The lines without ours, which are between the client and us.
    pub rest: Vec<HeaderValue>,
}

/// Of a request without any.
static NO_COOKIES: Cookies =
    Cookies { pin: None, own_name: None, bad: None, sealed: false, rest: Vec::new() };

impl Presented {
    pub(super) fn read(
        headers: &HeaderMap,
        route: &Arc<Route>,
        keys: &Arc<Keys>,
        recall: &Recall,
        now: u64,
    ) -> Self {
        let tag = route.services.iter().find_map(|service| {
            let tag = Tag::read(headers, service.header.as_ref()?, keys)?;
            let is_here = |other: &&Arc<Service>| other.hash == tag.pin.service;
            route.services.iter().any(|other| is_here(&other)).then(|| Box::new(tag))
        });
        let mut lines = headers.get_all(COOKIE).iter();
        let cookies = match (lines.next(), lines.next()) {
            (None, _) => None,
            (Some(only), None) => {
                let read = || Cookies::read(headers, route, keys, now);
                Some(recall.cookies(only, keys, route, now, read))
            }
            _ => Some(Rc::new(Cookies::read(headers, route, keys, now))),
        };
        Self { cookies, tag }
    }

    pub(super) fn cookies(&self) -> &Cookies {
        self.cookies.as_deref().unwrap_or(&NO_COOKIES)
    }

    /// Takes our cookies off a request.
    pub(super) fn take_off(&self, headers: &mut HeaderMap) {
        let cookies = self.cookies();
        if !cookies.sealed {
            return;
        }
        match cookies.rest.split_first() {
            None => {
                headers.remove(COOKIE);
            }
            Some((first, more)) => {
                headers.insert(COOKIE, first.clone());
                for line in more {
                    headers.append(COOKIE, line.clone());
                }
            }
        }
    }

    /// The cookie comes before the header.
    pub(super) fn known(&self) -> Option<&Pin> {
        self.cookies().pin.as_ref().or(self.tag.as_ref().map(|tag| &tag.pin))
    }

    /// Reason of a new choice.
    pub(super) fn reason(&self) -> Reason {
        match (self.known(), self.cookies().bad) {
            (Some(_), _) => Reason::Repinned,
            (None, Some(Bad::Expired)) => Reason::Expired,
            (None, Some(Bad::Invalid)) => Reason::Invalid,
            (None, None) => Reason::New,
        }
    }
}

impl Cookies {
    fn read(headers: &HeaderMap, route: &Route, keys: &Keys, now: u64) -> Self {
        let ours =
            |name: &[u8], value: &[u8]| named(route, name).is_some() && seal::is_ours(keys, value);
        let sealed = cookies::pairs(headers.get_all(COOKIE)).any(|(name, value)| ours(name, value));
        // Copies: a value as it came would keep the buffer that the whole request was read into.
        let rest = cookies::without(headers, ours);
        Self { sealed, rest, ..Self::first(headers, route, keys, now) }
    }

    /// The first cookie of ours that opens for a service of this route, if it counts.
    fn first(headers: &HeaderMap, route: &Route, keys: &Keys, now: u64) -> Self {
        let mut found = Self::default();
        for (name, value) in cookies::pairs(headers.get_all(COOKIE)) {
            let Some(own) = named(route, name) else { continue };
            let bad = match seal::open(keys, own, value, now) {
                Ok(pin) => {
                    let is_its = |service: &&Arc<Service>| {
                        service.hash == pin.service && service.own_names.iter().any(|n| n == own)
                    };
                    let service = route.services.iter().find(is_its);
                    if let Some(cookie) = service.and_then(|service| service.cookie.as_ref()) {
                        // Alone it does not count: the application's session is over, or was never begun.
                        let counts = cookie.mode == CookieMode::Insert
                            || cookies::present(headers.get_all(COOKIE), &cookie.names) != 0;
                        found.own_name = counts.then(|| own.to_owned());
                        found.pin = counts.then_some(pin);
                        found.bad = None;
                        return found;
                    }
                    Bad::Invalid
                }
                Err(bad) => bad,
            };
            if bad == Bad::Expired || found.bad.is_none() {
                found.bad = Some(bad);
            }
        }
        found
    }
}

/// The name, if it is that of a cookie of ours on this route.
fn named<'r>(route: &'r Route, name: &[u8]) -> Option<&'r str> {
    let mut names = route.services.iter().flat_map(|service| &service.own_names);
    names.find(|own| own.as_bytes() == name).map(String::as_str)
}
