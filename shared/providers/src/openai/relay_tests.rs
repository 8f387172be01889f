#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::usage::TokenUsage;

/// What a relay made of a stream that came in these pieces.
struct Relayed {
    text: String,
    outcome: RelayOutcome,
}

impl Relayed {
    /// The payloads, of which the relay must make a well-formed stream.
    fn payloads(&self) -> Vec<String> {
        let mut payloads = Vec::new();
        let mut parser = SseParser::default();
        let mut keep = |item: SseItem<'_>| {
            if let SseItem::Event(event) = item {
                payloads.push(String::from_utf8(event.data.to_vec()).unwrap());
            }
        };
        parser.push(self.text.as_bytes(), &mut keep).unwrap();
        assert!(self.text.ends_with("\n\n"));
        payloads
    }

    fn error(&self) -> Value {
        let payloads = self.payloads();
        assert!(payloads.iter().all(|payload| payload != "[DONE]"), "no [DONE] after an error: {}", self.text);
        let last: Value = serde_json::from_str(payloads.last().unwrap()).unwrap();
        assert_eq!(last["error"].as_object().unwrap().len(), 4, "{last}");
        last["error"].clone()
    }
}

fn relay<'a>(options: RelayOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Relayed {
    let mut relay = StreamRelay::new(options);
    let mut out = BytesMut::new();
    for piece in pieces {
        let before = out.len();
        relay.push(piece, &mut out);
        assert!(!out[before..].windows(6).any(|window| window == b"[DONE]"), "the terminal event is for finish()");
    }
    relay.finish(&mut out);
    let length = out.len();
    relay.finish(&mut out);
    assert_eq!(out.len(), length, "finishing twice adds nothing");
    Relayed { text: String::from_utf8(out.to_vec()).unwrap(), outcome: relay.into_outcome() }
}

fn plain(stream: &str) -> Relayed {
    relay(RelayOptions::default(), [stream.as_bytes()])
}

fn asking() -> RelayOptions {
    RelayOptions { client_asked_usage: true, ..RelayOptions::default() }
}

const HELLO: &str = r#"{"id":"1","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

fn stream(payloads: &[&str]) -> String {
    payloads.iter().map(|payload| format!("data: {payload}\n\n")).collect()
}

fn nine_and_one() -> Usage {
    Usage::Reported(TokenUsage { prompt_tokens: 9, completion_tokens: 1, ..TokenUsage::default() })
}

#[test]
fn payloads_go_through_byte_for_byte() {
    let odd = r#"{ "choices" : [ {"delta":{"content":"天\u0041","x":1.0}} ] , "new":null}"#;
    let relayed = plain(&stream(&[HELLO, odd, "123", STOP, "[DONE]"]));
    assert_eq!(relayed.text, stream(&[HELLO, odd, "123", STOP, "[DONE]"]));
    assert_eq!(relayed.outcome.ended, StreamEnd::Done);
    assert!(relayed.outcome.saw_first_token);
    assert_eq!(relayed.outcome.produced.tokens(), tokens("Hello天A"));
}

fn tokens(text: &str) -> u64 {
    crate::tokens::count_text(text)
}

#[test]
fn any_line_ending_and_data_of_several_lines() {
    let relayed = plain("data:{\"choices\":\r\ndata: []}\r\n\r\ndata:[DONE]\r\n\r\n");
    assert_eq!(relayed.text, "data: {\"choices\":\ndata: []}\n\ndata: [DONE]\n\n");
    let relayed = plain(": ping\n\nevent: thing\ndata: {}\n\ndata:\n\ndata: [DONE]\n\n");
    assert_eq!(relayed.text, ":\n\nevent: thing\ndata: {}\n\ndata: [DONE]\n\n");
}

