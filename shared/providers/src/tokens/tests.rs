#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn reference(text: &str) -> u64 {
    bpe_openai::o200k_base().count(text) as u64
}

fn check(text: &str) {
    let ours: Vec<&str> = split::pieces(text).collect();
    let theirs: Vec<&str> = bpe_openai::o200k_base().split(text).collect();
    assert_eq!(ours, theirs, "pieces of {text:?}");
    assert_eq!(count_text(text), reference(text), "tokens of {text:?}");
}

#[test]
fn the_vocabulary_is_the_reference() {
    let mut rest: &[u8] = include_bytes!("../../data/o200k_base.tokens");
    let bpe = &bpe_openai::o200k_base().bpe;
    assert_eq!(bpe.num_tokens(), 199_998);
    for id in 0..bpe.num_tokens() as u32 {
        let (&length, tail) = rest.split_first().unwrap();
        let (token, tail) = tail.split_at(length.into());
        assert_eq!(token, bpe.token_bytes(id));
        rest = tail;
    }
    assert!(rest.is_empty());
}

/// Characters tell their class by where the reference cuts in front of and behind them.
#[test]
fn every_character_is_cut_as_by_the_reference() {
    let reference = bpe_openai::o200k_base();
    for first in (0..=0x10ffff_u32).step_by(16) {
        // The large planes are uniform; a sample of them saves the reference half a minute.
        if (0x2_0000..0xe_0000).contains(&first) && first % 0x400 != 0x50 || first > 0xe_1000 && first % 0x4000 != 0 {
            continue;
        }
        let mut text = String::new();
        for character in (first..first + 16).filter_map(char::from_u32) {
            // Before and after letters of either case, a digit, a space and a line end, so that every class shows.
            text.extend([
                'a', character, 'A', character, 'a', '1', character, '1', ' ', character, ' ', 'A', character,
                character,
            ]);
            text.extend(['!', character, '!', character, '\n', character, 'B', '\'', character, '.']);
        }
        assert!(split::pieces(&text).eq(reference.split(&text)), "U+{first:04X}: {text:?}");
    }
}

const CORPUS: &[&str] = &[
    "",
    "a",
    " ",
    "Hello, world! It's what we'd call SHE'LL THEY'VE I'M you're 'tis rock'n'roll x'S a'ſ 12345678 3.14159",
    "今天天气很好，我们一起去公园散步吧。你好世界！２０２６年１１月",
    "日本語のテキストとカタカナ、한국어 문장도 있습니다. العربية हिन्दी ไทย",
    "👩‍👩‍👧‍👦 🇩🇪 ❤️ 🤷🏽‍♀️ 😀😀😀",
    "fn main() {\n    let x: Vec<u32> = vec![1, 2, 3];\n\n\tprintln!(\"{x:?}\"); // done\r\n}\r\n\r\n   ",
    "   leading\n\n\n   and trailing   ",
    "\u{a0}\u{3000}x\u{85}\u{2028}y\t\t\tz \u{200b} \u{feff}",
    "camelCase HTTPServer XMLHttpRequest iPhone ǅungla ÀÉÎ ßẞ İı e\u{301}E\u{301}\u{301}",
    "https://example.com/a/b?c=d&e=f#g //// \n/\n// ---- ****\n\n",
    "<|endoftext|><|im_start|>",
    "SGVsbG8gV29ybGQhIFRoaXMgaXMgYmFzZTY0Lg==SGVsbG8gV29ybGQhIFRoaXMgaXMgYmFzZTY0Lg==",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft pneumonoultramicroscopicsilicovolcanoconiosis",
];

#[test]
fn counts_are_the_reference_on_a_corpus() {
    for text in CORPUS {
        check(text);
    }
    check(&CORPUS.concat());
    check(include_str!("../tokens.rs"));
    check(include_str!("classes_table.rs"));
}

