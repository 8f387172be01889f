//! Names of tenant users: the end customers of a tenant.

use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization as _;

/// Fewest characters.
pub const MIN_CHARS: usize = 3;
/// Most characters.
pub const MAX_CHARS: usize = 64;

/// A name, normalized: NFKC, lower case, and of characters that look like nothing else. So two names that
/// people take for one are one, or one of them is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(String);

/// A text that cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 3 to 64 letters a to z, digits, or . _ - @ +")]
pub struct UsernameError;

impl Username {
    /// The normalized name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = UsernameError;

    fn from_str(text: &str) -> Result<Self, UsernameError> {
        // Normalizing makes no text of this many bytes shorter than the limit.
        if text.len() > 8 * MAX_CHARS {
            return Err(UsernameError);
        }
        let name: String = text.nfkc().collect::<String>().to_lowercase();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@+".contains(&b);
        if (MIN_CHARS..=MAX_CHARS).contains(&name.len()) && name.bytes().all(fits) {
            Ok(Self(name))
        } else {
            Err(UsernameError)
        }
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_one_or_none() {
        let plain: Username = "mike+1@shop.example".parse().unwrap();
        // Upper case, full-width letters, and the Kelvin sign for a K.
        for text in ["MIKE+1@shop.example", "ｍｉｋｅ+1@shop.example", "mi\u{212a}e+1@shop.example"] {
            assert_eq!(text.parse::<Username>().unwrap(), plain, "{text}");
        }
        // Cyrillic, a combining mark, a dotless i, an invisible character.
        for text in ["m\u{456}ke", "mike\u{301}", "m\u{131}ke", "mi\u{200b}ke", "mike ", "m\u{130}ke"] {
            assert!(text.parse::<Username>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn length_counts() {
        for text in ["", "ab", &"a".repeat(65), &"a".repeat(10_000), "a#b", "a/b", "a b"] {
            assert!(text.parse::<Username>().is_err(), "{text:?} was taken");
        }
        assert!("abc".parse::<Username>().is_ok() && "a".repeat(64).parse::<Username>().is_ok());
    }
}
