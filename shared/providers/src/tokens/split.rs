//! The pre-tokenizer of o200k_base by hand: the same pieces as its regular expression, without the megabytes that an
//! automaton for Unicode classes takes.
//!
//! The expression, one alternative per line, the first that matches wins:
//! ```text
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! \p{N}{1,3}
//!  ?[^\s\p{L}\p{N}]+[\r\n/]*
//! \s*[\r\n]+
//! \s+(?!\S)
//! \s+
//! ```

use super::classes::{self, Class};

/// The pieces of a text, none of them empty.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = rest.split_at(piece_end(rest));
        rest = tail;
        Some(piece)
    })
}

fn class_at(text: &str, at: usize) -> Option<(Class, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte.is_ascii() {
        return Some((classes::of(char::from(byte)), 1));
    }
    let character = text[at..].chars().next()?;
    Some((classes::of(character), character.len_utf8()))
}

/// The end of the run of characters from `at` that `belongs` accepts.
fn run(text: &str, mut at: usize, belongs: impl Fn(Class) -> bool) -> usize {
    while let Some((class, length)) = class_at(text, at) {
        if !belongs(class) {
            break;
        }
        at += length;
    }
    at
}

/// The end of the first piece of a text that is not empty.
fn piece_end(text: &str) -> usize {
    let Some((class, length)) = class_at(text, 0) else { return 0 };
    let with_lead = class.may_lead_word().then_some(length);
    let starts = [with_lead, Some(0)];
    for start in starts.into_iter().flatten() {
        if let Some(end) = word_with_lower(text, start) {
            return contraction(text, end);
        }
    }
    for start in starts.into_iter().flatten() {
        // What may follow in lower case would have made the first alternative match.
        let end = run(text, start, Class::begins_word);
        if end > start {
            return contraction(text, end);
        }
    }
    if class == Class::Number {
        let mut end = length;
        for _ in 0..2 {
            match class_at(text, end) {
                Some((Class::Number, length)) => end += length,
                _ => break,
            }
        }
        return end;
    }
    let start = usize::from(text.starts_with(' '));
    let end = run(text, start, Class::is_symbol);
    if end > start {
        return end + text.as_bytes()[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/')).count();
    }
    white_space(text)
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` from `start`.
fn word_with_lower(text: &str, start: usize) -> Option<usize> {
    let mut at = start;
    // The end of the last character of the first half that could be the second half as well.
    let mut last_caseless = None;
    while let Some((class, length)) = class_at(text, at) {
        if !class.begins_word() {
            break;
        }
        at += length;
        if class.ends_word() {
            last_caseless = Some(at);
        }
    }
    let end = run(text, at, Class::ends_word);
    // Without a lower case letter the first half gives back characters until the last one can be the second half.
    if end > at { Some(end) } else { last_caseless }
}

/// Extends a word by `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` in any case.
fn contraction(text: &str, end: usize) -> usize {
    let Some(tail) = text[end..].strip_prefix('\'') else { return end };
    let bytes = tail.as_bytes();
    let length = match bytes.first().map(u8::to_ascii_lowercase) {
        Some(b's' | b't' | b'm' | b'd') => 1,
        Some(first @ (b'r' | b'v' | b'l')) => {
            let second = if first == b'l' { b'l' } else { b'e' };
            match bytes.get(1) {
                Some(byte) if byte.to_ascii_lowercase() == second => 2,
                _ => return end,
            }
        }
        // Unicode folds the long s to s.
        _ if tail.starts_with('ſ') => 'ſ'.len_utf8(),
        _ => return end,
    };
    end + 1 + length
}

fn white_space(text: &str) -> usize {
    let end = run(text, 0, Class::is_space);
    if let Some(line_end) = text.as_bytes()[..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        return line_end + 1;
    }
    if end == text.len() {
        return end;
    }
    // The last space is left to the word that follows, unless it is the only one.
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end > last { end - last } else { end }
}