#[test]
fn hostile_texts_take_linear_time() {
    let random: String = (0..1 << 20)
        .scan(1u64, |state, _| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(char::from(b'a' + ((*state >> 33) % 26) as u8))
        })
        .collect();
    // A megabyte where there is but one piece to merge or to split off, less of the others for the test's own sake.
    let one_piece = ["a", " ", "天"].map(|unit| unit.repeat((1 << 20) / unit.len()));
    let units = ["A", "\n", " \n", "!", "é", "aA", "\u{301}", "👩‍👧", " x", "'s", "1"];
    let texts = one_piece.into_iter().chain(units.map(|unit| unit.repeat((1 << 17) / unit.len()))).collect::<Vec<_>>();
    for text in texts.iter().chain([&random]) {
        // Quadratic merging or splitting of a megabyte would take ten minutes, and nextest ends a test after two.
        let ours = count_text(text);
        let theirs = reference(text);
        assert!(ours.abs_diff(theirs) <= 2 * (text.len() / BLOCK) as u64, "{ours} {theirs} {:?}…", text.chars().next());
    }
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        prop::sample::select(CORPUS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "a", "B", "cd", "EF", "天", "ʰ", "\u{301}", "1", "½", "/",
            "!", "_", "ǅ", "\u{3000}", "😀", "the", " of",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,200}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn counts_are_the_reference(text in text()) {
        check(&text);
    }
}

#[test]
fn a_prompt_costs_its_messages_and_their_frame() {
    // The cookbook's own example, counted by its rule for o200k_base (the API reports the same 124 for gpt-4o).
    let body = json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]});
    assert_eq!(count_prompt(&body, 1000), 124);
    assert_eq!(count_prompt(&json!({}), 1000), 3);
    assert_eq!(count_prompt(&json!([]), 1000), 0);
}

/// The tokens of a message with these parts, without those of its frame: priming, message, role.
fn count_parts(parts: Value) -> u64 {
    count_prompt(&json!({"messages": [{"role": "user", "content": parts}]}), 1000) - (3 + 3 + 1)
}

#[test]
fn images_cost_what_the_model_takes_for_one() {
    let base64 = format!("data:image/png;base64,{}", "QUJD".repeat(100_000));
    let images = [
        json!({"type": "image_url", "image_url": {"url": base64, "detail": "low"}}),
        json!({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}),
        json!({"type": "image_url", "image_url": "https://example.com/cat.png"}),
        json!({"image_url": {"url": base64}}),
        json!({"type": "input_image", "image_url": base64}),
        json!({"type": "image", "image": base64}),
    ];
    for image in &images {
        assert_eq!(count_parts(json!([{"type": "text", "text": "hi"}, image])), 1 + 1000, "{:.80}", image.to_string());
    }
    assert_eq!(count_parts(json!(images)), 6000);
    assert_eq!(count_parts(images[0].clone()), 1000, "a part that is no list");
    assert_eq!(count_parts(json!([{"type": "image_url", "image_url": ["a", "b"]}])), 2000);
    let result = json!({"type": "tool_result", "content": [images[0], {"type": "text", "text": "hi"}]});
    assert_eq!(count_parts(json!([result])), 1001);
    let anthropic = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64}});
    assert!((1000..1050).contains(&count_parts(json!([anthropic]))));
    // Answers of models that draw are sent back.
    let answer = json!({"role": "assistant", "content": "hi", "images": images});
    assert_eq!(count_prompt(&json!({"messages": [answer]}), 1000), 3 + 3 + 1 + 1 + 6000);
}

