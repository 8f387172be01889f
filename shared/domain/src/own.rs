//! What a tenant meters of its own: resources that it names, counts itself and has kept here beside what the platform
//! counts. Nothing of it touches the plan's allowances.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::metering::Resource;

/// Largest amount of one record. A roll-up row takes about a thousand writes a second, so a day's sum of such records
/// still fits into 64 bits.
pub const MOST_AMOUNT: u64 = 100_000_000_000;

/// Longest name of a resource.
const NAME_CHARS: usize = 64;
/// Most entries of a record's metadata.
const MOST_ENTRIES: usize = 20;
/// Longest name of an entry, as at Stripe.
const KEY_CHARS: usize = 40;
/// Longest value of an entry, as at Stripe.
const VALUE_CHARS: usize = 500;
/// All of a record's metadata together, in bytes: what is stored beside every number has to stay small.
const METADATA_BYTES: usize = 4096;

/// The name of a resource of the tenant's own: 1 to 64 of `a`–`z`, digits, `_`, `.` and `-`, beginning with a letter or
/// digit, and none that the platform meters itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnResource(String);

impl OwnResource {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OwnResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name of an own resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnResourceError {
    /// It is no name.
    #[error("must be 1 to {NAME_CHARS} of a-z, 0-9, _ . -, and begin with a letter or digit")]
    Malformed,
    /// The platform meters it, and nobody else does.
    #[error("`{}` is metered by the platform itself, and cannot be recorded; choose a name of your own", .0.name())]
    Metered(Resource),
}

impl FromStr for OwnResource {
    type Err = OwnResourceError;
    fn from_str(text: &str) -> Result<Self, OwnResourceError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.len() <= NAME_CHARS
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || b"_.-".contains(&b));
        if !fits {
            return Err(OwnResourceError::Malformed);
        }
        match Resource::ALL.into_iter().find(|resource| resource.name() == text) {
            Some(resource) => Err(OwnResourceError::Metered(resource)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// What a record of an own resource says beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// How much.
    pub amount: u64,
    /// Whatever the tenant wants to find there again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Why a record is not taken. Each names its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnError {
    /// The amount is zero or too large.
    #[error("must be 1 to {MOST_AMOUNT}")]
    Amount,
    /// There is too much metadata.
    #[error("at most {MOST_ENTRIES} entries and {METADATA_BYTES} bytes in all")]
    Metadata,
    /// An entry has no name, or too long a one.
    #[error("a name has 1 to {KEY_CHARS} characters")]
    Key,
    /// A value is too long.
    #[error("a value has at most {VALUE_CHARS} characters")]
    Value,
}

impl OwnError {
    /// JSON pointer of the field.
    #[must_use]
    pub const fn pointer(&self) -> &'static str {
        match self {
            Self::Amount => "/amount",
            Self::Metadata | Self::Key | Self::Value => "/metadata",
        }
    }
}

impl Own {
    /// Checked against the bounds.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn new(amount: u64, metadata: BTreeMap<String, String>) -> Result<Self, OwnError> {
        if !(1..=MOST_AMOUNT).contains(&amount) {
            return Err(OwnError::Amount);
        }
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if metadata.len() > MOST_ENTRIES || bytes > METADATA_BYTES {
            return Err(OwnError::Metadata);
        }
        if !metadata.keys().all(|key| (1..=KEY_CHARS).contains(&key.chars().count())) {
            return Err(OwnError::Key);
        }
        if metadata.values().any(|value| value.chars().count() > VALUE_CHARS) {
            return Err(OwnError::Value);
        }
        Ok(Self { amount, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_none_of_the_platforms() {
        for name in ["pages", "pages_scanned", "7z", "a", "gpu.seconds-a100", &"x".repeat(64)] {
            assert_eq!(name.parse::<OwnResource>().unwrap().as_str(), name);
        }
        for name in ["", "Pages", "_x", ".x", "-x", "a b", "a#b", "ä", "=1", "a\n", &"x".repeat(65)] {
            assert_eq!(name.parse::<OwnResource>(), Err(OwnResourceError::Malformed), "{name:?}");
        }
        for resource in Resource::ALL {
            let error = resource.name().parse::<OwnResource>().unwrap_err();
            assert_eq!(error, OwnResourceError::Metered(resource));
            assert!(error.to_string().contains(resource.name()));
        }
    }

    #[test]
    fn a_record_is_bounded() {
        let of = |amount, entries: &[(&str, &str)]| {
            Own::new(amount, entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let (long_key, long) = ("k".repeat(41), "v".repeat(501));
        assert!(of(1, &[]).is_ok());
        assert!(of(MOST_AMOUNT, &[("a", ""), (&long_key[1..], &long[1..])]).is_ok());
        assert_eq!(of(0, &[]), Err(OwnError::Amount));
        assert_eq!(of(MOST_AMOUNT + 1, &[]), Err(OwnError::Amount));
        assert_eq!(of(1, &[("", "v")]), Err(OwnError::Key));
        assert_eq!(of(1, &[(&long_key, "v")]), Err(OwnError::Key));
        assert_eq!(of(1, &[("k", &long)]), Err(OwnError::Value));
        let many: BTreeMap<_, _> = (0..21).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(Own::new(1, many), Err(OwnError::Metadata));
        let large: BTreeMap<_, _> = (0..9).map(|n| (n.to_string(), "v".repeat(500))).collect();
        assert_eq!(Own::new(1, large), Err(OwnError::Metadata));
    }
}
