//! E-mail addresses as account names.

use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization as _;

/// An address, normalized: trimmed, NFKC, lower case. Two spellings of one mailbox are one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Email(String);

/// A text that cannot be an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address, like ada@example.com")]
pub struct EmailError;

impl Email {
    /// The normalized address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(local, _)| local)
    }
}

impl FromStr for Email {
    type Err = EmailError;

    /// Accepts what a mail server could deliver to, no more: one `@` that splits a local part from
    /// a domain with a dot, no white space or control characters, 254 bytes at most (RFC 5321, 4.5.3.1).
    fn from_str(text: &str) -> Result<Self, EmailError> {
        if text.len() > 1024 {
            return Err(EmailError);
        }
        // Lower case can take a composed character apart, so it is composed again: one address, one spelling.
        let normal: String = text.trim().nfkc().collect::<String>().to_lowercase().nfkc().collect();
        let (local, domain) = normal.rsplit_once('@').ok_or(EmailError)?;
        // Invisible characters would make two addresses look like one.
        let bad = |c: char| c.is_whitespace() || c.is_control() || invisible(c) || "<>()[]\\,;:\"#".contains(c);
        let domain_ok = domain.split('.').count() >= 2
            && domain.split('.').all(|label| {
                !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.len() <= 63
            })
            && domain.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '.');
        // A dot stands between others (RFC 5321, 4.1.2, Dot-string).
        let local_ok = local.split('.').all(|atom| !atom.is_empty());
        if !local_ok || local.len() > 64 || local.contains('@') || normal.len() > 254 {
            return Err(EmailError);
        }
        if !domain_ok || normal.contains(bad) {
            return Err(EmailError);
        }
        Ok(Self(normal))
    }
}

/// Characters that are drawn as nothing (Unicode's `Default_Ignorable_Code_Point`).
const fn invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mailbox_has_one_spelling() {
        let plain: Email = "ada@example.com".parse().unwrap();
        for text in [" Ada@Example.COM ", "ＡＤＡ@example.com", "ada@EXAMPLE.com\n"] {
            assert_eq!(text.parse::<Email>().unwrap(), plain, "{text:?}");
        }
    }

    #[test]
    fn a_normalized_address_stays_as_it_is() {
        for text in ["J\u{30c}@example.com", "\u{1f0}@example.com", "H\u{331}a@example.com", "\u{130}x@example.com"] {
            let once: Email = text.parse().unwrap();
            assert_eq!(once.as_str().parse::<Email>().unwrap(), once, "{text:?}");
        }
        assert_eq!("J\u{30c}@example.com".parse::<Email>().unwrap(), "\u{1f0}@example.com".parse::<Email>().unwrap());
        for nothing in ['\u{200b}', '\u{fe0f}', '\u{3164}', '\u{34f}', '\u{e0041}', '\u{180e}'] {
            assert!(format!("a{nothing}b@example.com").parse::<Email>().is_err(), "{nothing:?}");
        }
    }

    #[test]
    fn refuses_what_no_server_delivers() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@example",
            "a@b@c.com",
            "a b@c.com",
            "a\0@c.com",
            "a#b@c.com",
            "ada@-x.com",
            "ada@x..com",
            ".ada@example.com",
            "ada.@example.com",
            "a..da@example.com",
            &long,
        ] {
            assert!(text.parse::<Email>().is_err(), "{text:?} was taken");
        }
    }
}