#[test]
fn audio_and_files_cost_by_their_size() {
    let base64 = |bytes: usize| "QUJD".repeat(bytes / 4);
    for (bytes, audio, file) in [(4, 1200, 8000), (400_000, 2000, 8000), (4_000_000, 20_000, 40_000)] {
        let within = |expected: u64, part: Value| {
            let count = count_parts(json!([part]));
            assert!((expected..expected + 30).contains(&count), "{expected} {count}");
        };
        let data = base64(bytes);
        within(audio, json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}));
        within(audio, json!({"audio_url": {"url": format!("data:audio/ogg;base64,{data}")}}));
        within(file, json!({"type": "file", "file": {"filename": "a.pdf", "file_data": data}}));
        within(file, json!({"type": "input_file", "filename": "a.pdf", "file_data": data}));
        within(file, json!({"type": "video_url", "video_url": {"url": data}}));
        let unknown = json!({"type": "new", "x": {"y": [format!("data:a/b;base64,{data}")]}});
        within(file, unknown);
    }
    let spoken = json!({"role": "assistant", "audio": {"id": "audio_1"}});
    assert_eq!(count_prompt(&json!({"messages": [spoken]}), 1000), 3 + 3 + 1 + 1200);
}

#[test]
fn text_counts_whatever_stands_beside_it() {
    let text = "word ".repeat(5000);
    let words = count_text(&text);
    for (flat, part) in [
        (1000, json!({"type": "image_url", "image_url": {"url": "x"}, "text": text})),
        (1000, json!({"type": "text", "text": text, "image_url": {"url": "x"}})),
        (1200, json!({"type": "text", "text": text, "input_audio": {"data": "x"}})),
        (2200, json!({"image": "x", "audio": "x", "text": text})),
        (8000, json!({"type": "file", "file": {"file_id": "x"}, "refusal": text})),
        (0, json!({"text": text})),
        (0, json!({"type": "thinking", "thinking": text})),
        (0, json!({"type": "text", "text": text, "cache_control": null})),
    ] {
        assert_eq!(count_parts(json!([part])), flat + words, "{:.80}", part.to_string());
    }
    for part in [json!({"type": "new", "x": {"y": [1, text]}}), json!({"type": "file", "source": text}), json!(text)] {
        assert!(count_parts(json!([part])) >= words, "{:.80}", part.to_string());
    }
    // What is written as text is text, also when it looks like a file.
    let base64 = "QUJD".repeat(10_000);
    assert!(count_parts(json!([{"type": "text", "text": base64}])) >= 10_000);
    assert!(count_parts(json!([{"new": "data: is what it begins with"}])) < 20);
}

#[test]
fn tools_and_schemas_are_counted_from_their_json() {
    let message = json!({"role": "user", "content": "hi"});
    let count_prompt = |body: Value| count_prompt(&body, 1000);
    let bare = count_prompt(json!({"messages": [message]}));
    let function = json!({"name": "f", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}});
    let json_tokens = count_text(&function.to_string());
    assert_eq!(
        count_prompt(json!({"messages": [message], "tools": [{"type": "function", "function": function}]})),
        bare + 12 + 7 + json_tokens
    );
    assert_eq!(count_prompt(json!({"messages": [message], "functions": [function]})), bare + 12 + 7 + json_tokens);
    assert_eq!(
        count_prompt(
            json!({"messages": [message], "response_format": {"type": "json_schema", "json_schema": function}})
        ),
        bare + json_tokens
    );
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": function}]});
    assert_eq!(count_prompt(json!({"messages": [message, call]})), bare + 3 + 1 + 3 + json_tokens);
}

#[test]
fn odd_prompts_are_counted_somehow() {
    for body in [
        json!({"messages": "x"}),
        json!({"messages": [1, null, "x", {"role": 7, "content": {"a": 1}}]}),
        json!({"tools": {}}),
    ] {
        assert!(count_prompt(&body, 1000) >= 3);
    }
}

#[test]
fn embedding_inputs() {
    assert_eq!(count_embedding_input(&json!("hello world")), 2);
    assert_eq!(count_embedding_input(&json!(["hello world", "hello"])), 3);
    assert_eq!(count_embedding_input(&json!([1, 2, 3])), 3);
    assert_eq!(count_embedding_input(&json!([[1, 2, 3], [4]])), 4);
    assert_eq!(count_embedding_input(&json!([])), 0);
}
