//! API key secrets: how they look, how they are checked and what is stored of them.
//!
//! `wk_live_` + 30 base62 characters + 6 characters of CRC-32. The checksum lets a mistyped or made-up
//! key be refused without a read; the entropy (178 bits) lets a plain SHA-256 be stored.

use aws_lc_rs::{digest, rand};
use data_encoding::HEXLOWER;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LEN: usize = 30;
const CHECKSUM_LEN: usize = 6;

/// Prefix of a key for real traffic.
pub const LIVE_PREFIX: &str = "wk_live_";
/// Prefix of a key for test mode.
pub const TEST_PREFIX: &str = "wk_test_";

/// The machine has no randomness to give; nothing secret can be made.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// An API key's secret, complete and with a correct checksum. Never logged: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A new live secret.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        Self::with_prefix(LIVE_PREFIX)
    }

    /// A new secret for test mode.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate_test() -> Result<Self, NoRandomness> {
        Self::with_prefix(TEST_PREFIX)
    }

    fn with_prefix(prefix: &str) -> Result<Self, NoRandomness> {
        let mut text = String::from(prefix);
        while text.len() < LIVE_PREFIX.len() + RANDOM_LEN {
            let mut bytes = [0_u8; 64];
            rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
            for byte in bytes {
                // 248 = 4 × 62: rejecting the rest keeps every character equally likely.
                if byte < 248 && text.len() < LIVE_PREFIX.len() + RANDOM_LEN {
                    text.push(char::from(ALPHABET[usize::from(byte % 62)]));
                }
            }
        }
        text.push_str(&checksum(&text));
        Ok(Self(text))
    }

    /// The secret in `text`, when it is a key whose checksum holds.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tail = text.strip_prefix(LIVE_PREFIX).or_else(|| text.strip_prefix(TEST_PREFIX))?;
        if tail.len() != RANDOM_LEN + CHECKSUM_LEN || !tail.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM_LEN);
        (checksum(body) == sum).then(|| Self(text.to_owned()))
    }

    /// The secret itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Lower-case hex of the SHA-256, which is what is stored and looked up.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }

    /// `wk_live_` and the next four characters: enough to recognize the key in a list.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0[..LIVE_PREFIX.len() + 4]
    }

    /// The last four characters.
    #[must_use]
    pub fn last4(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl std::fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

/// CRC-32 in base62, left-padded with zeros.
fn checksum(body: &str) -> String {
    let mut sum = crc32fast::hash(body.as_bytes());
    let mut out = [b'0'; CHECKSUM_LEN];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(sum % 62) as usize];
        sum /= 62;
    }
    out.iter().map(|&b| char::from(b)).collect()
}

/// Lower-case hex of the SHA-256 of `bytes`.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_one_and_any_flipped_character_is_none() {
        let secret = ApiKeySecret::generate().unwrap();
        let text = secret.expose();
        assert_eq!(text.len(), 8 + 36);
        assert_eq!(ApiKeySecret::parse(text).unwrap(), secret);
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let flipped = String::from_utf8(bytes).unwrap();
            assert!(ApiKeySecret::parse(&flipped).is_none(), "{at}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = ApiKeySecret::generate().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.expose()[12..]));
    }
}
