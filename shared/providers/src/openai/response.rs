//! A whole answer, not streamed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::chunk::{self, Chunk, Observer};
use super::error::map_error;
use super::produced::{Kind, Produced};
use crate::error::UpstreamError;
use crate::key::VendorKey;
use crate::provider::CompleteReply;
use crate::usage::Usage;

impl Observer for Produced {
    fn choice(&mut self, _: u64, _: bool) {}

    fn text(&mut self, index: u64, kind: Kind, text: &str) {
        self.add(index, kind, text);
    }
}

/// Reads the body of a successful chat answer; the client gets the very same bytes.
///
/// # Errors
/// [`UpstreamError::Protocol`] when the body is no JSON object, [`UpstreamError::Status`] when it is an error after all.
pub(crate) fn read_chat(body: Bytes, key: &VendorKey) -> Result<CompleteReply, UpstreamError> {
    let mut produced = Produced::default();
    let usage;
    let text = std::str::from_utf8(&body).map_err(|_| not_json())?;
    if let Some(chunk) = Chunk::parse(text) {
        if chunk.error.is_some() && !chunk.has_choices() {
            return Err(error_in_success(&body, key));
        }
        chunk.observe(&mut produced);
        usage = chunk.reported_usage().map_or(Usage::Missing, Usage::of_chat);
    } else {
        let answer = serde_json::from_str(text).unwrap_or(Value::Null);
        if !answer.is_object() {
            return Err(not_json());
        }
        chunk::observe_value(&answer, &mut produced);
        usage = answer.get("usage").map_or(Usage::Missing, |usage| Usage::of_chat(&usage.to_string()));
    }
    let usage = usage.given_produced(!produced.is_empty());
    Ok(CompleteReply { body, usage, produced })
}

/// Reads the body of a successful embeddings answer; the client gets the very same bytes.
///
/// # Errors
/// As [`read_chat`].
pub(crate) fn read_embeddings(body: Bytes, key: &VendorKey) -> Result<CompleteReply, UpstreamError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        usage: Option<&'a RawValue>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(not_json());
    }
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(|_| not_json())?;
    if answer.error.is_some() {
        return Err(error_in_success(&body, key));
    }
    let usage = answer.usage.map_or(Usage::Missing, |usage| Usage::of_embeddings(usage.get()));
    Ok(CompleteReply { body, usage, produced: Produced::default() })
}

fn not_json() -> UpstreamError {
    UpstreamError::Protocol("the answer is not a JSON object".to_owned())
}

/// Some servers answer 200 and put their error into the body.
fn error_in_success(body: &[u8], key: &VendorKey) -> UpstreamError {
    let status = ::http::StatusCode::INTERNAL_SERVER_ERROR;
    map_error(status, &::http::HeaderMap::new(), body, key).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::usage::TokenUsage;

    fn key() -> VendorKey {
        VendorKey::new("sk-0123456789abcdef")
    }

    fn chat(body: &'static str) -> Result<CompleteReply, UpstreamError> {
        read_chat(Bytes::from_static(body.as_bytes()), &key())
    }

    #[test]
    fn usage_and_text_are_found_and_the_body_is_untouched() {
        let body = r#"{ "id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Hello world","refusal":null},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11} , "new": 1.0}"#;
        let reply = chat(body).unwrap();
        assert_eq!(reply.body, body);
        assert_eq!(
            reply.usage.reported(),
            Some(TokenUsage { prompt_tokens: 9, completion_tokens: 2, ..TokenUsage::default() })
        );
        assert_eq!(reply.produced.tokens(), 2);
    }

    #[test]
    fn what_has_an_unusual_name_counts_too() {
        let reply = chat(
            r#"{"choices":[{"message":{"role":"assistant","content":null,"audio":{"id":"a","transcript":"Hello world","data":"QUJD"},
            "tool_calls":[{"id":"c","type":"custom","custom":{"name":"run","input":"Hello world"}}]}}]}"#,
        )
        .unwrap();
        assert_eq!(reply.produced.tokens(), 2 + 1 + crate::tokens::count_text("runHello world"));
        let stub = chat(
            r#"{"choices":[{"message":{"tool_calls":[{"custom":{"input":"x"}}]}}],"usage":{"prompt_tokens":9,"completion_tokens":0}}"#,
        );
        assert_eq!(stub.unwrap().usage, Usage::Absurd);
    }

    #[test]
    fn missing_and_unusual() {
        let reply =
            chat(r#"{"choices":[{"message":{"content":[{"type":"text","text":"Hello world"}]}}],"usage":null}"#)
                .unwrap();
        assert_eq!((reply.usage, reply.produced.tokens()), (Usage::Missing, 2));
        let reply = chat(r#"{"choices":[{"message":{"content":[]}}],"usage":{"prompt_tokens":-1}}"#).unwrap();
        assert_eq!(reply.usage, Usage::Absurd);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in ["<html>sk-0123456789abcdef", "", "[1]", "[]", "\"x\"", "{\"a\":"] {
            let error = chat(body).unwrap_err();
            assert_eq!(error.status(), 502);
            assert!(!error.body().message.contains("html"), "{error}");
            assert_eq!(
                read_embeddings(Bytes::from_static(body.as_bytes()), &key()).unwrap_err().status(),
                502,
                "{body}"
            );
        }
        let error = chat(r#"{"error":{"message":"out of memory, sk-0123456789abcdef"}}"#).unwrap_err();
        assert_eq!(error.status(), 502);
        assert!(!format!("{error} {:?}", error.body()).contains("0123456789abcdef"));
    }

    #[test]
    fn embeddings() {
        let body = r#"{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        let reply = read_embeddings(Bytes::from_static(body.as_bytes()), &key()).unwrap();
        assert_eq!(reply.usage.reported().unwrap().prompt_tokens, 8);
        assert_eq!(reply.body, body);
        assert!(read_embeddings(Bytes::from_static(br#"{"error":"no"}"#), &key()).is_err());
    }
}
