//! What may be a password.
//!
//! The rules are those of NIST SP 800-63B: length, a list of what everybody tries first, and nothing about
//! which kinds of character must be in it. Characters are Unicode code points, normalized to NFKC, so that
//! one password typed on two keyboards is one password.

use std::{collections::HashSet, sync::LazyLock};

use tenantry_domain::{Email, Username};
use tenantry_web::ApiError;
use unicode_normalization::UnicodeNormalization as _;

/// Fewest characters.
pub const MIN_CHARS: usize = 8;
/// Most characters.
pub const MAX_CHARS: usize = 128;

/// Fewest characters that must be left of a password when the e-mail address is taken out of it.
const MIN_OWN_CHARS: usize = 6;

/// Digits and punctuation that people put behind a common word; up to this many are looked past.
const MAX_SUFFIX: usize = 6;

/// Words that people make passwords of, by putting something behind them.
static WORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common-words.txt").lines().filter(|line| !line.starts_with('#')).collect());

/// The 10,000 most common passwords that are long enough to be one here, from leaks (NOTICE.md), sorted.
static LEAKED: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("leaked-passwords.txt").lines().collect());

/// A password, normalized. Never logged: it has no `Debug`.
pub struct Password(String);

impl Password {
    /// A password that somebody signs in with. Nothing is checked, so that a wrong one takes the same way
    /// whatever is wrong with it.
    #[must_use]
    pub fn given(text: &str) -> Self {
        Self(text.nfkc().collect())
    }

    /// A password that the owner of `email` chooses; `pointer` names the field in the body.
    ///
    /// # Errors
    /// 422 that says which rule it breaks.
    pub fn chosen(pointer: &str, text: &str, email: &Email) -> Result<Self, ApiError> {
        let password = Self::given(text);
        match password.weakness(email) {
            None => Ok(password),
            Some(weakness) => Err(ApiError::invalid(pointer, weakness)),
        }
    }

    /// A password that a tenant user of this name gets.
    ///
    /// # Errors
    /// 422 that says which rule it breaks.
    pub(crate) fn chosen_by(pointer: &str, text: &str, username: &Username) -> Result<Self, ApiError> {
        let password = Self::given(text);
        let name = username.as_str();
        let parts = [name, name.rsplit_once('@').map_or("", |(local, _)| local)];
        match password.weakness_beside(&parts, "is too much like the username") {
            None => Ok(password),
            Some(weakness) => Err(ApiError::invalid(pointer, weakness)),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn weakness(&self, email: &Email) -> Option<String> {
        let domain = email.as_str().rsplit_once('@').map_or("", |(_, domain)| domain);
        self.weakness_beside(&[email.as_str(), email.local_part(), domain], "is too much like the e-mail address")
    }

    /// `own` is what others know of its owner, longest first.
    fn weakness_beside(&self, own: &[&str], too_alike: &str) -> Option<String> {
        if !(MIN_CHARS..=MAX_CHARS).contains(&self.0.chars().count()) {
            return Some(format!("must be {MIN_CHARS} to {MAX_CHARS} characters"));
        }
        let lower = self.0.to_lowercase();
        if is_series(&lower) || is_common(&lower) {
            return Some("is one of the passwords that are tried first; choose another".into());
        }
        let rest = own
            .iter()
            // Taking out one or two letters would say nothing about likeness.
            .filter(|part| part.chars().count() > 2)
            .fold(lower, |rest, part| rest.replace(part, ""));
        (rest.chars().count() < MIN_OWN_CHARS).then(|| too_alike.into())
    }
}

/// Whether every character is the one before it, or all follow each other up or down: `aaaaaaaa`, `12345678`.
fn is_series(text: &str) -> bool {
    let codes: Vec<i64> = text.chars().map(|c| i64::from(u32::from(c))).collect();
    let step = codes.get(1).zip(codes.first()).map_or(0, |(second, first)| second - first);
    step.abs() <= 1 && codes.windows(2).all(|pair| pair[1] - pair[0] == step)
}

fn is_common(text: &str) -> bool {
    let word = text.trim_end_matches(|c: char| !c.is_alphabetic());
    let suffix = text.chars().count() - word.chars().count();
    let listed = |text: &str| WORDS.contains(text) || LEAKED.binary_search(&text).is_ok();
    listed(text) || (suffix <= MAX_SUFFIX && listed(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weakness(password: &str) -> Option<String> {
        Password::given(password).weakness(&"ada.lovelace@example.com".parse().unwrap())
    }

    #[test]
    fn length_counts_characters() {
        assert!(weakness("zq7-xkm").is_some());
        assert!(weakness("zq7-xkmp").is_none());
        assert!(weakness("äöüßéñçø").is_none(), "eight characters in sixteen bytes");
        assert!(weakness(&"q7".repeat(64)).is_none());
        assert!(weakness(&format!("{}x", "q7".repeat(64))).is_some());
        assert!(weakness("correct horse battery staple").is_none(), "spaces are characters");
    }

    #[test]
    fn one_password_has_one_spelling() {
        assert_eq!(Password::given("cafe\u{301} ﬁve").as_bytes(), "café five".as_bytes());
        assert_ne!(Password::given("Secret").as_bytes(), Password::given("secret").as_bytes());
    }

    #[test]
    fn what_everybody_tries_is_refused() {
        for password in [
            "password",
            "PASSWORD",
            "Password1!",
            "password2026",
            "12345678",
            "87654321",
            "aaaaaaaa",
            "abcdefghij",
            "qwertyuiop",
            "iloveyou",
            "iloveyou123",
            "p@ssw0rd",
            "１２３４５６７８",
            "tenantry2026",
            "1qaz2wsx",
            "Corvette",
            "Samantha2024!",
            "zaq12wsx",
        ] {
            assert!(weakness(password).is_some_and(|why| why.contains("tried first")), "{password}");
        }
    }

    #[test]
    fn the_address_is_no_password() {
        for password in
            ["ada.lovelace", "Ada.Lovelace1", "1ada.lovelace2!", "ada.lovelace@example.com", "example.com99"]
        {
            assert!(weakness(password).is_some_and(|why| why.contains("e-mail")), "{password}");
        }
        assert!(weakness("ada.lovelace wrote the first program").is_none());
    }

    #[test]
    fn the_list_is_well_formed() {
        assert!(WORDS.len() >= 200, "{}", WORDS.len());
        for word in WORDS.iter() {
            assert!(word.len() >= 4 && *word == word.to_lowercase() && *word == word.trim(), "{word:?}");
        }
        assert_eq!(LEAKED.len(), 10_000);
        assert!(LEAKED.windows(2).all(|pair| pair[0] < pair[1]), "sorted by bytes, each once");
        for word in LEAKED.iter() {
            let chars = word.chars().count();
            assert!((MIN_CHARS..=MAX_CHARS).contains(&chars) && word.is_ascii(), "{word:?}");
            assert!(*word == word.to_lowercase() && *word == word.trim(), "{word:?}");
        }
    }
}
