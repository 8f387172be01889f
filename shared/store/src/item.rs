//! Reading and writing DynamoDB items without a mapping layer: a builder and a typed reader.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::{
    error::{Result, StoreError},
    keys::{Key, PK, SK},
};

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn s(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn n(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// An item under construction; it starts with its key.
pub(crate) struct NewItem(Item);

impl NewItem {
    pub(crate) fn at(key: &Key) -> Self {
        Self(HashMap::from([(PK.to_owned(), s(&key.pk)), (SK.to_owned(), s(&key.sk))]))
    }

    pub(crate) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, s(value))
    }

    pub(crate) fn number(self, name: &str, value: impl ToString) -> Self {
        self.set(name, n(value))
    }

    pub(crate) fn optional(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    pub(crate) fn build(self) -> Item {
        self.0
    }
}

/// Typed access to a stored item; every failure names the item and the attribute.
pub(crate) struct Reader<'a>(pub(crate) &'a Item);

impl Reader<'_> {
    pub(crate) fn corrupt(&self, what: impl Into<String>) -> StoreError {
        let part = |name| match self.0.get(name).and_then(|value| value.as_s().ok()) {
            // This goes to the log, and some keys are addresses.
            Some(key) if key.contains('@') => "(address)",
            Some(key) => key,
            None => "?",
        };
        StoreError::Corrupt { key: format!("{} {}", part(PK), part(SK)), what: what.into() }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.optional_text(name)?.ok_or_else(|| self.corrupt(format!("has no {name}")))
    }

    pub(crate) fn optional_text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.corrupt(format!("{name} is not a string"))),
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        self.optional_number(name)?.ok_or_else(|| self.corrupt(format!("has no {name}")))
    }

    pub(crate) fn optional_number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => {
                Ok(Some(parse_number(value).ok_or_else(|| self.corrupt(format!("{name} is not a fitting number")))?))
            }
        }
    }

    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        self.text(name)?.parse().map_err(|_| self.corrupt(format!("{name} is not well-formed")))
    }

    pub(crate) fn optional_parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.optional_text(name)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.corrupt(format!("{name} is not well-formed"))),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(AttributeValue::Bool(true)))
    }
}

pub(crate) fn parse_number<T: std::str::FromStr>(value: &AttributeValue) -> Option<T> {
    value.as_n().ok()?.parse().ok()
}
