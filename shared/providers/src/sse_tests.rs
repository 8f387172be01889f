#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Event { event: Vec<u8>, data: Vec<u8> },
    Comment,
}

fn own(item: SseItem<'_>) -> Item {
    match item {
        SseItem::Event(SseEvent { event, data }) => Item::Event { event: event.to_vec(), data: data.to_vec() },
        SseItem::Comment => Item::Comment,
    }
}

/// Parses the pieces of a stream; the error, if any, comes with the items before it.
fn parse<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Item>, Option<SseError>) {
    let mut parser = SseParser::new(limit);
    let mut items = Vec::new();
    for piece in pieces {
        if let Err(error) = parser.push(piece, |item| items.push(own(item))) {
            parser.finish(|_| panic!("a failed parser finds nothing"));
            return (items, Some(error));
        }
    }
    parser.finish(|item| items.push(own(item)));
    (items, None)
}

fn data(text: &str) -> Item {
    Item::Event { event: Vec::new(), data: text.as_bytes().to_vec() }
}

fn items(stream: &str) -> Vec<Item> {
    parse(1 << 20, [stream.as_bytes()]).0
}

#[test]
fn every_line_ending_separates_lines() {
    for stream in [
        "data: a\n\ndata: b\n\n",
        "data: a\r\n\r\ndata: b\r\n\r\n",
        "data: a\r\rdata: b\r\r",
        "data: a\n\rdata: b\r\n\r",
    ] {
        assert_eq!(items(stream), [data("a"), data("b")], "{stream:?}");
    }
}

#[test]
fn one_space_after_the_colon_is_dropped() {
    assert_eq!(items("data:a\n\n"), [data("a")]);
    assert_eq!(items("data: a\n\n"), [data("a")]);
    assert_eq!(items("data:  a \n\n"), [data(" a ")]);
    assert_eq!(items("data\n\n"), [data("")]);
    assert_eq!(items("data:\n\n"), [data("")]);
}

#[test]
fn data_lines_are_joined() {
    assert_eq!(items("data: a\ndata:\ndata: b\n\n"), [data("a\n\nb")]);
    assert_eq!(items("data\ndata\n\n"), [data("\n")]);
}

#[test]
fn comments_and_unknown_fields() {
    assert_eq!(
        items(": ping\n\n:\ndata: a\n: inside\nfoo: bar\n\n"),
        [Item::Comment, Item::Comment, Item::Comment, data("a")]
    );
}

#[test]
fn an_event_has_its_own_type() {
    let found = items("event: error\nid: 7\nretry: 1500\ndata: a\n\ndata: b\n\nevent: lost\n\ndata: c\n\nid\n\n");
    assert_eq!(found, [Item::Event { event: b"error".to_vec(), data: b"a".to_vec() }, data("b"), data("c")]);
}

#[test]
fn a_byte_order_mark_is_dropped_only_at_the_start() {
    assert_eq!(items("\u{feff}data: a\n\n"), [data("a")]);
    assert_eq!(items("data: \u{feff}a\n\n"), [data("\u{feff}a")]);
    assert_eq!(items("\n\u{feff}data: a\n\n"), [], "a mark later on is part of an unknown field's name");
}

#[test]
fn the_last_event_may_lack_its_end() {
    assert_eq!(items("data: a\n\ndata: [DONE]"), [data("a"), data("[DONE]")]);
    assert_eq!(items("data: [DONE]\n"), [data("[DONE]")]);
    assert_eq!(items("data: [DONE]\r"), [data("[DONE]")]);
    assert_eq!(items("event: x\n"), []);
}

#[test]
fn invalid_utf8_is_passed_on() {
    let (found, _) = parse(100, [&b"data: \xff\xfe\n\n"[..]]);
    assert_eq!(found, [Item::Event { event: vec![], data: vec![0xff, 0xfe] }]);
}

#[test]
fn events_beyond_the_limit_are_refused() {
    let fits = format!("data: {}\n\n", "x".repeat(94));
    let (found, error) = parse(100, [fits.as_bytes(), fits.as_bytes()]);
    assert_eq!((found.len(), error), (2, None));
    for stream in [format!("data: {}\n\n", "x".repeat(95)), "data: x\n".repeat(15), "x".repeat(101)] {
        let stream = format!("data: before\n\n{stream}");
        let (found, error) = parse(100, [stream.as_bytes()]);
        assert_eq!(found, [data("before")]);
        assert_eq!(error, Some(SseError::TooLarge { limit: 100 }));
    }
    let pings = ": ping\n".repeat(1000);
    assert_eq!(parse(100, [pings.as_bytes()]).1, None, "comments do not add up");
}

#[test]
fn a_line_of_megabytes_fed_byte_by_byte_takes_linear_time() {
    let stream = format!("data: {}\n\n", "x".repeat(4 << 20));
    // Rescanning the line at every byte would take hours, and nextest ends a test after two minutes.
    let (found, error) = parse(DEFAULT_MAX_EVENT_BYTES, stream.as_bytes().chunks(1));
    assert_eq!((found.len(), error), (1, None));
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "data:",
            "data: ",
            "data",
            "event: error",
            "id: 1",
            "id",
            "retry: 10",
            ": c",
            ":",
            "\n",
            "\n",
            "\r",
            "\r\n",
            "\r\n\r\n",
            "\n\n",
            "天",
            "👩‍👩‍👧",
            "\u{feff}",
            "x",
            " ",
            "{\"a\":1}",
            "[DONE]",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_stream_means_the_same_however_it_is_cut(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        limit in prop_oneof![Just(1usize << 20), 0usize..40],
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        let whole = parse(limit, [stream.as_slice()]);
        prop_assert_eq!(&parse(limit, pieces), &whole);
        prop_assert_eq!(&parse(limit, stream.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), limit in 0usize..3000) {
        parse(limit, bytes.chunks(7));
    }
}
