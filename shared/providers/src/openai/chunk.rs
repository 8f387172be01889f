//! The few fields of a chat answer that matter here, borrowed from its text so that a chunk is not turned into a tree.

use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::produced::Kind;
use super::said::Said;

/// What an answer (a chunk of a stream or a whole one) tells, in the order it tells it.
pub(crate) trait Observer {
    /// A choice appears; `finished` when it carries a reason to end.
    fn choice(&mut self, index: u64, finished: bool);
    /// Text of a choice.
    fn text(&mut self, index: u64, kind: Kind, text: &str);
}

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
pub(crate) struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    /// Also when it is null.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) usage: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<u64>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Said<'a>,
    #[serde(borrow, default)]
    message: Said<'a>,
    /// The older form.
    #[serde(borrow, default)]
    text: Said<'a>,
    /// Moonshot reports the usage here.
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// Keeps `null` apart from an absent member, which a plain `Option` does not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Chunk<'a> {
    /// None when the text is not JSON or its fields are not of the usual types.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        // Serde would also read a struct from an array.
        json.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(json).ok())?
    }

    pub(crate) fn has_choices(&self) -> bool {
        self.choices.as_ref().is_some_and(|choices| !choices.is_empty())
    }

    /// The usage that is not null, wherever it stands.
    pub(crate) fn reported_usage(&self) -> Option<&'a str> {
        let of_choices = || self.choices.iter().flatten().rev().find_map(|choice| choice.usage);
        self.usage.filter(|usage| usage.get() != "null").or_else(of_choices).map(RawValue::get)
    }

    pub(crate) fn observe(&self, observer: &mut impl Observer) {
        for (position, choice) in self.choices.iter().flatten().enumerate() {
            let index = choice.index.unwrap_or(position as u64);
            // Some vendors write an empty reason until there is one.
            let reason = choice.finish_reason.map(RawValue::get);
            observer.choice(index, reason.is_some_and(|reason| reason != r#""""#));
            for said in [&choice.text, &choice.delta, &choice.message] {
                said.tell(|kind, text| observer.text(index, kind, text));
            }
        }
    }
}

/// [`Chunk::observe`] for an answer with fields of unusual types.
pub(crate) fn observe_value(answer: &Value, observer: &mut impl Observer) {
    let choices = answer.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (position, choice) in choices.iter().enumerate() {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
        observer.choice(index, choice.get("finish_reason").is_some_and(|reason| !reason.is_null() && reason != ""));
        for value in ["text", "delta", "message"].into_iter().filter_map(|name| choice.get(name)) {
            if let Ok(said) = serde_json::from_str::<Said<'_>>(&value.to_string()) {
                said.tell(|kind, text| observer.text(index, kind, text));
            }
        }
    }
}

/// Where a value that was borrowed from `json` stands in it.
fn value_span(json: &str, value: &RawValue) -> Option<Range<usize>> {
    // The addresses are only compared; a value from elsewhere gives no range within the text.
    let start = (value.get().as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    let end = start.checked_add(value.get().len())?;
    (json.get(start..end)? == value.get()).then_some(start..end)
}

/// Where a member of an object stands, with the one comma that must go when it goes.
fn member_span(json: &str, name: &str, value: &RawValue) -> Option<Range<usize>> {
    let value = value_span(json, value)?;
    let before = json[..value.start].trim_ascii_end().strip_suffix(':')?.trim_ascii_end();
    let before = before.strip_suffix('"')?.strip_suffix(name)?.strip_suffix('"')?;
    let before = before.trim_ascii_end();
    if let Some(before) = before.strip_suffix(',') {
        return Some(before.len()..value.end);
    }
    // The first member: the comma behind it goes, if there is one.
    let after = json[value.end..].trim_ascii_start();
    let after = after.strip_prefix(',').unwrap_or(after);
    Some(before.len()..json.len() - after.len())
}

/// A change to the text of a chunk: bytes to leave out and what comes in their place.
pub(crate) type Edit = (Range<usize>, String);

impl Chunk<'_> {
    /// The edit that leaves out the member `usage`; None when it cannot be found in the text (an escaped name).
    pub(crate) fn without_usage(&self, json: &str) -> Option<Edit> {
        Some((member_span(json, "usage", self.usage?)?, String::new()))
    }

    /// The edit that gives the model another name (as JSON text), unless it has it.
    pub(crate) fn with_model(&self, json: &str, model: &str) -> Option<Edit> {
        let value = self.model.filter(|value| value.get() != model)?;
        Some((value_span(json, value)?, model.to_owned()))
    }
}

