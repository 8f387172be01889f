//! What a vendor says a call used, read leniently but never believed blindly.

use serde::Deserialize;
use serde_json::Value;

/// A count above this (2^40 tokens) is no count: no call can use it, and sums of sane counts stay far from overflow.
pub const ABSURD_TOKENS: u64 = 1 << 40;

/// Tokens a call used, as OpenAI counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the prompt that the vendor had cached.
    pub cached_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub completion_tokens: u64,
    /// Tokens of the answer spent on reasoning.
    pub reasoning_tokens: u64,
}

/// What became of looking for usage in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// The vendor said nothing: count locally and flag the record as estimated.
    #[default]
    Missing,
    /// The vendor said something that cannot be true: count locally and flag it.
    Absurd,
    /// Plausible numbers.
    Reported(TokenUsage),
}

impl Usage {
    /// The numbers, if they can be believed.
    pub fn reported(self) -> Option<TokenUsage> {
        match self {
            Self::Reported(usage) => Some(usage),
            Self::Missing | Self::Absurd => None,
        }
    }

    /// Nothing is made for nothing: a report of no completion beside an answer is no report. Servers send such a stub early
    /// in a stream and leave it at that when the stream breaks off.
    pub(crate) fn given_produced(self, something: bool) -> Self {
        match self {
            Self::Reported(TokenUsage { completion_tokens: 0, .. }) if something => Self::Absurd,
            usage => usage,
        }
    }

    /// Reads the JSON text of a `usage` member of a chat answer.
    pub fn of_chat(json: &str) -> Self {
        Self::parse(json, true)
    }

    /// Reads the JSON text of a `usage` member of an embeddings answer, which counts only the prompt.
    pub fn of_embeddings(json: &str) -> Self {
        Self::parse(json, false)
    }

    fn parse(json: &str, chat: bool) -> Self {
        match serde_json::from_str::<Option<Wire>>(json) {
            Ok(None) => Self::Missing,
            // Serde would also read a struct from an array.
            Ok(Some(_)) if !json.trim_start().starts_with('{') => Self::Absurd,
            Ok(Some(wire)) => wire.read(chat).map_or(Self::Absurd, Self::Reported),
            Err(_) => Self::Absurd,
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    prompt_tokens: Option<Value>,
    completion_tokens: Option<Value>,
    total_tokens: Option<Value>,
    /// DeepSeek's name for the cached tokens.
    prompt_cache_hit_tokens: Option<Value>,
    /// Moonshot's.
    cached_tokens: Option<Value>,
    prompt_tokens_details: Option<Value>,
    completion_tokens_details: Option<Value>,
}

impl Wire {
    /// None when any number that is billed cannot be true.
    fn read(&self, chat: bool) -> Option<TokenUsage> {
        let prompt_tokens = count(self.prompt_tokens.as_ref()?)?;
        let mut completion_tokens = match &self.completion_tokens {
            Some(value) => count(value)?,
            None if chat => return None,
            None => 0,
        };
        let cached_tokens = match detail(&self.prompt_tokens_details, "cached_tokens")
            .or(self.prompt_cache_hit_tokens.as_ref())
            .or(self.cached_tokens.as_ref())
        {
            Some(value) => count(value)?,
            None => 0,
        };
        let reasoning_tokens = match detail(&self.completion_tokens_details, "reasoning_tokens") {
            Some(value) => count(value)?,
            None => 0,
        };
        // Some vendors (xAI, Gemini) count reasoning beside the completion; their own total gives them away.
        let total = self.total_tokens.as_ref().and_then(count);
        if reasoning_tokens > 0 && total == Some(prompt_tokens + completion_tokens + reasoning_tokens) {
            completion_tokens += reasoning_tokens;
        }
        // Every chat template costs tokens, so a chat without any is a stub of a server that does not count.
        let plausible =
            cached_tokens <= prompt_tokens && reasoning_tokens <= completion_tokens && (!chat || prompt_tokens > 0);
        plausible.then_some(TokenUsage { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens })
    }
}

/// A member of one of the details objects; null counts as absent because vendors fill them with nulls.
fn detail<'a>(details: &'a Option<Value>, name: &str) -> Option<&'a Value> {
    details.as_ref()?.get(name).filter(|value| !value.is_null())
}

