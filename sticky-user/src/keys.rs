//! The key file: what keys the client hash, and what seals cookies.
//!
//! Lines `hash HEX` (one, 16 bytes) and `cookie HEX` (32 bytes, the first seals, all open), blank lines and `#` comments.
//! Key material is in no error, log or `Debug` output; only ids are.

mod cookie_key;
pub mod file;
mod nonce;

use std::fmt;

use sticky_common::hash::{self, HashKey};

pub use cookie_key::{CookieKey, Sealed};
pub use nonce::Nonces;

/// Bytes of a `hash` key.
const HASH_BYTES: usize = 16;
/// Bytes of a `cookie` key.
const COOKIE_BYTES: usize = 32;

/// The keys of one file.
pub struct Keys {
    /// Keys the client hash, the same on every node of a cluster and never changed: another one moves clients.
    pub hash: HashKey,
    /// At least one; the first seals.
    cookies: Vec<CookieKey>,
}

/// Keys in force, replaced when their file changes.
pub type Shared = arc_swap::ArcSwap<Keys>;

/// Names a key without revealing anything of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; KeyId::BYTES]);

impl KeyId {
    /// Bytes of an id.
    pub const BYTES: usize = 4;
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("there is no `{0}` line; `sticky keys generate` prints a whole file")]
    Missing(&'static str),
}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandom(#[from] getrandom::Error);

impl Keys {
    /// Reads a key file.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut hash = None;
        let mut cookies: Vec<CookieKey> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let error = |what: String| KeyError::Line { line: at + 1, what };
            let content = line.split('#').next().unwrap_or_default();
            let mut words = content.split_ascii_whitespace();
            let Some(kind) = words.next() else { continue };
            let (Some(digits), None) = (words.next(), words.next()) else {
                return Err(error(
                    "expected two words, `hash` or `cookie` and hex digits".to_owned(),
                ));
            };
            match kind {
                "hash" if hash.is_some() => {
                    return Err(error(
                        "a second `hash` line; a cluster has one hash key".to_owned(),
                    ));
                }
                "hash" => {
                    hash = Some(HashKey::from_bytes(
                        bytes::<HASH_BYTES>(kind, digits).map_err(error)?,
                    ));
                }
                "cookie" => {
                    let key = CookieKey::new(bytes::<COOKIE_BYTES>(kind, digits).map_err(error)?);
                    if cookies.iter().any(|other| other.id() == key.id()) {
                        return Err(error("this cookie key is in the file twice".to_owned()));
                    }
                    cookies.push(key);
                }
                _ => {
                    return Err(error("the first word must be `hash` or `cookie`".to_owned()));
                }
            }
        }
        let hash = hash.ok_or(KeyError::Missing("hash"))?;
        if cookies.is_empty() {
            return Err(KeyError::Missing("cookie"));
        }
        Ok(Self { hash, cookies })
    }

    /// New keys that nobody else has.
    pub fn random() -> Result<Self, NoRandom> {
        let cookie = CookieKey::new(random::<COOKIE_BYTES>()?);
        Ok(Self { hash: HashKey::from_bytes(random()?), cookies: vec![cookie] })
    }

    /// The key that seals.
    #[must_use]
    pub fn sealing(&self) -> &CookieKey {
        self.cookies.first().expect("both constructors refuse an empty list")
    }

    /// The key with this id.
    #[must_use]
    pub fn opening(&self, id: KeyId) -> Option<&CookieKey> {
        self.cookies.iter().find(|key| key.id() == id)
    }

    /// Id of the hash key.
    #[must_use]
    pub const fn hash_id(&self) -> KeyId {
        let [a, b, c, d, ..] =
            hash::client_v6(self.hash.keyed(), *b"id of a hash key").to_be_bytes();
        KeyId([a, b, c, d])
    }

    /// Ids of the cookie keys in the order of the file.
    pub fn cookie_ids(&self) -> impl Iterator<Item = KeyId> {
        self.cookies.iter().map(CookieKey::id)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("hash", &self.hash_id())
            .field("cookies", &self.cookies)
            .finish()
    }
}