/// Carries out edits that do not overlap; `edits` ends up sorted.
pub(crate) fn apply(json: &str, edits: &mut [Edit], out: &mut String) {
    edits.sort_unstable_by_key(|(span, _)| span.start);
    let mut at = 0;
    for (span, replacement) in edits {
        out.push_str(&json[at..span.start]);
        out.push_str(replacement);
        at = span.end;
    }
    out.push_str(&json[at..]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn edited(json: &str) -> String {
        let chunk = Chunk::parse(json).unwrap();
        let mut edits: Vec<Edit> =
            chunk.without_usage(json).into_iter().chain(chunk.with_model(json, "\"m\"")).collect();
        let mut out = String::new();
        apply(json, &mut edits, &mut out);
        out
    }

    #[test]
    fn members_are_cut_out_and_the_rest_stays_as_it_is() {
        for (from, to) in [
            (r#"{"usage":null}"#, r#"{}"#),
            (r#"{ "usage" : {"a":1} , "b" : 2 }"#, r#"{ "b" : 2 }"#),
            (r#"{"a":1,"usage":null}"#, r#"{"a":1}"#),
            (
                r#"{"a": 1.50 , "usage": null , "x":"usage","b":[{"usage":1}]}"#,
                r#"{"a": 1.50  , "x":"usage","b":[{"usage":1}]}"#,
            ),
            (r#"{"model":"gpt","usage":7,"choices":[]}"#, r#"{"model":"m","choices":[]}"#),
            (r#"{"usage":7,"model":null}"#, r#"{"model":"m"}"#),
            (r#"{"model":"m","choices":null}"#, r#"{"model":"m","choices":null}"#),
            (r#"{"us\u0061ge":7}"#, r#"{"us\u0061ge":7}"#),
        ] {
            assert_eq!(edited(from), to, "{from}");
            assert!(serde_json::from_str::<Value>(&edited(from)).is_ok());
        }
    }

    #[derive(Default, Debug, PartialEq)]
    struct Seen(Vec<(u64, bool)>, Vec<(u64, Kind, String)>);

    impl Observer for Seen {
        fn choice(&mut self, index: u64, finished: bool) {
            self.0.push((index, finished));
        }
        fn text(&mut self, index: u64, kind: Kind, text: &str) {
            self.1.push((index, kind, text.to_owned()));
        }
    }

    fn seen(json: &str) -> Seen {
        let (mut strict, mut lenient) = (Seen::default(), Seen::default());
        Chunk::parse(json).unwrap().observe(&mut strict);
        observe_value(&serde_json::from_str(json).unwrap(), &mut lenient);
        assert_eq!(strict, lenient);
        strict
    }

    #[test]
    fn both_ways_of_observing_agree() {
        let json = r#"{"choices":[
            {"index":1,"delta":{"role":"assistant","content":"h\"i","refusal":null,"reasoning_content":"r","reasoning":"r","x":[1]},"finish_reason":null},
            {"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\""}},{"index":0}],"refusal":"no"},"finish_reason":"stop"},
            {"index":0,"message":{"content":"m","function_call":{"name":"g","arguments":"1"}},"logprobs":{"content":[]},"finish_reason":""},
            {"index":3,"text":"t","delta":null}],"usage":{"prompt_tokens":1}}"#;
        let seen = seen(json);
        assert_eq!(seen.0, [(1, false), (1, true), (0, false), (3, false)]);
        assert_eq!(seen.1.len(), 9);
        assert_eq!(Chunk::parse(json).unwrap().reported_usage(), Some(r#"{"prompt_tokens":1}"#));
    }
}
