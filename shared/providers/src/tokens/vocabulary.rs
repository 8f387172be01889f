//! The vocabulary as the build script laid it out (see `layout.rs`), and the way through it.

use super::layout::{GROUP, TOKEN, TOKEN_GROUP};

static PAIRS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pairs.bin"));
static LABELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/labels.bin"));
static NODES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nodes.bin"));
static STARTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/starts.bin"));
static GAPS_LOW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gaps_low.bin"));
static GAPS_HIGH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gaps_high.bin"));
static TOKENS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokens.bin"));
static RANKS_LOW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ranks_low.bin"));
static RANKS_HIGH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ranks_high.bin"));

/// No token: greater than every rank.
pub(super) const NONE: u32 = u32::MAX;

/// A text that tokens begin with: a single byte, or the node of a longer one after those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix(u32);

/// The first prefix that is a node.
const FIRST_NODE: u32 = 256;

impl Prefix {
    /// A single byte.
    pub(super) fn byte(byte: u8) -> Self {
        Self(byte.into())
    }

    /// The prefix with `bytes` after it, if any token begins so.
    pub(super) fn followed_by(self, bytes: &[u8]) -> Option<Self> {
        let mut at = self.0;
        for &byte in bytes {
            let node = match at.checked_sub(FIRST_NODE) {
                Some(node) => child(node as usize, byte),
                None => pair(at as usize, byte),
            }?;
            at = node as u32 + FIRST_NODE;
        }
        Some(Self(at))
    }

    /// Its rank when it is a token of two bytes or more, else [`NONE`].
    pub(super) fn rank(self) -> u32 {
        let Some(node) = self.0.checked_sub(FIRST_NODE) else { return NONE };
        let node = node as usize;
        if NODES[node] & TOKEN == 0 {
            return NONE;
        }
        let group = node / TOKEN_GROUP;
        let mut at = entry(TOKENS, group);
        for word_at in (group * TOKEN_GROUP..node).step_by(8) {
            at += sum(before(word(NODES, word_at), node - word_at) >> 7 & every(1));
        }
        let low = u16::from_le_bytes([RANKS_LOW[at * 2], RANKS_LOW[at * 2 + 1]]);
        let high = RANKS_HIGH[at / 4] >> (at % 4 * 2) & 3;
        u32::from(high) << 16 | u32::from(low)
    }
}

/// The node of two bytes.
fn pair(first: usize, second: u8) -> Option<usize> {
    let place = PAIRS[first << 8 | usize::from(second)].checked_sub(1)?;
    Some(entry(STARTS, first) + usize::from(place))
}

/// The child of a node with this last byte.
fn child(node: usize, label: u8) -> Option<usize> {
    let count = usize::from(NODES[node] & !TOKEN);
    let group = node / GROUP;
    let gap = u16::from_le_bytes([GAPS_LOW[group], GAPS_HIGH[group]]);
    let first =
        group * GROUP + usize::from(gap) + sum(before(word(NODES, group * GROUP), node % GROUP) & every(!TOKEN));
    // Eight labels at a time. The last eight may be those of other nodes, too.
    for at in (0..count).step_by(8) {
        let differing = word(LABELS, first + at) ^ every(label);
        // The lowest bit that is set here is in the lowest byte that is zero; what is above it means nothing.
        let zeros = differing.wrapping_sub(every(1)) & !differing & every(0x80);
        if zeros != 0 {
            let found = at + zeros.trailing_zeros() as usize / 8;
            return (found < count).then_some(first + found);
        }
    }
    None
}

/// The first `count` bytes of a word, and zeros in place of the others.
fn before(word: u64, count: usize) -> u64 {
    if count < 8 { word & !(u64::MAX << (8 * count)) } else { word }
}

/// The entry `at` of a table of numbers of four bytes.
fn entry(table: &[u8], at: usize) -> usize {
    table[at * 4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// The eight bytes from `at`.
fn word(table: &[u8], at: usize) -> u64 {
    table[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Eight times the same byte.
const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The sum of the eight bytes of a word.
fn sum(word: u64) -> usize {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    (((word & EVEN) + (word >> 8 & EVEN)).wrapping_mul(0x0001_0001_0001_0001) >> 48) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn rank(token: &[u8]) -> u32 {
        Prefix::byte(token[0]).followed_by(&token[1..]).map_or(NONE, Prefix::rank)
    }

    /// All tokens by their ranks.
    fn tokens() -> Vec<&'static [u8]> {
        let mut rest: &[u8] = include_bytes!("../../data/o200k_base.tokens");
        std::iter::from_fn(|| {
            let (&length, tail) = rest.split_first()?;
            let (token, tail) = tail.split_at(length.into());
            rest = tail;
            Some(token)
        })
        .collect()
    }

    #[test]
    fn every_token_has_its_rank() {
        let tokens = tokens();
        assert_eq!(tokens.len(), 199_998);
        assert_eq!(tokens.iter().filter(|token| token.len() == 1).count(), 256);
        for (expected, token) in (0..).zip(tokens).filter(|(_, token)| token.len() > 1) {
            assert_eq!(rank(token), expected);
        }
    }

    #[test]
    fn nothing_else_has_a_rank() {
        let tokens = tokens();
        let known: HashSet<&[u8]> = tokens.iter().copied().collect();
        assert_eq!(rank(b"no such token, surely"), NONE);
        // All neighbours of some tokens, from short ones to the longest.
        for token in tokens.iter().step_by(101) {
            for last in 0..=255 {
                let longer = [token, &[last][..]].concat();
                assert_eq!(rank(&longer) != NONE, known.contains(longer.as_slice()), "{longer:?}");
            }
        }
    }
}
