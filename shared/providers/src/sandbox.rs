//! A model that runs here, for trying the platform without a vendor and for tests: it says the last user message back.
//!
//! It is offline and deterministic, counts exactly (its tokenizer is the local one) and says what it is in
//! `system_fingerprint`.

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::stream;
use serde_json::{Map, Value, json};

use crate::error::{ErrorBody, StatusError, UpstreamError};
use crate::key::VendorKey;
use crate::openai::response::{read_chat, read_embeddings};
use crate::openai::{Produced, RelayOptions};
use crate::provider::{BoxFuture, ChatCall, ChatReply, ChatStream, CompleteReply, EmbeddingsCall, Provider};
use crate::sse::DEFAULT_MAX_EVENT_BYTES;
use crate::tokens;

/// What `system_fingerprint` says.
const FINGERPRINT: &str = "sandbox";
/// The answers claim to be made then (2025-01-01), so that the same question gives the same bytes.
const CREATED: u64 = 1_735_689_600;
/// What an image costs here, where nobody looks at it.
const IMAGE_TOKENS: u64 = 1;
/// Dimensions of an embedding: the least, the most, and what is given unasked.
const DIMENSIONS: (u64, u64, u64) = (8, 1536, 256);

/// Bytes of a message that are echoed at most: a cap cuts by counting prefixes, which is slow for megabytes.
const LONGEST_ECHO: usize = 16 * 1024;

/// The provider of the sandbox's models.
#[derive(Debug, Clone, Copy, Default)]
pub struct SandboxProvider;

impl SandboxProvider {
    /// The provider.
    pub fn new() -> Self {
        Self
    }
}

/// An answer before it has a form.
struct Echo {
    id: String,
    text: String,
    finish_reason: &'static str,
    usage: Value,
}

fn echo(request: &Map<String, Value>, cap: u64) -> Echo {
    let prompt = last_user_text(request);
    let text = if prompt.is_empty() { "(nothing to echo)".to_owned() } else { prompt };
    let short = &text[..text.floor_char_boundary(LONGEST_ECHO)];
    let fits = short.len() == text.len() && tokens::count_text(short) <= cap;
    let (text, finish_reason) = if fits { (short, "stop") } else { (prefix(short, cap), "length") };
    let prompt_tokens = tokens::count_prompt_map(request, IMAGE_TOKENS);
    let completion_tokens = tokens::count_text(text);
    Echo {
        id: format!("chatcmpl-sandbox-{:016x}", hash(text.as_bytes())),
        text: text.to_owned(),
        finish_reason,
        usage: json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }),
    }
}

/// A long prefix of at most `cap` tokens, by bisection: counts of prefixes grow but for a token at the cut.
fn prefix(text: &str, cap: u64) -> &str {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let fits = ends.partition_point(|&end| tokens::count_text(&text[..end]) <= cap);
    let mut prefix = fits.checked_sub(1).map_or("", |last| &text[..ends[last]]);
    while tokens::count_text(prefix) > cap {
        prefix = prefix.char_indices().next_back().map_or("", |(at, _)| &prefix[..at]);
    }
    prefix
}

fn last_user_text(request: &Map<String, Value>) -> String {
    let messages = request.get("messages").and_then(Value::as_array).into_iter().flatten();
    let content = messages.rev().find(|message| message["role"] == "user").map(|message| &message["content"]);
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

impl Echo {
    fn chunk(&self, model: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "system_fingerprint": FINGERPRINT, "choices": choices, "usage": null,
        })
    }

    /// The events as a vendor would send them, usage included; made one by one, as each is far larger than its word.
    fn events(self, model: String) -> impl Iterator<Item = Result<Bytes, UpstreamError>> + Send {
        let mut next = 0;
        let mut said = 0;
        std::iter::from_fn(move || {
            let choice = |delta: Value, reason: Value| {
                self.chunk(&model, json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]))
            };
            let rest = &self.text[said..];
            let event = match next {
                0 => choice(json!({"role": "assistant", "content": ""}), Value::Null).to_string(),
                1 if !rest.is_empty() => {
                    let word = rest.split_inclusive(char::is_whitespace).next().unwrap_or(rest);
                    said += word.len();
                    // More words come before the next kind of event.
                    next -= 1;
                    choice(json!({"content": word}), Value::Null).to_string()
                }
                1 => choice(json!({}), json!(self.finish_reason)).to_string(),
                2 => {
                    let mut usage = self.chunk(&model, json!([]));
                    usage["usage"] = self.usage.clone();
                    usage.to_string()
                }
                3 => "[DONE]".to_owned(),
                _ => return None,
            };
            next += 1;
            Some(Ok(format!("data: {event}\n\n").into()))
        })
    }

    fn body(&self, model: &str) -> Bytes {
        let message = json!({"role": "assistant", "content": self.text, "refusal": null});
        json!({
            "id": self.id, "object": "chat.completion", "created": CREATED, "model": model,
            "system_fingerprint": FINGERPRINT, "usage": self.usage,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}],
        })
        .to_string()
        .into()
    }
}

