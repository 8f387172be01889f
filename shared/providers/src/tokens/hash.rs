// The hash of the vocabulary's table, shared by the build script that fills it and the code that reads it.

/// Slots of the table: a power of two, so few of them taken (two fifths) that a text which is no token is found out at once.
pub(crate) const SLOTS: usize = 1 << 19;

/// The low bits of a full slot are the offset of the token's record plus one (0 means a free slot); the high bits are the
/// token's tag, which tells nearly all other tokens apart without a look at their records.
pub(crate) const OFFSET_BITS: u32 = 22;

/// Where the search for a token begins, and its tag.
pub(crate) fn slot(token: &[u8]) -> (usize, u32) {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = token.len() as u64;
    for word in token.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(bytes)).wrapping_mul(FACTOR);
        hash ^= hash >> 29;
    }
    hash = hash.wrapping_mul(FACTOR);
    ((hash >> (u64::BITS - SLOTS.trailing_zeros())) as usize, ((hash >> 14) as u32) >> OFFSET_BITS << OFFSET_BITS)
}
