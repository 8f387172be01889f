//! A stream means the same however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry_providers::sse::{SseError, SseItem, SseParser};

#[derive(Debug, PartialEq)]
enum Item {
    Event(Vec<u8>, Vec<u8>),
    Comment,
}

fn parse<'a>(limit: usize, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Item>, Option<SseError>) {
    let mut items = Vec::new();
    let mut keep = |item: SseItem<'_>| {
        items.push(match item {
            SseItem::Event(event) => Item::Event(event.event.to_vec(), event.data.to_vec()),
            SseItem::Comment => Item::Comment,
        });
    };
    let mut parser = SseParser::new(limit);
    let mut error = None;
    for piece in pieces {
        error = parser.push(piece, &mut keep).err();
        if error.is_some() {
            break;
        }
    }
    parser.finish(&mut keep);
    (items, error)
}

// The first two bytes choose the limit and the length of the pieces.
fuzz_target!(|input: &[u8]| {
    let [limit, length, stream @ ..] = input else { return };
    let limit = if *limit == 255 { 1 << 20 } else { usize::from(*limit) };
    let whole = parse(limit, std::iter::once(stream));
    assert_eq!(parse(limit, stream.chunks(usize::from(*length).max(1))), whole);
    assert_eq!(parse(limit, stream.chunks(1)), whole);
});