impl Provider for SandboxProvider {
    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<ChatReply, UpstreamError>> {
        Box::pin(async move {
            let echo = echo(&call.request, call.max_completion_tokens);
            if !call.stream {
                return read_chat(echo.body(&call.client_model), &VendorKey::new("")).map(ChatReply::Complete);
            }
            let options = call.request.get("stream_options");
            let options = RelayOptions {
                client_asked_usage: options.is_some_and(|options| options["include_usage"] == true),
                client_model: None,
                key: VendorKey::new(""),
                max_event_bytes: DEFAULT_MAX_EVENT_BYTES,
            };
            let source = stream::iter(echo.events(call.client_model));
            Ok(ChatReply::Stream(ChatStream::new(source, options, call.timing)))
        })
    }

    fn embeddings(&self, call: EmbeddingsCall) -> BoxFuture<'_, Result<CompleteReply, UpstreamError>> {
        Box::pin(async move {
            let (least, most, unasked) = DIMENSIONS;
            let dimensions = match call.request.get("dimensions") {
                None | Some(Value::Null) => unasked,
                Some(given) => given.as_u64().filter(|given| (least..=most).contains(given)).ok_or_else(|| {
                    refused("dimensions", &format!("'dimensions' must be a whole number from {least} to {most}."))
                })?,
            };
            let input = call.request.get("input").unwrap_or(&Value::Null);
            let inputs: Vec<&Value> = match input {
                Value::String(_) => vec![input],
                Value::Array(items) if items.first().is_some_and(Value::is_number) => vec![input],
                Value::Array(items) if !items.is_empty() => items.iter().collect(),
                _ => return Err(refused("input", "'input' must be a string or an array.")),
            };
            let base64 = call.request.get("encoding_format").is_some_and(|format| format == "base64");
            let data: Vec<Value> = inputs
                .iter()
                .enumerate()
                .map(|(index, input)| {
                    let vector = embedding(input.to_string().as_bytes(), dimensions);
                    let embedding = if base64 {
                        json!(BASE64.encode(&vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()))
                    } else {
                        json!(vector)
                    };
                    json!({"object": "embedding", "index": index, "embedding": embedding})
                })
                .collect();
            let count = tokens::count_embedding_input(input);
            let usage = json!({"prompt_tokens": count, "total_tokens": count});
            let body = json!({"object": "list", "data": data, "model": call.client_model, "usage": usage});
            read_embeddings(body.to_string().into(), &VendorKey::new(""))
                .map(|reply| CompleteReply { produced: Produced::default(), ..reply })
        })
    }
}

fn refused(param: &str, message: &str) -> UpstreamError {
    let status = ::http::StatusCode::BAD_REQUEST;
    StatusError {
        upstream_status: status,
        status,
        retry_after: None,
        body: ErrorBody {
            message: message.to_owned(),
            kind: "invalid_request_error".to_owned(),
            param: Some(param.to_owned()),
            code: Some("invalid_value".to_owned()),
        },
        detail: message.to_owned(),
    }
    .into()
}

/// FNV-1a, which unlike the standard library's hasher is the same everywhere and for ever.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// A unit vector whose direction is drawn by SplitMix64 from the hash of the input.
fn embedding(input: &[u8], dimensions: u64) -> Vec<f32> {
    let mut state = hash(input);
    let values: Vec<f64> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    values.iter().map(|value| (value / length) as f32).collect()
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
