//! What a delta or a message says, under whatever names.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::produced::Kind;

/// Longer strings without anything that separates words, under names that we do not know, are taken to be base64.
const LONGEST_WORD: usize = 4096;
/// Among so many texts a repetition is looked for, so that the search stays linear.
const REPEATABLE: usize = 8;

/// The texts of a `delta` or a `message` in their order, borrowed where they hold no escapes.
///
/// Every string in it was produced, and is billed, but for what names things: vendors invent members faster than they
/// could be listed here (custom tools, citations, transcripts). It reads any JSON.
#[derive(Debug, Default)]
pub(crate) struct Said<'a>(Vec<Part<'a>>);

#[derive(Debug)]
struct Part<'a> {
    /// The member it stands in.
    source: Source,
    kind: Kind,
    text: Cow<'a, str>,
}

/// The members of a delta that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Content,
    Refusal,
    Tools,
    /// The same reasoning, which some vendors send under two or three names.
    ReasoningContent,
    Reasoning,
    ReasoningDetails,
    /// Where a proxy (LiteLLM) keeps, and repeats, the vendor's own members.
    Proxy,
    Other,
}

impl Source {
    fn of(name: &str) -> Self {
        match name {
            "content" => Self::Content,
            "refusal" => Self::Refusal,
            "tool_calls" | "function_call" => Self::Tools,
            "reasoning_content" => Self::ReasoningContent,
            "reasoning" => Self::Reasoning,
            "provider_specific_fields" => Self::Proxy,
            _ if name.contains("reasoning") || name.contains("thinking") => Self::ReasoningDetails,
            _ => Self::Other,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Content => Kind::Content,
            Self::Refusal => Kind::Refusal,
            Self::Tools => Kind::Tools,
            Self::ReasoningContent | Self::Reasoning | Self::ReasoningDetails => Kind::Reasoning,
            Self::Proxy | Self::Other => Kind::Other,
        }
    }
}

impl Said<'_> {
    /// Tells every text once.
    pub(crate) fn tell(&self, mut tell: impl FnMut(Kind, &str)) {
        let has = |source| self.0.iter().any(|part| part.source == source && part.kind == Kind::Reasoning);
        let reasoning = [Source::ReasoningContent, Source::Reasoning, Source::ReasoningDetails]
            .into_iter()
            .find(|&source| has(source));
        for part in &self.0 {
            let is_told = match part.source {
                // What is encrypted beside the readable reasoning is the same reasoning.
                Source::ReasoningContent | Source::Reasoning | Source::ReasoningDetails => {
                    reasoning.is_none_or(|source| source == part.source)
                }
                Source::Proxy => !self.0.iter().take(REPEATABLE).any(|other| {
                    other.source != Source::Proxy && other.text.len() == part.text.len() && other.text == part.text
                }),
                Source::Content | Source::Refusal | Source::Tools | Source::Other => true,
            };
            if is_told {
                tell(part.kind, &part.text);
            }
        }
    }
}

/// Strings under these names tell nothing that was produced.
fn is_label(name: &str) -> bool {
    matches!(
        name,
        "role"
            | "id"
            | "type"
            | "index"
            | "object"
            | "model"
            | "status"
            | "format"
            | "mime_type"
            | "media_type"
            | "detail"
            | "obfuscation"
    ) || name.ends_with("_id")
}

/// What names base64, of which a piece may be short.
fn is_binary(name: &str, text: &str) -> bool {
    matches!(name, "data" | "b64_json" | "signature" | "thought_signature" | "encrypted_content")
        || ((text.len() > LONGEST_WORD || text.starts_with("data:"))
            && text.bytes().all(|byte| byte.is_ascii_graphic()))
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut said = Vec::new();
        Walk { said: &mut said, source: Source::Content, name: Name::Top }.deserialize(deserializer)?;
        Ok(Self(said))
    }
}

/// What a value is called.
#[derive(Clone, Copy)]
enum Name<'w> {
    /// The delta itself.
    Top,
    /// A member of the delta that is text whatever it looks like.
    Text,
    /// Any other member, and the items of its list.
    Of(&'w str),
}

/// Walks through a value and keeps its strings.
struct Walk<'w, 'a> {
    said: &'w mut Vec<Part<'a>>,
    source: Source,
    name: Name<'w>,
}

