//! Affinity by a header that the application issues (`sticky.header`): its value carries our sealed part, which the
//! application never sees.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::seal::{self, Attributes, Pin};
use crate::keys::{Keys, NoRandom, Nonces};

/// Stands between the application's part and ours.
const SEPARATOR: char = '.';

/// A value as it came: the application's part, and what ours says.
pub(super) struct Tag {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub pin: Pin,
    /// Our part, to give the client the same again.
    sealed: String,
}

impl Tag {
    /// The tag of a request; `None` if the header is not there, or not with a part of ours.
    pub(super) fn read(headers: &HeaderMap, name: &HeaderName, keys: &Keys) -> Option<Self> {
        let (value, sealed) = headers.get(name)?.to_str().ok()?.rsplit_once(SEPARATOR)?;
        let pin = seal::open(keys, name.as_str(), sealed.as_bytes(), 0).ok()?;
        Some(Self {
            name: name.clone(),
            value: HeaderValue::from_str(value).ok()?,
            pin,
            sealed: sealed.to_owned(),
        })
    }
}

/// Appends our part to what the application issues; nothing if it issues nothing.
pub(super) fn write(
    headers: &mut HeaderMap,
    name: &HeaderName,
    known: Option<&Tag>,
    (service, task): (u64, &str),
    (keys, nonces): (&Keys, &Nonces),
) -> Result<(), NoRandom> {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let again = known.filter(|tag| {
        tag.name == *name
            && tag.value == value
            && tag.pin.task == task
            && tag.pin.service == service
    });
    let sealed = match again {
        Some(tag) => tag.sealed.clone(),
        None => {
            seal::seal(keys, nonces, name.as_str(), (service, task), &Attributes::default())?.text()
        }
    };
    if let Ok(tagged) = HeaderValue::try_from(format!("{value}{SEPARATOR}{sealed}")) {
        headers.insert(name.clone(), tagged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let (keys, nonces) = (Keys::random().unwrap(), Nonces::default());
        let sealing = (&keys, &nonces);
        let name = HeaderName::from_static("mcp-session-id");
        let mut headers = HeaderMap::new();
        write(&mut headers, &name, None, (7, "task"), sealing).unwrap();
        assert!(headers.is_empty());
        headers.insert(&name, HeaderValue::from_static("a.b"));
        write(&mut headers, &name, None, (7, "task"), sealing).unwrap();
        let tag = Tag::read(&headers, &name, &keys).unwrap();
        assert_eq!((tag.value.to_str().unwrap(), tag.pin.task.as_str()), ("a.b", "task"));
        let first = headers.get(&name).cloned();
        headers.insert(&name, HeaderValue::from_static("a.b"));
        write(&mut headers, &name, Some(&tag), (7, "task"), sealing).unwrap();
        assert_eq!(headers.get(&name).cloned(), first, "the client's value does not change");
        headers.insert(&name, HeaderValue::from_static("a.b"));
        assert!(Tag::read(&headers, &name, &keys).is_none());
        assert!(Tag::read(&headers, &name, &Keys::random().unwrap()).is_none());
    }
}
