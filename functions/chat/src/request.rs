//! Checking a model request before anything is reserved: the few members that decide what it may cost.
//! All others pass to the vendor as they came.

use std::sync::Arc;

use serde_json::{Map, Value};
use tenantry_web::{ApiError, Code, json};

/// Most messages of one chat request. Each costs the vendor's template tokens that a limit on bytes
/// would not see.
const MAX_MESSAGES: usize = 2_048;
/// Most answers to one question, OpenAI's own limit.
const MAX_CHOICES: u64 = 128;
/// Most inputs of one embeddings request, OpenAI's own limit.
const MAX_INPUTS: usize = 2_048;

/// Members by which routers (OpenRouter, LiteLLM) answer with another model, account or address than was
/// asked for. A model that is not in the catalogue has no price, so it is not callable by a detour either.
const DETOURS: [&str; 15] = [
    "api_base",
    "api_key",
    "base_url",
    "content_policy_fallbacks",
    "context_window_fallbacks",
    "custom_llm_provider",
    "extra_body",
    "extra_headers",
    "fallbacks",
    "mock_response",
    "mock_testing_fallbacks",
    "models",
    "plugins",
    "provider",
    "route",
];

fn refuse_detours(members: &Map<String, Value>) -> Result<(), ApiError> {
    match DETOURS.iter().find(|name| members.contains_key(**name)) {
        Some(name) => Err(ApiError::invalid(format!("/{name}"), "is not taken here: the model alone says who answers")),
        None => Ok(()),
    }
}

/// A chat request, checked.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) members: Arc<Map<String, Value>>,
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// The largest completion the client asked for, in tokens per choice.
    pub(crate) cap: Option<u64>,
    /// How many answers it asked for.
    pub(crate) choices: u64,
}

impl ChatRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let members = json::members(body)?;
        refuse_detours(&members)?;
        let model = model(&members)?;
        let messages = match members.get("messages") {
            Some(Value::Array(messages)) => messages,
            None => return Err(ApiError::field(Code::InvalidBody, "/messages", "is missing")),
            Some(_) => return Err(ApiError::field(Code::InvalidBody, "/messages", "must be an array")),
        };
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid("/messages", format!("must have 1 to {MAX_MESSAGES} messages")));
        }
        for (index, message) in messages.iter().enumerate() {
            let Value::Object(message) = message else {
                return Err(ApiError::field(Code::InvalidBody, format!("/messages/{index}"), "must be an object"));
            };
            if !matches!(message.get("role"), Some(Value::String(_))) {
                return Err(ApiError::field(Code::InvalidBody, format!("/messages/{index}/role"), "must be a string"));
            }
        }
        let stream = match members.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return Err(ApiError::field(Code::InvalidBody, "/stream", "must be true or false")),
        };
        if !matches!(members.get("stream_options"), None | Some(Value::Null | Value::Object(_))) {
            return Err(ApiError::field(Code::InvalidBody, "/stream_options", "must be an object"));
        }
        let caps = [number(&members, "max_completion_tokens", u64::MAX)?, number(&members, "max_tokens", u64::MAX)?];
        let cap = caps.into_iter().flatten().min();
        let choices = number(&members, "n", MAX_CHOICES)?.unwrap_or(1);
        Ok(Self { model, stream, cap, choices, members: Arc::new(members) })
    }
}

/// An embeddings request, checked.
#[derive(Debug)]
pub(crate) struct EmbeddingsRequest {
    pub(crate) members: Arc<Map<String, Value>>,
    pub(crate) model: String,
}

impl EmbeddingsRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let members = json::members(body)?;
        refuse_detours(&members)?;
        let model = model(&members)?;
        match members.get("input") {
            Some(Value::String(_)) => {}
            Some(Value::Array(inputs)) if (1..=MAX_INPUTS).contains(&inputs.len()) => {}
            // An array of token ids is one input, and may be longer.
            Some(Value::Array(inputs)) if !inputs.is_empty() && inputs.iter().all(Value::is_u64) => {}
            Some(Value::Array(_)) => {
                return Err(ApiError::invalid("/input", format!("must have 1 to {MAX_INPUTS} entries")));
            }
            None => return Err(ApiError::field(Code::InvalidBody, "/input", "is missing")),
            Some(_) => return Err(ApiError::field(Code::InvalidBody, "/input", "must be a string or an array")),
        }
        Ok(Self { model, members: Arc::new(members) })
    }
}

