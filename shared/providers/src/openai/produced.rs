//! What an answer produced, kept for counting it locally should the vendor report no usage.

use crate::tokens;

/// A part that grows beyond this many bytes is counted up to a word's end and its text dropped.
const KEPT: usize = 32 * 1024;
/// More parts than this share the last one: texts of a hundred choices need not be kept apart.
const PARTS: usize = 32;
/// Bytes of base64 to a token of what is no text. OpenAI's speech is 20 tokens a second, and 10 KB of base64 as MP3 of 64
/// kbit/s; images are farther apart (1,000 to 6,000 tokens for megabytes).
const BINARY_BYTES_PER_TOKEN: u64 = 500;

/// Kinds of text whose deltas interleave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `content`, and the older `text`.
    Content,
    /// `reasoning_content` or `reasoning`.
    Reasoning,
    /// `refusal`.
    Refusal,
    /// Names and arguments of tool calls.
    Tools,
    /// Whatever else was said.
    Other,
    /// What is no text: sound and images in base64, encrypted reasoning.
    Binary,
}

/// The text of an answer, in bounded memory (at most 1 MiB), counted only when asked for.
#[derive(Debug, Clone, Default)]
pub struct Produced {
    counted: u64,
    binary_bytes: u64,
    parts: Vec<((u64, Kind), String)>,
}

impl Produced {
    /// The tokens of everything produced: of text by the local tokenizer, of sound and images by their size.
    pub fn tokens(&self) -> u64 {
        let binary = self.binary_bytes.div_ceil(BINARY_BYTES_PER_TOKEN);
        self.counted + binary + self.parts.iter().map(|(_, text)| tokens::count_text(text)).sum::<u64>()
    }

    /// Nothing was produced.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.binary_bytes == 0
    }

    pub(crate) fn add(&mut self, choice: u64, kind: Kind, text: &str) {
        if text.is_empty() {
            return;
        }
        if kind == Kind::Binary {
            self.binary_bytes += text.len() as u64;
            return;
        }
        let found = self.parts.iter().position(|(of, _)| *of == (choice, kind));
        let at = match found {
            Some(at) => at,
            None if self.parts.len() < PARTS => {
                self.parts.push(((choice, kind), String::new()));
                self.parts.len() - 1
            }
            None => PARTS - 1,
        };
        let kept = &mut self.parts[at].1;
        kept.push_str(text);
        if kept.len() > KEPT {
            // Words begin with their space; text without spaces is cut where it is, at the price of a token or two.
            let cut = kept.rfind(' ').filter(|&cut| cut > KEPT / 2).unwrap_or(kept.len());
            self.counted += tokens::count_text(&kept[..cut]);
            kept.drain(..cut);
            kept.shrink_to(KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_counted_in_pieces() {
        let text = "The quick brown fox jumps over the lazy dog, and 天气很好. ".repeat(5000);
        let mut produced = Produced::default();
        let mut rest = text.as_str();
        while let Some(end) = (1..=7).rev().find(|&end| rest.is_char_boundary(end) && end <= rest.len()) {
            produced.add(0, Kind::Content, &rest[..end]);
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
        assert!(produced.parts[0].1.len() <= KEPT);
        assert_eq!(produced.tokens(), tokens::count_text(&text));
    }

    #[test]
    fn kinds_and_choices_are_kept_apart_up_to_a_bound() {
        let mut produced = Produced::default();
        assert!(produced.is_empty());
        for delta in ["Hel", "lo"] {
            for choice in 0..3 {
                produced.add(choice, Kind::Content, delta);
            }
        }
        assert_eq!(produced.tokens(), 3);
        for choice in 0..1000 {
            produced.add(choice, Kind::Tools, "x");
        }
        assert_eq!(produced.parts.len(), PARTS);
        assert!(!produced.is_empty());
    }

    #[test]
    fn what_is_no_text_counts_by_its_size() {
        let mut produced = Produced::default();
        for _ in 0..100 {
            produced.add(0, Kind::Binary, &"QUJD".repeat(25));
        }
        assert!(!produced.is_empty() && produced.parts.is_empty());
        assert_eq!(produced.tokens(), 20);
    }
}
