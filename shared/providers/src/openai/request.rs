//! The request as the vendor gets it.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The field in which a vendor takes the completion cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CapField {
    /// `max_tokens`: what nearly all vendors take.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: the only one OpenAI's reasoning models accept.
    MaxCompletionTokens,
}

impl CapField {
    fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// A chat request ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedChat {
    /// The JSON body.
    pub body: Bytes,
    /// The client set `stream_options.include_usage` itself.
    pub client_asked_usage: bool,
}

/// The client's request with the vendor's name of the model and the completion cap forced; usage is asked for when
/// streaming. All other members go through as they are.
///
/// The cap goes into the field (or both fields) the client used, else into `cap_field`.
pub fn prepare_chat(
    request: &Map<String, Value>,
    model: &str,
    cap: u64,
    cap_field: CapField,
    stream: bool,
) -> PreparedChat {
    let given = |field: CapField| request.get(field.name()).is_some_and(|value| !value.is_null());
    let options = request.get("stream_options").and_then(Value::as_object);
    let client_asked_usage = options.and_then(|options| options.get("include_usage")) == Some(&Value::Bool(true));

    let mut forced = vec![("model", Value::from(model)), ("stream", Value::from(stream))];
    if stream {
        let mut options = options.cloned().unwrap_or_default();
        options.insert("include_usage".to_owned(), Value::Bool(true));
        forced.push(("stream_options", Value::Object(options)));
    }
    let fields = [CapField::MaxTokens, CapField::MaxCompletionTokens];
    let none_given = !fields.into_iter().any(given);
    for field in fields {
        // A null in the other field would be dropped by some vendors and refused by others.
        let used = given(field) || (none_given && field == cap_field);
        forced.push((field.name(), if used { Value::from(cap) } else { Value::Null }));
    }
    PreparedChat { body: overlay(request, &forced), client_asked_usage }
}

/// The client's embeddings request with the vendor's name of the model.
pub fn prepare_embeddings(request: &Map<String, Value>, model: &str) -> Bytes {
    overlay(request, &[("model", Value::from(model))])
}

/// The JSON text of `request` with the `forced` members in the place of its own; null leaves a member out. Written
/// straight from the borrowed members: requests hold megabytes of images.
fn overlay(request: &Map<String, Value>, forced: &[(&str, Value)]) -> Bytes {
    // Values always serialize.
    serde_json::to_vec(&Overlay { request, forced }).unwrap_or_default().into()
}

struct Overlay<'a> {
    request: &'a Map<String, Value>,
    forced: &'a [(&'a str, Value)],
}

impl Serialize for Overlay<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own = self.request.iter().map(|(name, value)| (name.as_str(), value));
        let own = own.filter(|(name, _)| !self.forced.iter().any(|(forced, _)| forced == name));
        let forced = self.forced.iter().map(|(name, value)| (*name, value)).filter(|(_, value)| !value.is_null());
        serializer.collect_map(own.chain(forced))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn prepare(request: Value, cap_field: CapField, stream: bool) -> (Value, bool) {
        let Value::Object(request) = request else { panic!("an object") };
        let prepared = prepare_chat(&request, "up", 100, cap_field, stream);
        (serde_json::from_slice(&prepared.body).unwrap(), prepared.client_asked_usage)
    }

    #[test]
    fn unknown_members_are_kept_and_the_model_is_set() {
        let request =
            json!({"model": "gpt", "messages": [{"role": "user", "content": "天\u{0}"}], "new": {"a": [1, 2.5, null]}});
        let expected = json!({"model": "up", "messages": [{"role": "user", "content": "天\u{0}"}], "new": {"a": [1, 2.5, null]}, "stream": false, "max_tokens": 100});
        assert_eq!(prepare(request, CapField::MaxTokens, false), (expected, false));
    }

    #[test]
    fn the_cap_goes_where_the_client_put_it() {
        for (request, field, expected) in [
            (json!({}), CapField::MaxTokens, json!({"max_tokens": 100})),
            (json!({}), CapField::MaxCompletionTokens, json!({"max_completion_tokens": 100})),
            (json!({"max_tokens": 7}), CapField::MaxCompletionTokens, json!({"max_tokens": 100})),
            (json!({"max_completion_tokens": 1e9}), CapField::MaxTokens, json!({"max_completion_tokens": 100})),
            (
                json!({"max_tokens": "x", "max_completion_tokens": 5}),
                CapField::MaxTokens,
                json!({"max_tokens": 100, "max_completion_tokens": 100}),
            ),
            (json!({"max_tokens": null}), CapField::MaxCompletionTokens, json!({"max_completion_tokens": 100})),
        ] {
            let mut expected = expected;
            expected["model"] = json!("up");
            expected["stream"] = json!(false);
            assert_eq!(prepare(request, field, false).0, expected);
        }
    }

    #[test]
    fn usage_is_always_asked_for_when_streaming() {
        let options = |request: Value| {
            let (body, asked) = prepare(request, CapField::MaxTokens, true);
            assert_eq!(body["stream"], true);
            (body["stream_options"].clone(), asked)
        };
        assert_eq!(options(json!({})), (json!({"include_usage": true}), false));
        assert_eq!(options(json!({"stream_options": null})), (json!({"include_usage": true}), false));
        assert_eq!(
            options(json!({"stream_options": {"include_usage": false, "include_obfuscation": false}})),
            (json!({"include_usage": true, "include_obfuscation": false}), false)
        );
        assert_eq!(options(json!({"stream_options": {"include_usage": true}})), (json!({"include_usage": true}), true));
    }

    #[test]
    fn embeddings() {
        let request = json!({"model": "a", "input": ["x"], "dimensions": 8});
        let body = prepare_embeddings(request.as_object().unwrap(), "up");
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"model": "up", "input": ["x"], "dimensions": 8})
        );
    }
}
