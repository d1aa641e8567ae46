//! The value of our cookie: sealed, so that it can be neither read nor made, and spelled in one way only.
//!
//! `base64url(key id · nonce · sealed text · tag)` without padding. Sealed: version, flags, service, lifetime, task, path
//! and domain. The cookie's name is bound to it, the service is checked by who opens it.

use base64_simd::{Out, URL_SAFE_NO_PAD};
use bytes::BytesMut;
use cookie::SameSite;

use crate::keys::{KeyId, Keys, NoRandom, Nonces, Sealed};

const VERSION: u8 = 2;
/// Longer than any that a browser keeps (RFC 6265, section 6.1).
const MAX_LEN: usize = 4096;

/// Where a client belongs, and how the application's cookie was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Keyed hash of the service's id.
    pub service: u64,
    /// Id of the backend.
    pub task: String,
    pub attributes: Attributes,
}

/// Attributes of a cookie (RFC 6265bis, section 4.1.2), as they are repeated when a client moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Empty: not given.
    pub path: String,
    /// Empty: not given.
    pub domain: String,
    pub secure: bool,
    pub http_only: bool,
    pub partitioned: bool,
    pub same_site: Option<SameSite>,
    pub lifetime: Lifetime,
}

/// When a cookie ends, in seconds since 1970, by each attribute that can say so; a session cookie has neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    pub max_age: Option<u64>,
    pub expires: Option<u64>,
}

impl Lifetime {
    /// What a browser goes by: Max-Age has precedence over Expires (RFC 6265, section 4.1.2.2).
    #[must_use]
    pub fn until(self) -> Option<u64> {
        self.max_age.or(self.expires)
    }
}

/// Why a cookie counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Sealed by us, past its time.
    Expired,
    /// Anything else.
    Invalid,
}

/// The value for a cookie of this name that says what a [`Pin`] of these does.
pub fn seal(
    keys: &Keys,
    nonces: &Nonces,
    name: &str,
    (service, task): (u64, &str),
    attributes: &Attributes,
) -> Result<Value, NoRandom> {
    let text = |out: &mut Sealed| encode(service, task, attributes, out);
    Ok(Value(keys.sealing().seal(nonces, name.as_bytes(), text)?))
}

/// A value before it is spelled.
pub struct Value(Sealed);

impl Value {
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode_to_string(&self.0)
    }

    /// Writes it behind what is there.
    pub(super) fn append(&self, out: &mut BytesMut) {
        let at = out.len();
        out.resize(at + URL_SAFE_NO_PAD.encoded_length(self.0.len()), 0);
        // What it returns is where it has written.
        let _ = URL_SAFE_NO_PAD.encode(&self.0, Out::from_slice(out.split_at_mut(at).1));
    }
}

/// What a cookie of this name says; `now` in seconds since 1970.
pub fn open(keys: &Keys, name: &str, value: &[u8], now: u64) -> Result<Pin, Bad> {
    if value.len() > MAX_LEN {
        return Err(Bad::Invalid);
    }
    let bytes = URL_SAFE_NO_PAD.decode_to_vec(value).map_err(|_| Bad::Invalid)?;
    let (id, sealed) = bytes.split_first_chunk::<{ KeyId::BYTES }>().ok_or(Bad::Invalid)?;
    // An id that is not ours costs as much as one that is, so that the time tells nothing.
    let key = keys.opening(KeyId(*id));
    let text = key.unwrap_or(keys.sealing()).open(name.as_bytes(), sealed);
    let pin = key.and(text).and_then(|text| decode(&text)).ok_or(Bad::Invalid)?;
    if pin.is_over(now) { Err(Bad::Expired) } else { Ok(pin) }
}

impl Pin {
    /// Whether its lifetime has passed; `now` in seconds since 1970.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.attributes.lifetime.until().is_some_and(|until| until <= now)
    }
}

