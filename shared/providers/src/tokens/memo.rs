//! Pieces that were counted earlier in the same text. Most words of a text come again and again, and to recognize one is
//! several times quicker than the way through the vocabulary.

/// Entries of a memo: 8 KiB of them. More would find little more.
const SLOTS: usize = 1 << 10;

/// Shorter texts repeat too little.
const SHORTEST_TEXT: usize = 1024;

/// The counts of pieces of one text. Of those that fall on the same entry, the last one is kept.
pub(super) struct Memo<'t> {
    text: &'t [u8],
    /// None when the text is too short to be worth it.
    slots: Vec<Slot>,
}

/// A piece by its place in the text, and its count. The length of a piece is never 0, that of a free entry is.
#[derive(Clone, Copy, Default)]
struct Slot {
    start: u32,
    length: u16,
    count: u16,
}

impl<'t> Memo<'t> {
    /// Without an entry.
    pub(super) fn new(text: &'t [u8]) -> Self {
        // Places and counts are numbers of few bytes.
        let worth_it = (SHORTEST_TEXT..u32::MAX as usize).contains(&text.len());
        Self { text, slots: vec![Slot::default(); if worth_it { SLOTS } else { 0 }] }
    }

    /// The count of the `piece` that begins at `start`: the one that was found earlier, or else what `count` finds.
    pub(super) fn count(&mut self, start: usize, piece: &[u8], count: impl FnOnce() -> u64) -> u64 {
        let Some(slot) = self.slots.get_mut(slot(piece)) else { return count() };
        let place = slot.start as usize..slot.start as usize + usize::from(slot.length);
        if usize::from(slot.length) == piece.len() && self.text[place] == *piece {
            return slot.count.into();
        }
        let count = count();
        if let (Ok(length), Ok(count)) = (u16::try_from(piece.len()), u16::try_from(count)) {
            *slot = Slot { start: start as u32, length, count };
        }
        count
    }
}

/// The entry that a piece falls on, by its length, how it begins and how it ends.
fn slot(piece: &[u8]) -> usize {
    let (first, last) = match (piece.first_chunk(), piece.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (piece.first_chunk(), piece.last_chunk()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            _ => (piece.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)), 0),
        },
    };
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ last.rotate_left(29) ^ (piece.len() as u64) << 32;
    (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_counted_once_while_it_keeps_its_entry() {
        let text = b"one two one ".repeat(100);
        let mut memo = Memo::new(&text);
        let mut counted = 0;
        for (start, piece) in (0..).step_by(4).zip(text.chunks(4)) {
            let expected = u64::from(piece[0]);
            let found = memo.count(start, piece, || {
                counted += 1;
                expected
            });
            assert_eq!(found, expected);
        }
        assert_ne!(slot(b"one "), slot(b"two "));
        assert_eq!(counted, 2);
    }

    #[test]
    fn a_short_text_has_no_memo() {
        let mut memo = Memo::new(b"aa");
        assert_eq!([memo.count(0, b"a", || 1), memo.count(1, b"a", || 2)], [1, 2]);
    }
}
