//! Parts of a message's content, which hold text or something that is no text.

use serde_json::{Map, Value};

use super::{
    AUDIO_BYTES_PER_TOKEN, AUDIO_TOKENS, FILE_BYTES_PER_TOKEN, FILE_TOKENS, count_json, count_plain, count_text,
};

/// Longer strings without anything that separates words are taken to be base64.
const LONGEST_WORD: usize = 4096;

/// What a member of a part, or the part itself by its type, holds.
enum Media {
    Image,
    Audio,
    File,
}

impl Media {
    fn of(name: &str) -> Option<Self> {
        [("image", Self::Image), ("audio", Self::Audio), ("file", Self::File), ("video", Self::File)]
            .into_iter()
            .find_map(|(word, media)| name.contains(word).then_some(media))
    }
}

/// The tokens of a part or of a list of parts. A part counts by what it has, whatever its type claims: vendors differ in
/// what they read when the two do not agree.
pub(super) fn count(part: &Value, image_tokens: u64) -> u64 {
    match part {
        Value::Array(parts) => parts.iter().map(|part| count(part, image_tokens)).sum(),
        Value::Object(members) => count_members(members, image_tokens),
        text => count_plain(text),
    }
}

/// The tokens of audio, by its size.
pub(super) fn audio(value: &Value) -> u64 {
    audio_tokens(bytes(value))
}

fn audio_tokens(bytes: u64) -> u64 {
    AUDIO_TOKENS.max(bytes / AUDIO_BYTES_PER_TOKEN)
}

fn count_members(members: &Map<String, Value>, image_tokens: u64) -> u64 {
    let (mut text, mut images) = (0, 0);
    // None without such a member; a file has several of them (`file_data`, `filename`).
    let (mut audio, mut file) = (None, None);
    let mut rest = Rest::default();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("type", Value::String(_)) | (_, Value::Null) => {}
            ("text" | "refusal" | "thinking", Value::String(value)) => text += count_text(value),
            // The result of a tool is a message within a message.
            ("content", value) => text += count(value, image_tokens),
            (name, value) => match Media::of(name) {
                Some(Media::Image) => images += value.as_array().map_or(1, Vec::len) as u64,
                Some(Media::Audio) => *audio.get_or_insert(0) += bytes(value),
                Some(Media::File) => *file.get_or_insert(0) += bytes(value),
                None => rest.add(name, value),
            },
        }
    }
    // An image may lie under any name (`source`, `url`) when the type says that it is one, and a file of an unknown kind
    // under any type.
    let kind = members.get("type").and_then(Value::as_str).and_then(Media::of);
    let nothing_yet = images == 0 && audio.is_none() && file.is_none();
    match kind.filter(|_| nothing_yet).or((rest.binary > 0).then_some(Media::File)) {
        Some(Media::Image) => images += 1,
        Some(Media::Audio) => audio = Some(rest.binary),
        Some(Media::File) => *file.get_or_insert(0) += rest.binary,
        None => {}
    }
    let audio = audio.map_or(0, audio_tokens);
    let file = file.map_or(0, |bytes| FILE_TOKENS.max(bytes / FILE_BYTES_PER_TOKEN));
    (text + rest.text + audio + file).saturating_add(image_tokens.saturating_mul(images))
}

/// What members that we do not know hold.
#[derive(Default)]
struct Rest {
    /// Tokens of text.
    text: u64,
    /// Bytes of what is no text.
    binary: u64,
}

impl Rest {
    fn add(&mut self, name: &str, value: &Value) {
        // With a quote, a colon and a comma, as in JSON.
        self.text += 3 + count_text(name);
        self.add_value(value);
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::String(text) if is_binary(text) => self.binary += text.len() as u64,
            Value::String(text) => self.text += count_text(text),
            Value::Array(items) => {
                self.text += items.len() as u64;
                items.iter().for_each(|item| self.add_value(item));
            }
            Value::Object(members) => members.iter().for_each(|(name, value)| self.add(name, value)),
            scalar => self.text += count_json(scalar),
        }
    }
}

/// A data URL, or a long string without any space as base64 is.
fn is_binary(text: &str) -> bool {
    let is_url = || text.starts_with("data:") && text.bytes().take(256).any(|byte| byte == b',');
    (text.len() > LONGEST_WORD || is_url()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// All bytes of text in a value: of a file's data and, which is nothing beside them, of its name and type.
fn bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(members) => members.values().map(bytes).sum(),
        _ => 0,
    }
}