/// Whether a value names one of our keys: it is ours, whatever has become of it since.
#[must_use]
pub fn is_ours(keys: &Keys, value: &[u8]) -> bool {
    // Eight digits are six bytes, of which the id is the first four.
    let mut bytes = [0; 6];
    let digits = value.first_chunk::<8>();
    let read =
        digits.is_some_and(|d| URL_SAFE_NO_PAD.decode(d, Out::from_slice(&mut bytes)).is_ok());
    let [a, b, c, d, ..] = bytes;
    read && keys.opening(KeyId([a, b, c, d])).is_some()
}

const SECURE: u8 = 1;
const HTTP_ONLY: u8 = 1 << 1;
const PARTITIONED: u8 = 1 << 2;
const SAME_SITE: u8 = 3;
const MAX_AGE: u8 = 1 << 5;
const EXPIRES: u8 = 1 << 6;

fn encode(service: u64, task: &str, a: &Attributes, text: &mut Sealed) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let same_site = match a.same_site {
        None => 0,
        Some(SameSite::Lax) => 1,
        Some(SameSite::Strict) => 2,
        Some(SameSite::None) => 3,
    };
    let flags = flag(a.secure, SECURE)
        | flag(a.http_only, HTTP_ONLY)
        | flag(a.partitioned, PARTITIONED)
        | same_site << SAME_SITE
        | flag(a.lifetime.max_age.is_some(), MAX_AGE)
        | flag(a.lifetime.expires.is_some(), EXPIRES);
    text.extend_from_slice(&[VERSION, flags]);
    text.extend_from_slice(&service.to_be_bytes());
    for until in [a.lifetime.max_age, a.lifetime.expires].into_iter().flatten() {
        text.extend_from_slice(&until.to_be_bytes());
    }
    for part in [task, &a.path, &a.domain] {
        // What is longer than a header can be is cut; it does not open then.
        text.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
}

