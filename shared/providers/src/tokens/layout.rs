// How the vocabulary lies in the binary, shared by the build script that writes it and the code that reads it.
//
// It is a trie. Its nodes are what tokens of two bytes or more begin with; single bytes are all tokens and need no look-up.
// For every first byte, in order, there are its nodes of two bytes, then those of three and so on, each length sorted: the
// children of a node are neighbours, and follow those of the node before. So a node is two bytes, its last one and what
// `nodes.bin` has, and where its children begin is the sum of the children before. The whole compresses to less than half
// of what a hash table does, whose order looks random.

/// Of the entry of a node: it is a token. The other bits are the number of its children.
pub(crate) const TOKEN: u8 = 0x80;

/// So many nodes share an entry of the indices that tell where their children begin. The nodes of a first byte fill whole
/// groups.
pub(crate) const GROUP: usize = 8;

/// So many nodes share an entry of the index that tells how many tokens come before them.
pub(crate) const TOKEN_GROUP: usize = 32;