/// A whole key file with new keys.
pub fn generate() -> Result<String, NoRandom> {
    let hash = hex::encode(random::<HASH_BYTES>()?);
    Ok(format!(
        "# Keys of sticky: the same file on every node of a cluster, readable by nobody else.\nhash {hash}\n{}",
        cookie_line()?
    ))
}

/// The text with a new `cookie` line before the others.
fn rotated(text: &str) -> Result<String, NoRandom> {
    let line = cookie_line()?;
    let at = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        })
        .find(|(_, line)| line.split_ascii_whitespace().next() == Some("cookie"))
        .map_or(text.len(), |(start, _)| start);
    let (before, after) = text.split_at(at);
    Ok(format!("{before}{line}{after}"))
}

fn cookie_line() -> Result<String, NoRandom> {
    Ok(format!("cookie {}\n", hex::encode(random::<COOKIE_BYTES>()?)))
}

fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn bytes<const N: usize>(kind: &str, digits: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|error| match error {
        hex::FromHexError::InvalidHexCharacter { index, .. } => {
            format!("digit {} of the {kind} key is not a hex digit", index + 1)
        }
        _ => format!("the {kind} key has {} hex digits, it needs {}", digits.len(), 2 * N),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_file_is_read_back() {
        let text = generate().unwrap();
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(keys.cookie_ids().count(), 1);
        assert_eq!(keys.hash_id(), Keys::parse(&text).unwrap().hash_id());
        assert_ne!(keys.hash_id(), Keys::parse(&generate().unwrap()).unwrap().hash_id());
    }

    #[test]
    fn mistakes_name_their_line_and_no_key() {
        let key = "ab".repeat(32);
        let hash = "cd".repeat(16);
        let cases = [
            (
                format!("hash {hash}\n\n# note\ncookie {}", &key[1..]),
                "line 4: the cookie key has 63 hex digits, it needs 64",
            ),
            (
                format!("hash {}\ncookie {key}", hash.replacen('c', "x", 1)),
                "line 1: digit 1 of the hash key is not a hex digit",
            ),
            (
                format!("hash {hash}\nhash {hash}\ncookie {key}"),
                "line 2: a second `hash` line; a cluster has one hash key",
            ),
            (
                format!("hash {hash}\ncookie {key}\ncookie {key}"),
                "line 3: this cookie key is in the file twice",
            ),
            (
                format!("hash {hash}\ncookie"),
                "line 2: expected two words, `hash` or `cookie` and hex digits",
            ),
            (
                format!("hash {hash}\ncokie {key}"),
                "line 2: the first word must be `hash` or `cookie`",
            ),
            (
                format!("hash {hash}"),
                "there is no `cookie` line; `sticky keys generate` prints a whole file",
            ),
            (
                format!("cookie {key}"),
                "there is no `hash` line; `sticky keys generate` prints a whole file",
            ),
        ];
        for (text, message) in cases {
            let error = Keys::parse(&text).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    #[test]
    fn rotation_puts_the_new_key_first_and_keeps_the_rest() {
        let text = format!("# mine\n{}", generate().unwrap());
        let old = Keys::parse(&text).unwrap();
        let next = rotated(&text).unwrap();
        let new = Keys::parse(&next).unwrap();
        assert!(next.starts_with("# mine\n"));
        assert_eq!(new.hash_id(), old.hash_id());
        assert_eq!(new.cookie_ids().nth(1), old.cookie_ids().next());
        assert_ne!(new.sealing().id(), old.sealing().id());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = generate().unwrap();
        let shown = format!("{:?}", Keys::parse(&text).unwrap());
        let digits = text.lines().filter_map(|l| l.split(' ').nth(1)).filter(|d| d.len() > 20);
        for secret in digits {
            assert!(!shown.contains(&secret[..8]), "{shown}");
        }
    }
}