impl<'a> Walk<'_, 'a> {
    fn keep(self, text: Cow<'a, str>) {
        let is_binary = matches!(self.name, Name::Of(name) if is_binary(name, &text));
        let kind = if is_binary { Kind::Binary } else { self.source.kind() };
        if !text.is_empty() {
            self.said.push(Part { source: self.source, kind, text });
        }
    }
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for Walk<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.keep(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.keep(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { said, source, name } = self;
        while items.next_element_seed(Walk { said: &mut *said, source, name })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { said, source, name: of } = self;
        let is_top = matches!(of, Name::Top);
        while let Some(Text(name)) = members.next_key()? {
            if is_label(&name) {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let source = if is_top { Source::of(&name) } else { source };
            if source == Source::Tools && matches!(&*name, "arguments" | "input") {
                let value: &RawValue = members.next_value()?;
                // Arguments as an object are worth their JSON.
                let text = match value.get().as_bytes().first() {
                    Some(b'"') => serde_json::from_str::<Text<'_>>(value.get()).map_err(Error::custom)?.0,
                    Some(b'{' | b'[') => Cow::Borrowed(value.get()),
                    _ => continue,
                };
                Walk { said: &mut *said, source, name: Name::Text }.keep(text);
                continue;
            }
            let is_text = is_top && matches!(source, Source::Content | Source::Refusal | Source::ReasoningContent);
            let is_text = is_text || (is_top && source == Source::Reasoning) || matches!(&*name, "text" | "thinking");
            let name = if is_text { Name::Text } else { Name::Of(&name) };
            members.next_value_seed(Walk { said: &mut *said, source, name })?;
        }
        Ok(())
    }
}

/// Borrowed where it holds no escapes; a plain `Cow` would always copy.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(json: &str, expected: &[(Kind, &str)]) {
        let mut texts = Vec::new();
        serde_json::from_str::<Said<'_>>(json).unwrap().tell(|kind, text| texts.push((kind, text.to_owned())));
        let texts: Vec<_> = texts.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
        assert_eq!(texts, expected, "{json}");
    }

    #[test]
    fn everything_that_was_produced_is_told() {
        check(
            r#"{"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"run","input":"rm\u0020-rf"}}]}"#,
            &[(Kind::Tools, "run"), (Kind::Tools, "rm -rf")],
        );
        check(r#"{"tool_calls":[{"custom":{"input":""}}],"content":""}"#, &[]);
        check(r#"{"tool_calls":{"function":{"arguments":{"a": [1]}}}}"#, &[(Kind::Tools, r#"{"a": [1]}"#)]);
        check(
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes"}]}"#,
            &[(Kind::Content, "hm"), (Kind::Content, "yes")],
        );
        check(r#"{"audio":{"id":"a","transcript":"spoken","expires_at":1}}"#, &[(Kind::Other, "spoken")]);
        check(r#"{"new":{"deep":[["x"],{"y":"z"}]}}"#, &[(Kind::Other, "x"), (Kind::Other, "z")]);
        check(r#""a delta that is a string""#, &[(Kind::Content, "a delta that is a string")]);
    }

    #[test]
    fn labels_are_not_told() {
        for json in [
            r#"{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}"#,
            r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"arguments":null}}],"item_id":"x"}"#,
            r#"{"obfuscation":"abcdef"}"#,
            "null",
            "7",
            "[]",
            "{}",
        ] {
            check(json, &[]);
        }
    }

    #[test]
    fn the_same_reasoning_is_told_once() {
        for json in [
            r#"{"reasoning_content":"r","reasoning":"r"}"#,
            r#"{"reasoning_content":"","reasoning":"r"}"#,
            r#"{"reasoning":"r","reasoning_details":[{"type":"reasoning.text","text":"r","format":"f","index":0}]}"#,
            r#"{"thinking_blocks":[{"type":"thinking","thinking":"r","signature":"s"}],"reasoning_content":"r"}"#,
            r#"{"reasoning_details":[{"type":"reasoning.summary","summary":"r"}]}"#,
            r#"{"reasoning_content":"r","provider_specific_fields":{"reasoning_content":"r"}}"#,
        ] {
            check(json, &[(Kind::Reasoning, "r")]);
        }
        check(
            r#"{"reasoning":null,"reasoning_details":[{"type":"reasoning.encrypted","data":"gAAA"}]}"#,
            &[(Kind::Binary, "gAAA")],
        );
    }

    #[test]
    fn what_is_no_text_is_told_apart() {
        check(r#"{"audio":{"id":"a","data":"UklG"}}"#, &[(Kind::Binary, "UklG")]);
        check(
            r#"{"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO"}}]}"#,
            &[(Kind::Binary, "data:image/png;base64,iVBO")],
        );
        let long = "QUJD".repeat(2000);
        check(&format!(r#"{{"x":"{long}"}}"#), &[(Kind::Binary, &long)]);
        // What is text by its name is text whatever it looks like.
        check(&format!(r#"{{"content":"{long}"}}"#), &[(Kind::Content, &long)]);
        check(&format!(r#"{{"function_call":{{"arguments":"{long}"}}}}"#), &[(Kind::Tools, &long)]);
    }
}
