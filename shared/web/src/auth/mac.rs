//! Message authentication with keys that are derived from one secret, one per purpose.

use aws_lc_rs::hmac;

/// A key for HMAC-SHA256 (RFC 2104), for one purpose only.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key for `purpose`. Two purposes never share a key, so a tag made for one is worthless
    /// elsewhere.
    #[must_use]
    pub fn derive(secret: &[u8; 32], purpose: &str) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The tag of `message`.
    #[must_use]
    pub fn tag(&self, message: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        tag
    }

    /// Whether `tag` is the tag of `message`, in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }
}
