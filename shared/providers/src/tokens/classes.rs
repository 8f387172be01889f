//! Characters by what the pre-tokenizer of o200k_base tells apart.

use Class::{Caseless as C, Lower as L, Mark as M, Number as N, Space as S, Upper as U};

/// A class of characters; in brackets the Unicode general categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Upper and title case letters (Lu, Lt).
    Upper,
    /// Lower case letters (Ll).
    Lower,
    /// Letters without case (Lm, Lo).
    Caseless,
    /// Combining marks (M).
    Mark,
    /// Numbers (N).
    Number,
    /// White space but line ends.
    Space,
    /// CR and LF.
    LineEnd,
    /// Everything else: punctuation, symbols, controls.
    Other,
}

impl Class {
    /// May stand in the first half of a word: `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`.
    pub(super) fn begins_word(self) -> bool {
        matches!(self, Self::Upper | Self::Caseless | Self::Mark)
    }

    /// May stand in the second half of a word: `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`.
    pub(super) fn ends_word(self) -> bool {
        matches!(self, Self::Lower | Self::Caseless | Self::Mark)
    }

    /// `\s`
    pub(super) fn is_space(self) -> bool {
        matches!(self, Self::Space | Self::LineEnd)
    }

    /// `[^\s\p{L}\p{N}]`
    pub(super) fn is_symbol(self) -> bool {
        matches!(self, Self::Other | Self::Mark)
    }

    /// `[^\r\n\p{L}\p{N}]`: the one character that may come before a word and belong to it.
    pub(super) fn may_lead_word(self) -> bool {
        matches!(self, Self::Other | Self::Mark | Self::Space)
    }
}

static TABLE: &[(u32, u32, Class)] = include!("classes_table.rs");

/// The class of a character.
pub(super) fn of(character: char) -> Class {
    match character {
        'a'..='z' => Class::Lower,
        'A'..='Z' => Class::Upper,
        '0'..='9' => Class::Number,
        '\n' | '\r' => Class::LineEnd,
        ' ' | '\t' | '\x0b' | '\x0c' => Class::Space,
        '\0'..='\x7f' => Class::Other,
        // Most of what is not ASCII is one of these; the search would find the same.
        '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' => Class::Caseless,
        _ => {
            let code = u32::from(character);
            let after = TABLE.partition_point(|&(first, _, _)| first <= code);
            match after.checked_sub(1).map(|at| TABLE[at]) {
                Some((_, last, class)) if code <= last => class,
                _ => Class::Other,
            }
        }
    }
}
