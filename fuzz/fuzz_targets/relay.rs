//! A relay gives the same events however its upstream is cut, ends them with exactly one terminal event, never makes up
//! a `[DONE]` after an error and shows no usage that the client did not ask for.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tenantry_providers::VendorKey;
use tenantry_providers::openai::{RelayOptions, RelayOutcome, RelayState, StreamEnd, StreamRelay};
use tenantry_providers::sse::{SseItem, SseParser};

const KEY: &str = "vendor-key-0123456789";

fn relay<'a>(asked: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (BytesMut, usize, RelayOutcome) {
    let mut relay = StreamRelay::new(RelayOptions {
        client_asked_usage: asked,
        client_model: Some("mine".to_owned()),
        key: VendorKey::new(KEY),
        max_event_bytes: 4096,
    });
    let mut out = BytesMut::new();
    for piece in pieces {
        if relay.push(piece, &mut out) == RelayState::Ended {
            break;
        }
    }
    relay.eof(&mut out);
    let body = out.len();
    relay.finish(&mut out);
    (out, body, relay.into_outcome())
}

fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut parser = SseParser::default();
    let mut keep = |item: SseItem<'_>| {
        if let SseItem::Event(event) = item {
            payloads.push(event.data.to_vec());
        }
    };
    let _ = parser.push(bytes, &mut keep);
    parser.finish(&mut keep);
    payloads
}

// The first byte chooses the length of the pieces and whether the client asked for usage.
fuzz_target!(|input: &[u8]| {
    let [choice, stream @ ..] = input else { return };
    let (asked, length) = (choice & 1 == 1, usize::from(choice >> 1).max(1));
    let (out, body, outcome) = relay(asked, std::iter::once(stream));
    let (cut, cut_body, cut_outcome) = relay(asked, stream.chunks(length));
    assert_eq!((&cut, cut_body, &cut_outcome.ended, cut_outcome.usage), (&out, body, &outcome.ended, outcome.usage));
    assert_eq!(cut_outcome.produced.tokens(), outcome.produced.tokens());

    let terminal = payloads(&out[body..]);
    assert_eq!(terminal.len(), 1);
    match &outcome.ended {
        StreamEnd::Done => assert_eq!(terminal[0], b"[DONE]"),
        _ => {
            let error: Value = serde_json::from_slice(&terminal[0]).unwrap();
            assert!(error["error"]["message"].is_string() && !error.to_string().contains(KEY));
        }
    }
    for payload in payloads(&out[..body]) {
        let value: Value = serde_json::from_slice(&payload).expect("only JSON goes through before the end");
        assert!(asked || value.get("usage").is_none(), "{value}");
    }
});