/// A whole number of tokens below the absurd; fractions, negatives, strings and null are none.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().filter(|&tokens| tokens <= ABSURD_TOKENS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn tokens(prompt: u64, cached: u64, completion: u64, reasoning: u64) -> Usage {
        Usage::Reported(TokenUsage {
            prompt_tokens: prompt,
            cached_tokens: cached,
            completion_tokens: completion,
            reasoning_tokens: reasoning,
        })
    }

    #[test]
    fn openai() {
        let json = r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
            "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":32,"audio_tokens":0},"new":[1]}"#;
        assert_eq!(Usage::of_chat(json), tokens(100, 64, 50, 32));
    }

    #[test]
    fn vendors() {
        let deepseek =
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":2}"#;
        assert_eq!(Usage::of_chat(deepseek), tokens(10, 8, 5, 0));
        let nulls = r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":null}}"#;
        assert_eq!(Usage::of_chat(nulls), tokens(10, 0, 5, 0));
        let beside = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#;
        assert_eq!(Usage::of_chat(beside), tokens(10, 0, 105, 100));
    }

    #[test]
    fn embeddings() {
        assert_eq!(Usage::of_embeddings(r#"{"prompt_tokens":8,"total_tokens":8}"#), tokens(8, 0, 0, 0));
        assert_eq!(Usage::of_embeddings(r#"{"prompt_tokens":0,"total_tokens":0}"#), tokens(0, 0, 0, 0));
        assert_eq!(Usage::of_chat(r#"{"prompt_tokens":8,"total_tokens":8}"#), Usage::Absurd);
    }

    #[test]
    fn null_is_missing() {
        assert_eq!(Usage::of_chat("null"), Usage::Missing);
        assert_eq!(Usage::of_embeddings(" null "), Usage::Missing);
    }

    #[test]
    fn absurd_values_are_told_apart() {
        for value in ["-1", "1.5", "\"7\"", "null", "1099511627777", "1e30", "18446744073709551616", "[]", "true"] {
            let json = format!(r#"{{"prompt_tokens":{value},"completion_tokens":5}}"#);
            assert_eq!(Usage::of_chat(&json), Usage::Absurd, "{json}");
            let json = format!(r#"{{"prompt_tokens":5,"completion_tokens":{value}}}"#);
            assert_eq!(Usage::of_chat(&json), Usage::Absurd, "{json}");
        }
        for json in [
            "{}",
            "[]",
            "[5,5]",
            "7",
            "\"x\"",
            "nonsense",
            r#"{"prompt_tokens":0,"completion_tokens":0}"#,
            r#"{"prompt_tokens":5,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":6}}"#,
            r#"{"prompt_tokens":5,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}"#,
            r#"{"prompt_tokens":5,"completion_tokens":5,"prompt_cache_hit_tokens":-1}"#,
        ] {
            assert_eq!(Usage::of_chat(json), Usage::Absurd, "{json}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn believed_numbers_are_consistent(prompt in any::<i64>(), completion in -5i64..100, cached in -5i64..100, total in any::<i64>()) {
            let json = serde_json::json!({
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
                "prompt_tokens_details": {"cached_tokens": cached},
            });
            if let Usage::Reported(usage) = Usage::of_chat(&json.to_string()) {
                prop_assert!(usage.cached_tokens <= usage.prompt_tokens && usage.prompt_tokens <= ABSURD_TOKENS);
                prop_assert!(usage.reasoning_tokens <= usage.completion_tokens);
            }
        }
    }
}
