//! The name of an operation, which makes repeating it harmless.

use std::fmt;

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use tenantry_domain::secret::sha256_hex;

use super::StripeError;

/// Longest key that Stripe takes (<https://docs.stripe.com/api/idempotent_requests>).
const MAX_LEN: usize = 255;

/// What is sent as `Idempotency-Key`. The same operation must always get the same key, after a crash too, so it is made
/// from what the operation is about and never from chance. Stripe remembers it for at least 24 hours, gives the answer of
/// the first time without doing anything, and refuses it for a request with other parameters. So what may be done, undone
/// and done again (a price, a cancellation, a name) needs something in its key that tells one time from the other, like
/// the version of our own record or the caller's own idempotency key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperationKey(String);

impl OperationKey {
    /// The key of `operation` on `parts`: `refund:ord_1:2`. Parts that could be taken for others when joined, or that do
    /// not fit, are hashed.
    #[must_use]
    pub fn new(operation: &str, parts: &[&str]) -> Self {
        let plain =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let joined = std::iter::once(operation).chain(parts.iter().copied()).collect::<Vec<_>>().join(":");
        if joined.len() <= MAX_LEN && plain(&operation) && parts.iter().all(plain) {
            return Self(joined);
        }
        let mut exact = String::new();
        for part in std::iter::once(operation).chain(parts.iter().copied()) {
            exact.push_str(&format!("{}:{part}", part.len()));
        }
        let word: String = operation.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        Self(format!("{word}:sha256:{}", sha256_hex(exact.as_bytes())))
    }

    /// A key of its own for a request that may be made twice with the same result. Its retries share it.
    pub(super) fn fresh() -> Result<Self, StripeError> {
        let mut bytes = [0_u8; 16];
        rand::fill(&mut bytes).map_err(|_| StripeError::Unavailable("no randomness".to_owned()))?;
        Ok(Self(format!("fresh:{}", HEXLOWER.encode(&bytes))))
    }

    /// The header's text: visible ASCII, at most 255 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationKey({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::OperationKey;

    #[test]
    fn the_same_operation_has_the_same_key_and_another_has_another() {
        let long = "x".repeat(300);
        let lists: [&[&str]; 9] =
            [&["a", "b"], &["ab"], &["a:b"], &["a", "", "b"], &["a", "b", ""], &["a b"], &["é"], &[], &[&long]];
        for (at, parts) in lists.iter().enumerate() {
            let key = OperationKey::new("refund", parts);
            assert_eq!(key, OperationKey::new("refund", parts));
            assert_ne!(key, OperationKey::new("charge", parts));
            assert!(key.as_str().len() <= 255 && key.as_str().bytes().all(|b| b.is_ascii_graphic()), "{key:?}");
            for others in &lists[at + 1..] {
                assert_ne!(key, OperationKey::new("refund", others));
            }
        }
        assert_eq!(OperationKey::new("refund", &["ord_1", "2"]).as_str(), "refund:ord_1:2");
    }
}
