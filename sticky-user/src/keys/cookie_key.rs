//! One cookie key: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose long nonce may be drawn at random.

use std::fmt;

use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use smallvec::SmallVec;

use super::nonce::{NONCE, Nonces};
use super::{COOKIE_BYTES, KeyId, NoRandom};

/// Bytes of a tag.
const TAG: usize = 16;

/// A sealed text: most have room on the stack.
pub type Sealed = SmallVec<[u8; 192]>;

/// Seals and opens cookies.
#[derive(Clone)]
pub struct CookieKey {
    id: KeyId,
    key: [u8; COOKIE_BYTES],
}

impl CookieKey {
    pub(super) fn new(key: [u8; COOKIE_BYTES]) -> Self {
        // Part of a tag under the all-zero nonce, which a random one never meets: as good as random to who lacks the key.
        let tag = encrypt(&key, &[0; NONCE], b"sticky key id", &mut []);
        let [a, b, c, d, ..] = tag;
        Self { id: KeyId([a, b, c, d]), key }
    }

    /// Its public name.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Key id, nonce and sealed text; `bound` must be the same to open it.
    pub fn seal(
        &self,
        nonces: &Nonces,
        bound: &[u8],
        text: impl FnOnce(&mut Sealed),
    ) -> Result<Sealed, NoRandom> {
        let nonce = nonces.next()?;
        let mut out = Sealed::new();
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&nonce);
        text(&mut out);
        let (_, sealed) = out.split_at_mut(KeyId::BYTES + NONCE);
        let tag = encrypt(&self.key, &nonce, bound, sealed);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// The text of what [`Self::seal`] made, without the key's id; `None` for anything else.
    #[must_use]
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let (cipher, nonce) = cipher(&self.key, nonce);
        let mut text = sealed.to_vec();
        let len = cipher.open_in_place(nonce, Aad::from(bound), &mut text).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

/// Turns a text into the sealed one, and returns its tag.
fn encrypt(
    key: &[u8; COOKIE_BYTES],
    nonce: &[u8; NONCE],
    bound: &[u8],
    text: &mut [u8],
) -> [u8; TAG] {
    let (cipher, nonce) = cipher(key, nonce);
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(bound), text)
        .expect("a cookie is far below the cipher's limit of 256 GiB");
    tag.as_ref().try_into().expect("the tag of Poly1305 has 16 bytes")
}

/// The cipher with the short nonce (RFC 8439) that seals under one long nonce (section 2.3 of the draft). One that does both
/// in Rust takes six times as long: this one is in assembly.
fn cipher(key: &[u8; COOKIE_BYTES], nonce: &[u8; NONCE]) -> (LessSafeKey, Nonce) {
    let [long @ .., a, b, c, d, e, f, g, h] = *nonce;
    let derived = hchacha::<R20>(&(*key).into(), &long.into());
    let derived = UnboundKey::new(&CHACHA20_POLY1305, &derived).expect("a key of 32 bytes");
    let short = [0, 0, 0, 0, a, b, c, d, e, f, g, h];
    (LessSafeKey::new(derived), Nonce::assume_unique_for_key(short))
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CookieKey").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section A.3.1 of the draft.
    #[test]
    fn as_the_draft_has_it() {
        let key = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce = std::array::from_fn(|at| 0x40 + at as u8);
        let bound = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let mut text = b"Ladies and Gentlemen of the class of '99: \
            If I could offer you only one tip for the future, sunscreen would be it."
            .to_vec();
        let tag = encrypt(&key, &nonce, &bound, &mut text);
        let sealed = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
            731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
            2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
            21f9664c97637da9768812f615c68b13b52e";
        assert_eq!(hex::encode(&text), sealed);
        assert_eq!(hex::encode(tag), "c0875924c1c7987947deafd8780acf49");
    }
}