#[test]
fn usage_goes_only_to_a_client_that_asked() {
    let upstream = stream(&[HELLO, STOP, USAGE, "[DONE]"]);
    let relayed = plain(&upstream);
    assert_eq!(relayed.text, stream(&[HELLO, STOP, "[DONE]"]));
    assert_eq!(relayed.outcome.usage, nine_and_one());
    let relayed = relay(asking(), [upstream.as_bytes()]);
    assert_eq!(relayed.text, upstream);
    assert_eq!(relayed.outcome.usage, nine_and_one());
}

#[test]
fn usage_on_other_chunks_is_cut_out() {
    let with = |usage: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"a"}},"finish_reason":"stop"}}],"usage":{usage},"x":1}}"#
        )
    };
    let without = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"x":1}"#;
    let real = with(r#"{"prompt_tokens":9,"completion_tokens":1}"#);
    let relayed = plain(&stream(&[&with("null"), &real, "[DONE]"]));
    assert_eq!(relayed.text, stream(&[without, without, "[DONE]"]));
    assert_eq!(relayed.outcome.usage, nine_and_one());
    let relayed = relay(asking(), [stream(&[&with("null"), &real]).as_bytes()]);
    assert_eq!(relayed.text, stream(&[&with("null"), &real, "[DONE]"]));

    // A null does not take back what was reported, and the last report counts.
    let relayed =
        plain(&stream(&[&with(r#"{"prompt_tokens":1,"completion_tokens":1}"#), &real, &with("null"), "[DONE]"]));
    assert_eq!(relayed.outcome.usage, nine_and_one());
    let relayed = plain(&stream(&[&real, &with(r#"{"prompt_tokens":-1}"#), "[DONE]"]));
    assert_eq!(relayed.outcome.usage, Usage::Absurd);

    // A stub beside an answer is no report.
    let stub = with(r#"{"prompt_tokens":9,"completion_tokens":0}"#);
    assert_eq!(plain(&stream(&[&stub])).outcome.usage, Usage::Absurd);

    let first = r#"{"choices":[],"prompt_filter_results":[],"usage":null}"#;
    let relayed = plain(&stream(&[first, "[DONE]"]));
    assert_eq!(relayed.text, stream(&[r#"{"choices":[],"prompt_filter_results":[]}"#, "[DONE]"]));
    let escaped = r#"{"choices":[{"delta":{}}],"us\u0061ge":null}"#;
    assert_eq!(plain(&stream(&[escaped, "[DONE]"])).text, stream(&[r#"{"choices":[{"delta":{}}]}"#, "[DONE]"]));
    let moonshot = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":1}}]}"#;
    assert_eq!(plain(&stream(&[moonshot])).outcome.usage, nine_and_one());
}

#[test]
fn what_is_no_utf8_is_replaced() {
    let relayed = relay(
        RelayOptions::default(),
        [&b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xe5\xa4\"},\"\xff\":1}]}\n\ndata: [DONE]\n\n"[..]],
    );
    assert_eq!(
        relayed.payloads(),
        ["{\"choices\":[{\"delta\":{\"content\":\"a\u{fffd}\"},\"\u{fffd}\":1}]}", "[DONE]"]
    );
    assert_eq!(relayed.outcome.ended, StreamEnd::Done);
}

#[test]
fn the_model_gets_the_name_the_client_knows() {
    let options = RelayOptions { client_model: Some("mine\"".to_owned()), ..RelayOptions::default() };
    let chunk = r#"{"model":"vendor/x","choices":[{"delta":{"model":"vendor/x"}}],"usage":null}"#;
    let relayed = relay(options, [stream(&[chunk, HELLO, "[DONE]"]).as_bytes()]);
    let renamed = r#"{"model":"mine\"","choices":[{"delta":{"model":"vendor/x"}}]}"#;
    assert_eq!(relayed.text, stream(&[renamed, HELLO, "[DONE]"]));
}

#[test]
fn unusual_fields_are_read_all_the_same() {
    let parts = r#"{"choices":[{"index":null,"delta":{"content":[{"type":"text","text":"Hello"}]},"finish_reason":"stop"}],"usage":null}"#;
    let relayed = plain(&stream(&[parts]));
    let mut expected: Value = serde_json::from_str(parts).unwrap();
    expected.as_object_mut().unwrap().remove("usage");
    assert_eq!(relayed.payloads()[1], "[DONE]");
    assert_eq!(serde_json::from_str::<Value>(&relayed.payloads()[0]).unwrap(), expected);
    assert_eq!(relayed.outcome.produced.tokens(), 1);
    let odd_index = r#"{"z":1,"choices":[{"index":"0","delta":{"content":"Hello"},"finish_reason":"stop"}],"usage":null,"b":2,"a":3}"#;
    let relayed = plain(&stream(&[odd_index]));
    assert_eq!(relayed.text, stream(&[&odd_index.replace(r#""usage":null,"#, ""), "[DONE]"]), "in the same order");
    assert_eq!((relayed.outcome.produced.tokens(), relayed.outcome.ended), (1, StreamEnd::Done));
    let odd_usage = r#"{"choices":"none","usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let relayed = plain(&stream(&[STOP, odd_usage]));
    assert_eq!((relayed.payloads().len(), relayed.outcome.usage), (2, nine_and_one()));
}

#[test]
fn everything_produced_is_counted() {
    let chunks = [
        json!({"choices": [{"index": 0, "delta": {"reasoning_content": "Let me think."}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "get_weather", "arguments": ""}}]}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{\"city\""}}]}}]}),
        json!({"choices": [{"index": 0, "delta": {"refusal": "I cannot."}, "finish_reason": "tool_calls"}]}),
    ];
    let chunks: Vec<String> = chunks.iter().map(Value::to_string).collect();
    let relayed = plain(&stream(&chunks.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(
        relayed.outcome.produced.tokens(),
        tokens("Let me think.") + tokens("get_weather{\"city\"") + tokens("I cannot.")
    );
    let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
    assert!(!plain(&stream(&[role])).outcome.saw_first_token);
}

#[test]
fn custom_tools_and_what_we_do_not_know_count_as_produced() {
    for delta in [
        json!({"tool_calls": [{"index": 0, "type": "custom", "custom": {"input": "print(1)"}}]}),
        json!({"new": {"deep": ["print(1)"]}}),
    ] {
        let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}).to_string();
        let outcome = plain(&stream(&[&chunk])).outcome;
        assert!(outcome.saw_first_token);
        assert_eq!(outcome.produced.tokens(), tokens("print(1)"));
    }
}

#[test]
fn choices_finish() {
    let mut relay = StreamRelay::new(RelayOptions::default());
    let mut out = BytesMut::new();
    let second = r#"{"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":""}]}"#;
    for (payload, finished) in [
        (r#"{"choices":[],"prompt_filter_results":[]}"#, false),
        (HELLO, false),
        (STOP, true),
        (second, false),
        (&STOP.replace("\"index\":0", "\"index\":1"), true),
        (USAGE, true),
    ] {
        relay.push(stream(&[payload]).as_bytes(), &mut out);
        assert_eq!(relay.has_finished_choices(), finished, "{payload}");
    }
}

#[test]
fn comments_lose_their_text() {
    let key = VendorKey::new("sk-vendor-0123456789");
    let options = RelayOptions { key, ..RelayOptions::default() };
    let relayed = relay(options, [&b": OPENROUTER PROCESSING sk-vendor-0123456789\n\ndata: [DONE]\n\n"[..]]);
    assert_eq!(relayed.text, ":\n\ndata: [DONE]\n\n");
}

#[test]
fn done_is_made_when_forgotten_and_never_doubled() {
    for payloads in [
        &[HELLO, STOP][..],
        &[HELLO, STOP, USAGE],
        &[HELLO, USAGE],
        &[HELLO, STOP, "[DONE]", "[DONE]", HELLO, "{\"error\":1}"],
    ] {
        let relayed = plain(&stream(payloads));
        let done = relayed.payloads().iter().filter(|payload| *payload == "[DONE]").count();
        assert_eq!((done, relayed.outcome.ended.clone()), (1, StreamEnd::Done), "{payloads:?}");
        assert!(relayed.text.ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(plain("data: [DONE]").text, stream(&["[DONE]"]));
    // The answer was whole; what broke off after it is not missed.
    let relayed = plain(&format!("{}data: {{\"choices\":[],\"usage\":{{\"prom", stream(&[HELLO, STOP])));
    assert_eq!((relayed.outcome.ended, relayed.outcome.usage), (StreamEnd::Done, Usage::Missing));
}

#[test]
fn a_stream_cut_short_is_an_error() {
    let second = r#"{"choices":[{"index":1,"delta":{"content":"x"}}]}"#;
    for upstream in
        [String::new(), stream(&[HELLO]), stream(&[HELLO, STOP, second]), format!("{}data: {{\"cho", stream(&[HELLO]))]
    {
        let relayed = plain(&upstream);
        assert_eq!(relayed.error()["code"], "upstream_truncated");
        assert_eq!(relayed.outcome.ended, StreamEnd::Truncated, "{upstream}");
        assert!(!relayed.text.contains("finish_reason\":\"stop") || upstream.contains("stop"));
    }
}

#[test]
fn errors_of_the_vendor_end_the_stream() {
    let key = VendorKey::new("sk-vendor-0123456789");
    let options = || RelayOptions { key: key.clone(), ..RelayOptions::default() };
    for (payload, message, code) in [
        (
            "data: {\"error\":{\"message\":\"boom sk-vendor-0123456789\",\"type\":\"server_error\",\"code\":500}}\n\n",
            "boom [redacted]",
            "500",
        ),
        ("event: error\ndata: {\"message\":\"boom\",\"code\":\"x\"}\n\n", "boom", "x"),
        ("event: error\ndata: oops\n\n", "The model's provider reported an error.", "upstream_error"),
        (
            "data: {\"error\":{\"message\":\"m\",\"code\":502},\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
            "m",
            "502",
        ),
        (
            "data: {\"error\":{\"message\":\"bad key\",\"code\":401}}\n\n",
            "The model's provider refused the platform's credentials.",
            "upstream_auth",
        ),
        ("data: {\"choices\":[{\"del\n\n", "The model's provider sent a broken event.", "upstream_protocol"),
        ("data: <html>\n\n", "The model's provider sent a broken event.", "upstream_protocol"),
    ] {
        let relayed =
            relay(options(), [format!("{}{payload}{}", stream(&[HELLO]), stream(&[STOP, "[DONE]"])).as_bytes()]);
        assert_eq!(relayed.payloads().len(), 2, "{payload}");
        let error = relayed.error();
        assert_eq!((&error["message"], &error["code"]), (&json!(message), &json!(code)));
        let StreamEnd::UpstreamError(body) = relayed.outcome.ended else { panic!("{payload}") };
        assert_eq!(body.message, message);
        assert_eq!(relayed.outcome.produced.tokens(), 1);
    }
}

#[test]
fn a_broken_connection_ends_the_stream() {
    let mut relay = StreamRelay::new(RelayOptions::default());
    let mut out = BytesMut::new();
    assert_eq!(relay.push(stream(&[HELLO]).as_bytes(), &mut out), RelayState::Open);
    relay.fail(ErrorBody::upstream("upstream_protocol", "reset"));
    relay.fail(ErrorBody::upstream("other", "the first one counts"));
    assert_eq!(relay.push(stream(&[STOP, "[DONE]"]).as_bytes(), &mut out), RelayState::Ended);
    relay.eof(&mut out);
    relay.finish(&mut out);
    assert_eq!(
        out,
        format!(
            "{}data: {{\"error\":{{\"message\":\"reset\",\"type\":\"upstream_error\",\"param\":null,\"code\":\"upstream_protocol\"}}}}\n\n",
            stream(&[HELLO])
        )
    );

    let mut relay = StreamRelay::new(RelayOptions::default());
    relay.push(stream(&[HELLO, "[DONE]"]).as_bytes(), &mut out);
    relay.fail(ErrorBody::upstream("late", "after the end nothing can fail"));
    assert_eq!(relay.into_outcome().ended, StreamEnd::Done);
    let relay = StreamRelay::new(RelayOptions::default());
    assert_eq!(relay.into_outcome().ended, StreamEnd::Abandoned);
}

#[test]
fn an_event_that_is_too_large_ends_the_stream() {
    let options = RelayOptions { max_event_bytes: 1000, ..RelayOptions::default() };
    let relayed = relay(options, [stream(&[HELLO, &"x".repeat(1000)]).as_bytes()]);
    assert_eq!(relayed.payloads()[0], HELLO);
    assert_eq!(relayed.error()["code"], "upstream_protocol");
}

fn chunk() -> impl Strategy<Value = String> {
    let delta = prop_oneof![
        any::<String>().prop_map(|text| json!({"content": text})),
        any::<String>().prop_map(|text| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})),
        Just(json!({"role": "assistant", "content": null, "天": ["👩‍👧", 1.5]})),
    ];
    (0..3u64, delta, any::<bool>()).prop_map(|(index, delta, spaced)| {
        let chunk = json!({"choices": [{"index": index, "delta": delta, "finish_reason": null}], "id": "x"});
        // serde_json writes escapes for line ends in strings, so that the pretty form differs only in layout.
        if spaced { serde_json::to_string_pretty(&chunk).unwrap() } else { chunk.to_string() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_well_formed_stream_comes_out_the_same_however_it_is_cut(
        chunks in prop::collection::vec(chunk(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        space in any::<bool>(),
        says_done in any::<bool>(),
        asked in any::<bool>(),
    ) {
        let mut payloads = chunks;
        payloads.extend((0..3).map(|index| json!({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}).to_string()));
        let mut expected = payloads.clone();
        payloads.push(USAGE.to_owned());
        if asked {
            expected.push(USAGE.to_owned());
        }
        expected.push("[DONE]".to_owned());
        if says_done {
            payloads.push("[DONE]".to_owned());
        }
        let mut upstream = String::new();
        for payload in &payloads {
            for line in payload.split('\n') {
                upstream += &format!("data:{}{line}{line_end}", if space { " " } else { "" });
            }
            upstream += line_end;
            upstream += &format!(": ping{line_end}");
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(upstream.len() + 1)).collect();
        cuts.extend([0, upstream.len()]);
        cuts.sort_unstable();
        let options = RelayOptions { client_asked_usage: asked, ..RelayOptions::default() };
        let relayed = relay(options, cuts.windows(2).map(|cut| &upstream.as_bytes()[cut[0]..cut[1]]));
        // Without a space of its own a line gives up its first one.
        let squeezed = |payloads: &[String]| payloads.iter().map(|payload| payload.replace("\n ", "\n")).collect::<Vec<_>>();
        if space {
            prop_assert_eq!(relayed.payloads(), expected);
        } else {
            prop_assert_eq!(relayed.payloads(), squeezed(&expected));
        }
        prop_assert_eq!(relayed.outcome.usage, nine_and_one());
        prop_assert_eq!(relayed.outcome.ended, StreamEnd::Done);
    }

    #[test]
    fn arbitrary_bytes_end_in_one_terminal_event(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut relay = StreamRelay::new(RelayOptions::default());
        let mut out = BytesMut::new();
        for piece in bytes.chunks(5) {
            relay.push(piece, &mut out);
        }
        let before = out.len();
        relay.finish(&mut out);
        prop_assert!(out.len() > before && out.ends_with(b"\n\n"));
    }
}
