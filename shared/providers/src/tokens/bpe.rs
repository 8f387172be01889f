//! Byte pair encoding over the vocabulary.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::{NONE, Prefix};

/// Pieces up to this many bytes are merged by scanning, which is quicker than a heap while they are short.
const SCANNED: usize = 64;

/// How many tokens a piece of text becomes: starting from single bytes, the neighbours whose union has the lowest rank
/// are merged until no union of neighbours is a token.
pub(super) fn count(piece: &[u8], scratch: &mut Scratch) -> u64 {
    let Some((&first, rest)) = piece.split_first() else { return 0 };
    if rest.is_empty() || Prefix::byte(first).followed_by(rest).is_some_and(|whole| whole.rank() != NONE) {
        return 1;
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
    /// The part itself, which is a token.
    token: Prefix,
    /// The rank of the union of this part and the next.
    rank: u32,
    /// That union, when it is a token.
    union: Prefix,
    /// Indices of the neighbours; used by [`heap`] only.
    previous: u32,
    next: u32,
}

impl Part {
    /// The single byte at `start` of a piece.
    fn byte(piece: &[u8], start: usize) -> Self {
        let token = Prefix::byte(piece[start]);
        let at = start as u32;
        let mut part = Self { start: at, token, rank: NONE, union: token, previous: at.wrapping_sub(1), next: at + 1 };
        part.meet(piece.get(start + 1..start + 2).unwrap_or_default());
        part
    }

    /// Looks for the union with the next part, which is `next`; it is empty after the last part.
    fn meet(&mut self, next: &[u8]) {
        self.rank = NONE;
        if let Some(union) = self.token.followed_by(next).filter(|_| !next.is_empty()) {
            (self.union, self.rank) = (union, union.rank());
        }
    }
}

/// Quadratic in the length of the piece, which is short.
fn scan(piece: &[u8], parts: &mut Vec<Part>) -> u64 {
    parts.clear();
    parts.extend((0..piece.len()).map(|start| Part::byte(piece, start)));
    loop {
        let mut best = (NONE, 0);
        for (at, part) in parts.iter().enumerate() {
            if part.rank < best.0 {
                best = (part.rank, at);
            }
        }
        let (rank, at) = best;
        if rank == NONE {
            return parts.len() as u64;
        }
        parts[at].token = parts[at].union;
        parts.remove(at + 1);
        let end = |at: usize| parts.get(at + 1).map_or(piece.len(), |part| part.start as usize);
        let (start, middle, end) = (parts[at].start as usize, end(at), end(at + 1));
        parts[at].meet(&piece[middle..end]);
        if let Some(before) = at.checked_sub(1) {
            parts[before].meet(&piece[start..middle]);
        }
    }
}

/// O(n log n) in the length of the piece.
fn heap(piece: &[u8], Scratch { parts, queue }: &mut Scratch) -> u64 {
    let length = piece.len() as u32;
    parts.clear();
    queue.clear();
    parts.extend((0..piece.len()).map(|start| Part::byte(piece, start)));
    queue.extend(parts.iter().filter(|part| part.rank != NONE).map(|part| Reverse((part.rank, part.start))));
    let mut count = u64::from(length);
    while let Some(Reverse((rank, at))) = queue.pop() {
        // An entry is stale when its part was swallowed or has got another neighbour since.
        if parts[at as usize].rank != rank {
            continue;
        }
        count -= 1;
        let swallowed = parts[at as usize].next;
        let next = parts[swallowed as usize].next;
        parts[swallowed as usize].rank = NONE;
        parts[at as usize].token = parts[at as usize].union;
        parts[at as usize].next = next;
        if next < length {
            parts[next as usize].previous = at;
        }
        for left in [parts[at as usize].previous, at] {
            let Some(part) = parts.get(left as usize) else { continue };
            let middle = part.next;
            let end = parts.get(middle as usize).map_or(middle, |right| right.next);
            let part = &mut parts[left as usize];
            part.meet(&piece[middle as usize..end as usize]);
            if part.rank != NONE {
                queue.push(Reverse((part.rank, left)));
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
}
