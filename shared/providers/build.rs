//! Lays out the o200k_base vocabulary as a trie that the program uses where it lies in the binary: nothing to load at
//! start-up, no heap, and only the pages that are looked at take memory.

use std::{collections::VecDeque, env, error::Error, fs, path::Path};

use layout::{GROUP, TOKEN, TOKEN_GROUP};

#[path = "src/tokens/layout.rs"]
mod layout;

/// The vocabulary: for every token in the order of its rank, one byte with its length and then its bytes.
const VOCABULARY: &str = "data/o200k_base.tokens";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={VOCABULARY}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/tokens/layout.rs");
    let vocabulary = fs::read(VOCABULARY)?;
    let mut trie = Trie { pairs: vec![0; 1 << 16], ..Trie::default() };
    for same in tokens(&vocabulary)?.chunk_by(|(a, _), (b, _)| a[0] == b[0]) {
        trie.add(same)?;
    }
    // Labels are read eight at a time, also the last ones.
    trie.labels.extend([0; 7]);
    if trie.ranks.iter().any(|rank| rank >> 18 != 0) {
        return Err("ranks have more than 18 bits".into());
    }

    #[allow(clippy::disallowed_methods, reason = "how Cargo tells a build script where to write")]
    let out = env::var("OUT_DIR")?;
    let high_bits = |ranks: &[u32]| (0..).zip(ranks).fold(0, |bits, (at, rank)| bits | (rank >> 16 << (2 * at)) as u8);
    for (name, bytes) in [
        ("pairs.bin", trie.pairs),
        ("starts.bin", trie.starts.iter().flat_map(|start| start.to_le_bytes()).collect()),
        ("labels.bin", trie.labels),
        ("nodes.bin", trie.nodes),
        // Apart, as bytes that are alike compress better together.
        ("gaps_low.bin", trie.gaps.iter().map(|gap| *gap as u8).collect()),
        ("gaps_high.bin", trie.gaps.iter().map(|gap| (gap >> 8) as u8).collect()),
        ("tokens.bin", trie.tokens.iter().flat_map(|before| before.to_le_bytes()).collect()),
        ("ranks_low.bin", trie.ranks.iter().flat_map(|rank| (*rank as u16).to_le_bytes()).collect()),
        ("ranks_high.bin", trie.ranks.chunks(4).map(high_bits).collect()),
    ] {
        fs::write(Path::new(&out).join(name), bytes)?;
    }
    Ok(())
}

/// A token with its rank.
type Ranked<'a> = (&'a [u8], u32);

/// The tokens of two bytes or more, sorted.
fn tokens(vocabulary: &[u8]) -> Result<Vec<Ranked<'_>>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = vocabulary;
    let mut rank = 0;
    while let Some((&length, tail)) = rest.split_first() {
        let (token, tail) = tail.split_at_checked(length.into()).ok_or("the vocabulary is cut off")?;
        if token.len() > 1 {
            tokens.push((token, rank));
        }
        rank += 1;
        rest = tail;
    }
    tokens.sort_unstable();
    Ok(tokens)
}

/// See `layout.rs`.
#[derive(Default)]
struct Trie {
    /// For every two bytes the place of their node among those of the first byte, counted from 1; 0 is no node.
    pairs: Vec<u8>,
    /// The first node of every first byte.
    starts: Vec<u32>,
    /// The last byte of every node.
    labels: Vec<u8>,
    /// The number of children of every node, and whether it is a token.
    nodes: Vec<u8>,
    /// By how much the first child of the first node of every group comes after that node.
    gaps: Vec<u16>,
    /// The number of tokens before every group of tokens.
    tokens: Vec<u32>,
    /// Of the tokens in the order of their nodes.
    ranks: Vec<u32>,
}

impl Trie {
    /// Adds all tokens with the same first byte.
    fn add(&mut self, tokens: &[Ranked<'_>]) -> Result<(), Box<dyn Error>> {
        let first = usize::from(tokens[0].0[0]);
        let start = self.nodes.len();
        self.starts.resize(first, 0);
        self.starts.push(u32::try_from(start)?);
        // Nodes that have a label: the tokens that begin with them, and with how many of their bytes they do.
        let mut queue = VecDeque::new();
        self.add_children(tokens, 1, &mut queue);
        for (place, label) in self.labels[start..].iter().enumerate() {
            self.pairs[first << 8 | usize::from(*label)] = u8::try_from(place + 1)?;
        }
        while let Some((tokens, length)) = queue.pop_front() {
            let node = self.nodes.len();
            if node.is_multiple_of(GROUP) {
                self.gaps.push(u16::try_from(self.labels.len() - node)?);
            }
            if node.is_multiple_of(TOKEN_GROUP) {
                self.tokens.push(u32::try_from(self.ranks.len())?);
            }
            let (itself, longer) = tokens.split_at(usize::from(tokens[0].0.len() == length));
            self.ranks.extend(itself.iter().map(|(_, rank)| rank));
            let children = u8::try_from(self.add_children(longer, length, &mut queue))?;
            if children >= TOKEN {
                return Err("a node has more children than fit".into());
            }
            self.nodes.push(children | if itself.is_empty() { 0 } else { TOKEN });
        }
        // The next first byte begins a group.
        self.nodes.resize(self.nodes.len().next_multiple_of(GROUP), 0);
        self.labels.resize(self.nodes.len(), 0);
        Ok(())
    }

    /// Adds the labels of the children of the node that `length` bytes of all `tokens` lead to, and returns their number.
    fn add_children<'a>(
        &mut self,
        tokens: &'a [Ranked<'a>],
        length: usize,
        queue: &mut VecDeque<(&'a [Ranked<'a>], usize)>,
    ) -> usize {
        let before = self.labels.len();
        for child in tokens.chunk_by(|(a, _), (b, _)| a[length] == b[length]) {
            self.labels.push(child[0].0[length]);
            queue.push_back((child, length + 1));
        }
        self.labels.len() - before
    }
}
