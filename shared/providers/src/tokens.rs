//! Counting tokens locally, as o200k_base (the tokenizer of OpenAI's current models) does.
//!
//! The reservation before a call and the bill of a call whose vendor reported no usage rest on these counts. The
//! vocabulary lies in the binary in the form it is used in (4.3 MB, paged in where it is looked at), so there is nothing to
//! load; the crates on offer hold 65 MB and more of tables, as much as the whole gateway may take. Other vendors'
//! tokenizers differ by some tens of percent: a count is an estimate for them, and flagged so in records.

use serde::Serialize;
use serde_json::Value;

mod bpe;
mod classes;
mod hash;
mod split;

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

/// A flat estimate for an image. Source: OpenAI's vision pricing for gpt-4o: 85 + 170 per tile of 512 px, at most 8
/// tiles after scaling (2048 × 768 at the worst is 4 × 2). `detail: low` is 85.
pub const IMAGE_TOKENS: u64 = 85 + 170 * 8;
/// An image asked for with `detail: "low"`.
pub const LOW_DETAIL_IMAGE_TOKENS: u64 = 85;
/// A flat estimate for an audio part: two minutes at 10 tokens a second (OpenAI: 1 token per 100 ms of input).
pub const AUDIO_TOKENS: u64 = 1200;
/// A flat estimate for an attached file, whose pages we cannot see: about ten pages of text.
pub const FILE_TOKENS: u64 = 8000;

/// The tokens of a text. Linear in its length for ordinary text and n·log(4096) at the worst.
pub fn count_text(text: &str) -> u64 {
    let mut scratch = bpe::Scratch::default();
    let mut count = 0;
    for piece in split::pieces(text) {
        for block in piece.as_bytes().chunks(BLOCK) {
            count += bpe::count(block, &mut scratch);
        }
    }
    count
}

/// The tokens of a chat request's prompt: messages, tool definitions and the response format.
///
/// Nothing in the request can make it fail: what has an unexpected shape is counted as its JSON text, except binary
/// parts, which are counted flat ([`IMAGE_TOKENS`], [`AUDIO_TOKENS`], [`FILE_TOKENS`]).
pub fn count_prompt(body: &Value) -> u64 {
    body.as_object().map_or(0, count_prompt_map)
}

/// [`count_prompt`] for a request that is held as its members.
pub fn count_prompt_map(body: &serde_json::Map<String, Value>) -> u64 {
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut count = PRIMING + messages.iter().map(count_message).sum::<u64>();
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

fn count_message(message: &Value) -> u64 {
    let Some(message) = message.as_object() else { return PER_MESSAGE + count_json(message) };
    let mut count = PER_MESSAGE;
    for (name, value) in message {
        count += match (name.as_str(), value) {
            (_, Value::Null) => 0,
            ("content", Value::Array(parts)) => parts.iter().map(count_part).sum(),
            ("name", value) => PER_NAME + count_plain(value),
            ("tool_calls", Value::Array(calls)) => {
                calls.iter().map(|call| PER_MESSAGE + count_json(call.get("function").unwrap_or(call))).sum()
            }
            // An earlier spoken answer is referred to by its id.
            ("audio", _) => AUDIO_TOKENS,
            (_, value) => count_plain(value),
        };
    }
    count
}

fn count_part(part: &Value) -> u64 {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let has = |name| part.get(name).is_some();
    match kind {
        "text" | "refusal" => part.get(kind).map_or(0, count_plain),
        _ if kind.contains("image") || has("image_url") => {
            let low = part.get("image_url").and_then(|image| image.get("detail")).is_some_and(|detail| detail == "low");
            if low { LOW_DETAIL_IMAGE_TOKENS } else { IMAGE_TOKENS }
        }
        _ if kind.contains("audio") || has("input_audio") => AUDIO_TOKENS,
        _ if kind.contains("file") || kind.contains("video") || has("file") || holds_binary(part) => FILE_TOKENS,
        _ => count_plain(part),
    }
}

/// A part of a kind we do not know that carries a file: a data URL, or a long string without any space as base64 is.
fn holds_binary(part: &Value) -> bool {
    match part {
        Value::String(text) => {
            text.starts_with("data:") || (text.len() > 4096 && text.bytes().all(|byte| byte.is_ascii_graphic()))
        }
        Value::Array(items) => items.iter().any(holds_binary),
        Value::Object(members) => members.values().any(holds_binary),
        _ => false,
    }
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
