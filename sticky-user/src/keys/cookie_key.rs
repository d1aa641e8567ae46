//! One cookie key: XChaCha20-Poly1305, whose long nonce may be drawn at random.

use std::fmt;

use chacha20poly1305::aead::{Aead, AeadInOut, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

use super::nonce::{NONCE, Nonces};
use super::{COOKIE_BYTES, KeyId, NoRandom};

/// Bytes of a tag.
const TAG: usize = 16;

/// Seals and opens cookies.
#[derive(Clone)]
pub struct CookieKey {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl CookieKey {
    pub(super) fn new(bytes: [u8; COOKIE_BYTES]) -> Self {
        let cipher = XChaCha20Poly1305::new(&Key::from(bytes));
        // Part of a tag under the all-zero nonce, which a random one never meets: as good as random to who lacks the key.
        let tag = cipher
            .encrypt(&XNonce::from([0; NONCE]), Payload { msg: b"", aad: b"sticky key id" })
            .unwrap_or_default();
        let id = tag.first_chunk().copied().unwrap_or_default();
        Self { id: KeyId(id), cipher }
    }

    /// Its public name.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Key id, nonce and sealed text; `bound` must be the same to open it.
    pub fn seal(&self, nonces: &Nonces, bound: &[u8], text: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let nonce = nonces.next()?;
        let mut out = Vec::with_capacity(KeyId::BYTES + NONCE + text.len() + TAG);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(text);
        let (_, sealed) = out.split_at_mut(KeyId::BYTES + NONCE);
        let tag = self
            .cipher
            .encrypt_inout_detached(&XNonce::from(nonce), bound, sealed.into())
            .expect("a cookie is far below the cipher's limit of 256 GiB");
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// The text of what [`Self::seal`] made, without the key's id; `None` for anything else.
    #[must_use]
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        if sealed.len() < TAG {
            return None;
        }
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: bound }).ok()
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CookieKey").field(&self.id).finish()
    }
}
