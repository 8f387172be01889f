//! How Stripe writes things down: moments in seconds, references that may be expanded, lists in pages.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use tenantry_domain::Millis;

use super::error::{Refusal, StripeError};

/// Words of ours that are attached to Stripe's objects.
pub type Metadata = BTreeMap<String, String>;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In Stripe's order, newest first.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one.
    pub next: Option<String>,
}

/// A list as it comes.
#[derive(Deserialize)]
pub(super) struct Listed<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

impl<T> Listed<T> {
    /// The page, whose next one begins after its last id.
    pub(super) fn page(self, id: impl Fn(&T) -> Option<&str>) -> Result<Page<T>, StripeError> {
        let last = self.data.last().and_then(&id).map(str::to_owned);
        match (self.has_more, last) {
            // Would be asked for forever.
            (true, None) => Err(StripeError::Malformed("a list goes on and has no last id".to_owned())),
            (more, last) => Ok(Page { items: self.data, next: last.filter(|_| more) }),
        }
    }
}

/// An id that may stand in a path. Others do not exist at Stripe and would lead elsewhere.
pub(super) fn path_id<'a>(param: &'static str, id: &'a str) -> Result<&'a str, StripeError> {
    let fits = !id.is_empty() && id.len() <= 255 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if fits { Ok(id) } else { Err(StripeError::Refused(Box::new(Refusal::missing(param)))) }
}

/// Stripe's seconds.
pub(super) const fn seconds(at: Millis) -> i64 {
    at.div_euclid(1_000)
}

/// A moment, in seconds.
pub(super) fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    i64::deserialize(deserializer).map(|seconds| seconds.saturating_mul(1_000))
}

/// A moment, or none.
pub(super) fn opt_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.map(|seconds| seconds.saturating_mul(1_000)))
}

/// `null` means the default.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// A list within an object.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Listed::deserialize(deserializer)?.data)
}

/// A reference: an id, or the object when it was expanded (<https://docs.stripe.com/api/expanding_objects>).
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    opt_id(deserializer)?.ok_or_else(|| D::Error::custom("a reference is missing"))
}

/// A reference, or none.
pub(super) fn opt_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Reference>::deserialize(deserializer)?.map(|reference| reference.0))
}

struct Reference(String);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id, or an object with one")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<Reference, E> {
        Ok(Reference(id.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reference, A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "id" {
                id = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        id.map(Reference).ok_or_else(|| A::Error::missing_field("id"))
    }
}

/// Reads `bytes`; what goes wrong is told without what stands there.
pub(super) fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let known = ["missing field", "a reference is missing"].iter().any(|known| text.starts_with(known));
        if known { text } else { format!("wrong at line {} column {}", error.line(), error.column()) }
    })
}

/// Defines an enum of words that Stripe may add to.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// A word that is newer than this program.
            Unknown(String),
        }

        impl $name {
            /// Stripe's word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Unknown(word) => word,
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Ok(match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Unknown(word),
                })
            }
        }
    )+};
}
pub(super) use words;
