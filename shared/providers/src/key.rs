//! A vendor's API key, kept out of everything that is shown.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What stands in the place of a key.
const REDACTED: &str = "[redacted]";
/// Shorter keys are placeholders of local servers ("none", "ollama") and no secret; redacting them would garble texts.
const SHORTEST_SECRET: usize = 8;

/// A vendor's API key. Cheap to clone; `Debug` does not show it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct VendorKey(Arc<str>);

impl VendorKey {
    /// Wraps a key; the empty key means that the vendor wants none.
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The text without this key and without anything that looks like it: vendors echo keys masked in the middle.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let secret = self.0.len() >= SHORTEST_SECRET;
        let mut text = if secret && text.contains(&*self.0) {
            Cow::Owned(text.replace(&*self.0, REDACTED))
        } else {
            Cow::Borrowed(text)
        };
        if text.split(|character| !in_word(character)).any(|word| self.resembles(word)) {
            let mut redacted = String::with_capacity(text.len());
            let mut rest = &*text;
            while !rest.is_empty() {
                let gap = rest.find(in_word).unwrap_or(rest.len());
                redacted.push_str(&rest[..gap]);
                rest = &rest[gap..];
                let end = rest.find(|character| !in_word(character)).unwrap_or(rest.len());
                redacted.push_str(if self.resembles(&rest[..end]) { REDACTED } else { &rest[..end] });
                rest = &rest[end..];
            }
            text = Cow::Owned(redacted);
        }
        text
    }

    fn resembles(&self, word: &str) -> bool {
        let key = &*self.0;
        let affixes = |length: usize| (key.get(..length), key.get(key.len().saturating_sub(length)..));
        if word.starts_with("sk-") && word.len() >= SHORTEST_SECRET {
            return true;
        }
        if key.len() < SHORTEST_SECRET {
            return false;
        }
        let masked = word.contains("**") || word.contains("..") || word.contains('…') || word.contains("xxx");
        let (head, tail) = affixes(4);
        if masked && (head.is_some_and(|head| word.starts_with(head)) || tail.is_some_and(|tail| word.ends_with(tail)))
        {
            return true;
        }
        // The greater part of a longer key that was cut off at either end.
        let (head, tail) = affixes(12.min(key.len()));
        [head, tail].into_iter().flatten().any(|part| word.contains(part))
    }
}

fn in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '*' | '…')
}

impl fmt::Debug for VendorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VendorKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_likes_are_redacted() {
        let key = VendorKey::new("sk-proj-abcdefghijklmnopqrstuvwxyz");
        for text in [
            "Incorrect API key provided: sk-proj-abcdefghijklmnopqrstuvwxyz.",
            "Incorrect API key provided: sk-proj-********************wxyz.",
            "Incorrect API key provided: sk-other-0123456789, 天",
            "key \"sk-proj-abcdef\"",
            "ends in jklmnopqrstuvwxyz!",
            "your key ****wxyz is bad",
        ] {
            let redacted = key.redact(text);
            assert!(redacted.contains(REDACTED), "{redacted}");
            assert!(!redacted.contains("wxyz") && !redacted.contains("sk-"), "{redacted}");
        }
        let key = VendorKey::new("0123456789abcdef.SECRETSECRET");
        assert_eq!(key.redact("key 0123456789abcdef.SECRETSECRET, sorry"), "key [redacted], sorry");
        assert_eq!(key.redact("key=0123***RET, 0123456789abcde"), "key=[redacted], [redacted]");
    }

    #[test]
    fn other_texts_stay() {
        for (key, text) in [
            ("sk-proj-abcdefghijklmnop", "a task-force said: sk- is … 天气"),
            ("ollama", "ollama is down"),
            ("", "any"),
        ] {
            assert!(matches!(VendorKey::new(key).redact(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", VendorKey::new("sk-secret-secret")), "VendorKey([redacted])");
    }
}
