//! Counting tokens locally, as o200k_base (the tokenizer of OpenAI's current models) does.
//!
//! The reservation before a call and the bill of a call whose vendor reported no usage rest on these counts. The
//! vocabulary lies in the binary in the form it is used in (1.5 MB, paged in where it is looked at), so there is nothing to
//! load; the crates on offer hold 65 MB and more of tables, as much as the whole gateway may take. Other vendors'
//! tokenizers differ by some tens of percent: a count is an estimate for them, and flagged so in records.

use serde::Serialize;
use serde_json::{Map, Value};

mod bpe;
mod classes;
mod layout;
mod memo;
mod parts;
mod split;
mod vocabulary;

/// Longer pieces are cut here and counted block by block, which bounds the memory a hostile text can make the merging
/// take. At most a token or two per block (0.2 %) are counted differently; ordinary text has no such pieces.
const BLOCK: usize = 4096;

/// What every message costs beside its content.
/// Source: OpenAI cookbook, "How to count tokens with tiktoken", for gpt-4o and later.
const PER_MESSAGE: u64 = 3;
/// What a message's `name` costs beside its text (same source).
const PER_NAME: u64 = 1;
/// The start of the answer, `<|start|>assistant<|message|>` (same source).
const PRIMING: u64 = 3;
/// What a function definition costs beside its text, and the end of their list (same source). The text is taken to be the
/// definition's JSON, which is somewhat longer than the form the vendor makes of it.
const PER_TOOL: u64 = 7;
const TOOLS_END: u64 = 12;

/// The least that an audio part is taken to cost: two minutes at 10 tokens a second (OpenAI: 1 token per 100 ms of input).
const AUDIO_TOKENS: u64 = 1200;
/// Bytes of base64 to a token of audio. At 10 tokens a second, speech of a low bit rate (12 kbit/s, as Opus and AMR make it)
/// is 1,500 bytes or 2,000 of base64 a second; ordinary MP3 and WAV have fewer tokens to the byte.
const AUDIO_BYTES_PER_TOKEN: u64 = 200;
/// The least that an attached file is taken to cost, whose pages we cannot see: about ten pages of text.
const FILE_TOKENS: u64 = 8000;
/// Bytes of base64 to a token of a file. Vendors bill a page of a PDF as its text and as an image, 1,000 to 3,000 tokens; a
/// scanned page, or one with figures, is 100 to 300 KB of base64.
const FILE_BYTES_PER_TOKEN: u64 = 100;

/// The tokens of a text. Linear in its length for ordinary text and n·log(4096) at the worst.
pub fn count_text(text: &str) -> u64 {
    let mut scratch = bpe::Scratch::default();
    let mut memo = memo::Memo::new(text.as_bytes());
    let (mut start, mut tokens) = (0, 0);
    for piece in split::pieces(text) {
        for block in piece.as_bytes().chunks(BLOCK) {
            tokens += memo.count(start, block, || bpe::count(block, &mut scratch));
            start += block.len();
        }
    }
    tokens
}

/// The tokens of a chat request's prompt: messages, tool definitions and the response format. `image_tokens` is what the
/// model makes of one image at the most: it differs by a factor of thirty between models. `detail: "low"` lowers it only
/// with some vendors, hence not here: what is held too low is given away.
///
/// Nothing in the request can make it fail: what has an unexpected shape is counted as its text, except binary parts:
/// images are counted flat, audio and files by their size.
pub fn count_prompt(body: &Value, image_tokens: u64) -> u64 {
    body.as_object().map_or(0, |body| count_prompt_map(body, image_tokens))
}

/// [`count_prompt`] for a request that is held as its members.
pub fn count_prompt_map(body: &Map<String, Value>, image_tokens: u64) -> u64 {
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut count = PRIMING + messages.iter().map(|message| count_message(message, image_tokens)).sum::<u64>();
    for (list, definition) in [("tools", "function"), ("functions", "")] {
        if let Some(tools) = body.get(list).and_then(Value::as_array).filter(|tools| !tools.is_empty()) {
            count += TOOLS_END;
            count += tools.iter().map(|tool| PER_TOOL + count_json(tool.get(definition).unwrap_or(tool))).sum::<u64>();
        }
    }
    if let Some(schema) = body.get("response_format").and_then(|format| format.get("json_schema")) {
        count += count_json(schema);
    }
    count
}

fn count_message(message: &Value, image_tokens: u64) -> u64 {
    let Some(message) = message.as_object() else { return PER_MESSAGE + count_json(message) };
    let mut count = PER_MESSAGE;
    for (name, value) in message {
        count += match (name.as_str(), value) {
            (_, Value::Null) => 0,
            // Answers with images in them are sent back as they came.
            ("content" | "images", Value::Array(_) | Value::Object(_)) => parts::count(value, image_tokens),
            ("name", value) => PER_NAME + count_plain(value),
            ("tool_calls", Value::Array(calls)) => {
                calls.iter().map(|call| PER_MESSAGE + count_json(call.get("function").unwrap_or(call))).sum()
            }
            // An earlier spoken answer is referred to by its id.
            ("audio", value) => parts::audio(value),
            (_, value) => count_plain(value),
        };
    }
    count
}

/// A string as its text, anything else as its JSON.
fn count_plain(value: &Value) -> u64 {
    value.as_str().map_or_else(|| count_json(value), count_text)
}

fn count_json(value: &impl Serialize) -> u64 {
    serde_json::to_string(value).map_or(0, |json| count_text(&json))
}

/// The tokens of an embeddings request's `input`: a string, strings, tokens or lists of tokens.
pub fn count_embedding_input(input: &Value) -> u64 {
    match input {
        Value::String(text) => count_text(text),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Number(_) => 1,
                Value::Array(tokens) => tokens.len() as u64,
                item => count_plain(item),
            })
            .sum(),
        other => count_plain(other),
    }
}

#[cfg(test)]
#[path = "tokens/tests.rs"]
mod tests;