fn model(members: &Map<String, Value>) -> Result<String, ApiError> {
    match members.get("model") {
        Some(Value::String(model)) => Ok(model.clone()),
        None => Err(ApiError::field(Code::InvalidBody, "/model", "is missing")),
        Some(_) => Err(ApiError::field(Code::InvalidBody, "/model", "must be a string")),
    }
}

/// A whole number from 1 to `most`; absent and null are the same.
fn number(members: &Map<String, Value>, name: &str, most: u64) -> Result<Option<u64>, ApiError> {
    let pointer = format!("/{name}");
    let range = if most == u64::MAX { "at least 1".to_owned() } else { format!("from 1 to {most}") };
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(value) if (1..=most).contains(&value) => Ok(Some(value)),
            _ => Err(ApiError::invalid(pointer, format!("must be a whole number {range}"))),
        },
        Some(_) => Err(ApiError::field(Code::InvalidBody, pointer, format!("must be a whole number {range}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

    #[test]
    fn takes_what_openai_clients_send() {
        let body = format!(
            r#"{{"model":"m",{MESSAGES},"max_tokens":null,"n":2,"stream":true,"max_completion_tokens":9,"x":[1]}}"#
        );
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        assert_eq!((request.cap, request.choices, request.stream), (Some(9), 2, true));
        assert!(request.members.contains_key("x"));
    }

    #[test]
    fn a_bad_request_names_the_field() {
        for (body, field) in [
            ("{}".to_owned(), "model"),
            (format!(r#"{{"model":1,{MESSAGES}}}"#), "model"),
            (r#"{"model":"m"}"#.to_owned(), "messages"),
            (r#"{"model":"m","messages":[]}"#.to_owned(), "messages"),
            (r#"{"model":"m","messages":["hi"]}"#.to_owned(), "messages.0"),
            (r#"{"model":"m","messages":[{"content":"hi"}]}"#.to_owned(), "messages.0.role"),
            (format!(r#"{{"model":"m",{MESSAGES},"max_tokens":-1}}"#), "max_tokens"),
            (format!(r#"{{"model":"m",{MESSAGES},"max_tokens":0}}"#), "max_tokens"),
            (format!(r#"{{"model":"m",{MESSAGES},"max_completion_tokens":1.5}}"#), "max_completion_tokens"),
            (format!(r#"{{"model":"m",{MESSAGES},"max_tokens":"9"}}"#), "max_tokens"),
            (format!(r#"{{"model":"m",{MESSAGES},"n":129}}"#), "n"),
            (format!(r#"{{"model":"m",{MESSAGES},"stream":"yes"}}"#), "stream"),
            (format!(r#"{{"model":"m",{MESSAGES},"stream_options":1}}"#), "stream_options"),
            (format!(r#"{{"model":"m",{MESSAGES},"models":["dearer"]}}"#), "models"),
            (format!(r#"{{"model":"m",{MESSAGES},"fallbacks":["dearer"]}}"#), "fallbacks"),
        ] {
            let error = ChatRequest::parse(body.as_bytes()).unwrap_err();
            let wire: Value = serde_json::from_slice(&error.to_openai()).unwrap();
            assert_eq!(wire["error"]["param"], field, "{body}");
        }
        assert!(EmbeddingsRequest::parse(br#"{"model":"m","input":[]}"#).is_err());
        assert!(EmbeddingsRequest::parse(br#"{"model":"m","input":{}}"#).is_err());
        assert!(EmbeddingsRequest::parse(br#"{"model":"m","input":["a","b"]}"#).is_ok());
    }
}
