//! Typed, prefixed ids: `org_…`, `usr_…`, `key_…`.
//!
//! An id is a UUIDv7 (RFC 9562) in Crockford's base32, lower case, always 26 characters: it sorts by
//! time of creation, is easy to find in a log, and cannot be taken for an id of another kind.

use std::{
    fmt,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use data_encoding::Encoding;
use uuid::Uuid;

/// Length of the part behind the prefix: 128 bits in base32.
pub const ENCODED_LEN: usize = 26;

/// Crockford's alphabet. Its order is ASCII order, so encoded ids sort as the numbers do.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    // The symbols are a constant of 32 distinct ASCII characters, which is all that can fail here.
    spec.encoding().unwrap_or(data_encoding::BASE32HEX_NOPAD)
});

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed {prefix}… id")]
pub struct IdError {
    prefix: &'static str,
}

fn encode(uuid: Uuid) -> String {
    BASE32.encode(uuid.as_bytes())
}

/// A UUIDv7 of this time. Those of one process sort in the order in which they were made, also within a
/// millisecond: a counter of 32 bits that starts anywhere comes before the random bits (RFC 9562, 6.2).
fn uuid_at(millis: i64) -> Uuid {
    static COUNTER: LazyLock<AtomicU32> = LazyLock::new(|| {
        // Half of the range is left to count in.
        AtomicU32::new((Uuid::now_v7().as_u128() & 0x7fff_ffff) as u32)
    });
    let time = u128::from(u64::try_from(millis).unwrap_or(0)) << 80;
    let counter = u128::from(COUNTER.fetch_add(1, Ordering::Relaxed));
    // No secret: an id gives nobody a right. It tells the ids of processes apart whose counters meet.
    let random = u128::from(fastrand::u64(..1 << 42));
    Uuid::from_u128(time | (7 << 76) | ((counter >> 20) << 64) | (0b10 << 62) | ((counter & 0xf_ffff) << 42) | random)
}

/// The first 48 bits of a UUIDv7.
fn created_at(short: &str) -> i64 {
    let bytes = BASE32.decode(short.as_bytes()).unwrap_or_default();
    bytes.iter().take(6).fold(0, |at, byte| (at << 8) | i64::from(*byte))
}

fn check(text: &str, prefix: &'static str) -> Result<(), IdError> {
    let error = IdError { prefix };
    let tail = text.strip_prefix(prefix).ok_or(error.clone())?;
    let mut uuid = [0_u8; 16];
    if tail.len() != ENCODED_LEN {
        return Err(error);
    }
    // Decoding also refuses a last character with stray bits, so every id has one spelling.
    match BASE32.decode_mut(tail.as_bytes(), &mut uuid) {
        Ok(16) => Ok(()),
        _ => Err(error),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, unique and later than those made before it.
            #[must_use]
            pub fn new() -> Self {
                Self(format!("{}{}", $prefix, encode(Uuid::now_v7())))
            }

            /// A new id that was made at `millis` since the epoch, by whatever clock that is.
            #[must_use]
            pub fn at(millis: i64) -> Self {
                Self(format!("{}{}", $prefix, encode(uuid_at(millis))))
            }

            /// The id as text, prefix and all.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The 26 characters behind the prefix, for places where every byte is paid for.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[$prefix.len()..]
            }

            /// When the id was made, in milliseconds since the epoch (RFC 9562, 5.7).
            #[must_use]
            pub fn created_at(&self) -> i64 {
                created_at(self.short())
            }

            /// The id whose [`short`](Self::short) form this is.
            ///
            /// # Errors
            /// When the text is not 26 characters of base32.
            pub fn from_short(short: &str) -> Result<Self, IdError> {
                format!("{}{short}", $prefix).parse()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text, $prefix)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// An organization: the tenant.
    OrgId = "org_";
    /// A person with a login.
    UserId = "usr_";
    /// An API key (its public name, not the secret).
    KeyId = "key_";
    /// A login on one device.
    SessionId = "ses_";
    /// One metered request; also the id of its hold and of its usage record.
    RequestId = "req_";
    /// An invitation into an organization.
    InviteId = "inv_";
    /// An end customer of a tenant.
    TenantUserId = "tus_";
    /// A change of credits.
    LedgerId = "led_";
    /// An order that is paid for once: a package of credits, or months of a plan.
    OrderId = "ord_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_sorts_by_time() {
        let first = OrgId::new();
        let second = OrgId::new();
        assert_eq!(first.as_str().len(), 4 + ENCODED_LEN);
        assert_eq!(first.as_str().parse::<OrgId>().unwrap(), first);
        assert_eq!(OrgId::from_short(first.short()).unwrap(), first);
        assert!(first < second);
        let known = OrgId(format!("org_{}", encode(Uuid::from_u128(0x0190_0000_0001_7000_8000_0000_0000_0000))));
        assert_eq!(known.created_at(), 0x0190_0000_0001);
        assert_eq!(OrgId::at(1_795_176_000_123).created_at(), 1_795_176_000_123);
        assert!(OrgId::at(5) < OrgId::at(5), "in the order in which they were made");
        assert_eq!(uuid_at(5).get_version_num(), 7);
        assert_eq!(uuid_at(5).get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn refuses_what_is_not_exactly_an_id() {
        let good = OrgId::new().to_string();
        let bad = [
            String::new(),
            "org_".into(),
            good.replace("org_", "usr_"),
            good.to_uppercase(),
            format!("{good}0"),
            good[..good.len() - 1].to_owned(),
            format!("{}#", &good[..good.len() - 1]),
            format!("{}\0", &good[..good.len() - 1]),
            // Two bits of the last character lie outside the 128 and must be zero.
            format!("{}z", &good[..good.len() - 1]),
        ];
        for text in bad {
            assert!(text.parse::<OrgId>().is_err(), "{text:?} was taken");
        }
    }
}
