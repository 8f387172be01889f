//! Lays out the o200k_base vocabulary as a hash table that the program uses where it lies in the binary: nothing to
//! load at start-up, no heap, and only the pages that are looked at take memory.

use std::{env, error::Error, fs, path::Path};

#[path = "src/tokens/hash.rs"]
mod hash;

/// The vocabulary: for every token in the order of its rank, one byte with its length and then its bytes.
const VOCABULARY: &str = "data/o200k_base.tokens";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={VOCABULARY}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/tokens/hash.rs");
    let vocabulary = fs::read(VOCABULARY)?;

    // Records of [length, rank (3 bytes), bytes].
    let mut records = Vec::with_capacity(vocabulary.len() * 2);
    let mut slots = vec![0u32; hash::SLOTS];
    let mut rest = vocabulary.as_slice();
    let mut rank = 0u32;
    while let Some((&length, tail)) = rest.split_first() {
        let (token, tail) = tail.split_at_checked(length.into()).ok_or("the vocabulary is cut off")?;
        let (mut slot, tag) = hash::slot(token);
        while slots[slot] != 0 {
            slot = (slot + 1) % hash::SLOTS;
        }
        slots[slot] = tag | (u32::try_from(records.len())? + 1);
        records.push(length);
        records.extend_from_slice(&rank.to_le_bytes()[..3]);
        records.extend_from_slice(token);
        rank += 1;
        rest = tail;
    }

    if records.len() >= 1 << hash::OFFSET_BITS {
        return Err("the offsets of the records need more bits".into());
    }

    #[allow(clippy::disallowed_methods, reason = "how Cargo tells a build script where to write")]
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("records.bin"), records)?;
    fs::write(Path::new(&out).join("slots.bin"), slots.iter().flat_map(|slot| slot.to_le_bytes()).collect::<Vec<_>>())?;
    Ok(())
}