fn decode(text: &[u8]) -> Option<Pin> {
    let (&[version, flags], rest) = text.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let (service, mut rest) = rest.split_first_chunk()?;
    let mut lifetime = Lifetime::default();
    for (flag, place) in [(MAX_AGE, &mut lifetime.max_age), (EXPIRES, &mut lifetime.expires)] {
        if flags & flag != 0 {
            let (until, after) = rest.split_first_chunk()?;
            rest = after;
            *place = Some(u64::from_be_bytes(*until));
        }
    }
    let mut part = || {
        let (len, after) = rest.split_first_chunk()?;
        let (part, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        rest = after;
        String::from_utf8(part.to_vec()).ok()
    };
    let (task, path, domain) = (part()?, part()?, part()?);
    let same_site = match flags >> SAME_SITE & 3 {
        0 => None,
        1 => Some(SameSite::Lax),
        2 => Some(SameSite::Strict),
        _ => Some(SameSite::None),
    };
    rest.is_empty().then(|| Pin {
        service: u64::from_be_bytes(*service),
        task,
        attributes: Attributes {
            path,
            domain,
            secure: flags & SECURE != 0,
            http_only: flags & HTTP_ONLY != 0,
            partitioned: flags & PARTITIONED != 0,
            same_site,
            lifetime,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "sticky_lb";
    const NOW: u64 = 1_800_000_000;

    fn keys() -> Keys {
        Keys::random().unwrap()
    }

    fn pin(until: Option<u64>) -> Pin {
        Pin {
            service: 7,
            task: "kpf4jxw2m0qjv5x1c3d8n9b6a".to_owned(),
            attributes: Attributes {
                path: "/".to_owned(),
                domain: "demo.example.com".to_owned(),
                secure: true,
                http_only: true,
                partitioned: true,
                same_site: Some(SameSite::None),
                lifetime: Lifetime { max_age: until, expires: until },
            },
        }
    }

    fn seal(keys: &Keys, name: &str, pin: &Pin) -> Result<String, NoRandom> {
        let place = (pin.service, &*pin.task);
        let value = super::seal(keys, &Nonces::default(), name, place, &pin.attributes)?;
        let mut appended = BytesMut::from("before ");
        value.append(&mut appended);
        assert_eq!(appended, format!("before {}", value.text()));
        Ok(value.text())
    }

    #[test]
    fn opens_what_it_sealed_and_differs_each_time() {
        let keys = keys();
        let (a, b) =
            (seal(&keys, NAME, &pin(None)).unwrap(), seal(&keys, NAME, &pin(None)).unwrap());
        assert_ne!(a[8..], b[8..]);
        assert_eq!(open(&keys, NAME, a.as_bytes(), NOW), Ok(pin(None)));
        let long = seal(&keys, NAME, &pin(Some(NOW + 1))).unwrap();
        assert!(long.len() < 200, "{} characters", long.len());
        assert_eq!(open(&keys, NAME, long.as_bytes(), NOW), Ok(pin(Some(NOW + 1))));
        assert_eq!(open(&keys, NAME, long.as_bytes(), NOW + 1), Err(Bad::Expired));
    }

    #[test]
    fn rotated_keys_open_and_retired_ones_do_not() {
        let old = crate::keys::generate().unwrap();
        let cookie = |text: &str| text.lines().last().unwrap().to_owned();
        let new = crate::keys::generate().unwrap();
        let hash = old.lines().nth(1).unwrap();
        let both = format!("{hash}\n{}\n{}", cookie(&new), cookie(&old));
        let [old, both, new] = [&old, &both, &new].map(|text| Keys::parse(text).unwrap());
        let value = seal(&old, NAME, &pin(None)).unwrap();
        assert!(open(&both, NAME, value.as_bytes(), NOW).is_ok());
        assert_eq!(open(&new, NAME, value.as_bytes(), NOW), Err(Bad::Invalid));
        let value = seal(&both, NAME, &pin(None)).unwrap();
        assert!(open(&new, NAME, value.as_bytes(), NOW).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_invalid() {
        let keys = keys();
        let value = seal(&keys, NAME, &pin(Some(NOW + 9))).unwrap();
        for at in 0..value.len() {
            assert_eq!(open(&keys, NAME, &value.as_bytes()[..at], NOW), Err(Bad::Invalid));
            for bit in 0..8 {
                let mut bytes = value.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(open(&keys, NAME, &bytes, NOW), Err(Bad::Invalid), "{at} {bit}");
            }
        }
    }

    #[test]
    fn another_name_or_spelling_is_invalid() {
        let keys = keys();
        let value = seal(&keys, NAME, &pin(None)).unwrap();
        assert_eq!(open(&keys, "sticky_lb_aabbcc", value.as_bytes(), NOW), Err(Bad::Invalid));
        let mut spellings = vec![
            format!("{value}="),
            format!("{value}=="),
            format!("\"{value}\""),
            format!(" {value}"),
            format!("{value} "),
            format!("{value}A"),
            value.to_ascii_uppercase(),
            "A".repeat(8192),
            String::new(),
        ];
        if value.contains(['-', '_']) {
            spellings.push(value.replace('-', "+").replace('_', "/"));
        }
        for other in spellings {
            assert_eq!(open(&keys, NAME, other.as_bytes(), NOW), Err(Bad::Invalid), "{other}");
        }
    }

    proptest! {
        #[test]
        fn anything_goes_through(
            service: u64, task in ".{0,40}", path in "/[a-z]{0,30}", domain in "[a-z.]{0,30}",
            secure: bool, http_only: bool, partitioned: bool, max_age: Option<u64>, expires: Option<u64>,
        ) {
            let lifetime = Lifetime { max_age, expires };
            let attributes =
                Attributes { path, domain, secure, http_only, partitioned, same_site: None, lifetime };
            let pin = Pin { service, task, attributes };
            let mut text = Sealed::new();
            encode(pin.service, &pin.task, &pin.attributes, &mut text);
            prop_assert_eq!(decode(&text), Some(pin));
        }

        #[test]
        fn noise_is_invalid(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let keys = keys();
            prop_assert_eq!(open(&keys, NAME, &noise, NOW), Err(Bad::Invalid));
            let mut bytes = keys.sealing().id().0.to_vec();
            bytes.extend(&noise);
            let value = URL_SAFE_NO_PAD.encode_to_string(bytes);
            prop_assert_eq!(open(&keys, NAME, value.as_bytes(), NOW), Err(Bad::Invalid));
        }
    }
}
