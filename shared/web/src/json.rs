//! JSON whose shape nobody knows, read within bounds.
//!
//! `serde_json::Value` has two faults for that: seven bytes of text can become half a kilobyte of memory, and
//! with its feature `raw_value` a magic key starts a parser of its own, with a depth of its own, inside a
//! string. Here one budget holds for the whole body, and a key is a key.

use std::{cell::Cell, fmt};

use serde::{
    Serialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::error::{ApiError, Code};

/// Deepest nesting. Tool schemas, the deepest that clients send, stay far below.
const DEPTH: usize = 64;
/// What one body may hold: an entry of an array counts one (72 bytes of memory), an entry of an object eight
/// (some 450). Embeddings of token ids need 300,000, which is also OpenAI's limit.
const BUDGET: usize = 400_000;
const ENTRY: usize = 8;

/// The members of a JSON object.
///
/// # Errors
/// 400 for what is not JSON, not an object, nested too deeply or too large in memory.
pub fn members(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let budget = Cell::new(BUDGET);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Bounded { depth: DEPTH, budget: &budget }.deserialize(&mut deserializer);
    let invalid = |error: serde_json::Error| ApiError::new(Code::InvalidBody, format!("The body: {error}."));
    let value = value.map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(ApiError::new(Code::InvalidBody, "The body must be a JSON object.")),
    }
}

/// A JSON object of whatever is in it, as a field of a body: within the same bounds as [`members`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Members(pub Map<String, Value>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let budget = Cell::new(BUDGET);
        match (Bounded { depth: DEPTH, budget: &budget }).deserialize(deserializer)? {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(D::Error::custom("invalid type: not an object")),
        }
    }
}

#[derive(Clone, Copy)]
struct Bounded<'a> {
    depth: usize,
    budget: &'a Cell<usize>,
}

impl Bounded<'_> {
    fn inside<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom(format!("nested deeper than {DEPTH} levels")))?;
        Ok(Self { depth, ..self })
    }

    fn spend<E: Error>(self, amount: usize) -> Result<(), E> {
        let left = self.budget.get().checked_sub(amount);
        self.budget.set(left.ok_or_else(|| E::custom("more values than a request may have"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut values = vec![];
        while let Some(value) = sequence.next_element_seed(inside)? {
            self.spend(1)?;
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.spend(ENTRY)?;
            map.insert(key, entries.next_value_seed(inside)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"b": [1, -2, 2.5, 1e300, "ü\n", null, true, {}], "a": {"x": {"y": []}}, "b2": ""}"#;
        let want: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(members(text.as_bytes()).unwrap()).to_string(), want.to_string());
    }

    #[test]
    fn one_budget_holds_for_the_whole_body() {
        let nested = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(members(nested(DEPTH - 1).as_bytes()).is_ok());
        assert!(members(nested(DEPTH).as_bytes()).is_err());
        assert!(members(nested(100_000).as_bytes()).is_err());
        let ids = format!("{{\"input\":[{}0]}}", "0,".repeat(300_000));
        assert!(members(ids.as_bytes()).is_ok());
        let objects = format!("{{\"x\":[{}0]}}", "{\"\":0},".repeat(100_000));
        assert!(members(objects.as_bytes()).is_err());
        for text in ["", "[]", "1", "{} x", "{\"a\":1", "{\"a\":1e999}"] {
            assert!(members(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_magic_key_is_a_key() {
        let raw = r#"{"x": {"$serde_json::private::RawValue": "[[[[1]]]]"}}"#;
        let read = members(raw.as_bytes()).unwrap();
        assert!(read["x"]["$serde_json::private::RawValue"].is_string());
    }
}
