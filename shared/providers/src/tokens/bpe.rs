//! Byte pair encoding over the vocabulary that the build script laid out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash;

static RECORDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/records.bin"));
static SLOTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/slots.bin"));

/// The longest token in bytes.
const LONGEST_TOKEN: usize = 128;
/// Pieces up to this many bytes are merged by scanning, which is quicker than a heap while they are short.
const SCANNED: usize = 64;
/// No token: greater than every rank.
const NONE: u32 = u32::MAX;

/// The rank of a token, [`NONE`] when there is no such token.
fn rank(token: &[u8]) -> u32 {
    if token.len() > LONGEST_TOKEN {
        return NONE;
    }
    let (mut slot, tag) = hash::slot(token);
    loop {
        let at = slot * 4;
        let found = u32::from_le_bytes([SLOTS[at], SLOTS[at + 1], SLOTS[at + 2], SLOTS[at + 3]]);
        if found == 0 {
            return NONE;
        }
        let offset = found ^ tag;
        if offset >> hash::OFFSET_BITS == 0 {
            let record = &RECORDS[offset as usize - 1..];
            if usize::from(record[0]) == token.len() && &record[4..4 + token.len()] == token {
                return u32::from_le_bytes([record[1], record[2], record[3], 0]);
            }
        }
        slot = (slot + 1) % hash::SLOTS;
    }
}

/// How many tokens a piece of text becomes: starting from single bytes, the neighbours whose union has the lowest rank
/// are merged until no union of neighbours is a token.
pub(super) fn count(piece: &[u8], scratch: &mut Scratch) -> u64 {
    if piece.len() <= 1 || rank(piece) != NONE {
        return u64::from(!piece.is_empty());
    }
    if piece.len() <= SCANNED { scan(piece, &mut scratch.parts) } else { heap(piece, scratch) }
}

/// Memory that is used again from piece to piece.
#[derive(Default)]
pub(super) struct Scratch {
    parts: Vec<Part>,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

struct Part {
    /// Where the part begins in the piece.
    start: u32,
    /// The rank of the union of this part and the next.
    union: u32,
    /// Indices of the neighbours; used by [`heap`] only.
    previous: u32,
    next: u32,
}

/// Quadratic in the length of the piece, which is short.
fn scan(piece: &[u8], parts: &mut Vec<Part>) -> u64 {
    parts.clear();
    // The last part is a sentinel at the end of the piece.
    parts.extend((0..=piece.len()).map(|start| Part {
        start: start as u32,
        union: piece.get(start..start + 2).map_or(NONE, rank),
        previous: 0,
        next: 0,
    }));
    loop {
        let mut best = (NONE, 0);
        for (at, part) in parts.iter().enumerate() {
            if part.union < best.0 {
                best = (part.union, at);
            }
        }
        if best.0 == NONE {
            return parts.len() as u64 - 1;
        }
        parts.remove(best.1 + 1);
        for at in [best.1.checked_sub(1), Some(best.1)].into_iter().flatten() {
            parts[at].union = match parts.get(at + 2) {
                Some(end) => rank(&piece[parts[at].start as usize..end.start as usize]),
                None => NONE,
            };
        }
    }
}

/// O(n log n) in the length of the piece.
fn heap(piece: &[u8], Scratch { parts, queue }: &mut Scratch) -> u64 {
    let length = piece.len() as u32;
    parts.clear();
    queue.clear();
    parts.extend((0..length).map(|start| Part {
        start,
        union: piece.get(start as usize..start as usize + 2).map_or(NONE, rank),
        previous: start.wrapping_sub(1),
        next: start + 1,
    }));
    queue.extend(parts.iter().filter(|part| part.union != NONE).map(|part| Reverse((part.union, part.start))));
    let mut count = u64::from(length);
    while let Some(Reverse((union, at))) = queue.pop() {
        // An entry is stale when its part was swallowed or has got another neighbour since.
        if parts[at as usize].union != union {
            continue;
        }
        count -= 1;
        let swallowed = parts[at as usize].next;
        let next = parts[swallowed as usize].next;
        parts[swallowed as usize].union = NONE;
        parts[at as usize].next = next;
        if next < length {
            parts[next as usize].previous = at;
        }
        for left in [parts[at as usize].previous, at] {
            let Some(part) = parts.get(left as usize) else { continue };
            let middle = part.next;
            let union = match parts.get(middle as usize) {
                Some(right) => rank(&piece[left as usize..right.next as usize]),
                None => NONE,
            };
            parts[left as usize].union = union;
            if union != NONE {
                queue.push(Reverse((union, left)));
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_merging_agree() {
        let mut scratch = Scratch::default();
        let mut state = 1u64;
        for round in 0..2000 {
            let piece: Vec<u8> = (0..2 + round % 60)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    b"aabcdeinorst \xe5\xa4\xa9"[(state >> 33) as usize % 16]
                })
                .collect();
            let scanned = scan(&piece, &mut scratch.parts);
            assert_eq!(heap(&piece, &mut scratch), scanned, "{piece:?}");
        }
    }

    #[test]
    fn every_token_has_its_rank() {
        let mut rest: &[u8] = include_bytes!("../../data/o200k_base.tokens");
        let mut expected = 0;
        while let Some((&length, tail)) = rest.split_first() {
            let (token, tail) = tail.split_at(length.into());
            assert_eq!(rank(token), expected);
            expected += 1;
            rest = tail;
        }
        assert_eq!(expected, 199_998);
        assert_eq!(rank(b"no such token, surely"), NONE);
    }
}
