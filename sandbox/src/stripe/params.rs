//! Parameters, taken one by one. What nobody took in the end is unknown, and refused, as Stripe does.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{Answer, StripeError};

/// The parameters of a call, or a group of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Params {
    /// The name of the group, `line_items[0]`; empty at the top.
    group: String,
    left: Map<String, Value>,
}

impl Params {
    pub(super) fn new(left: Map<String, Value>) -> Self {
        Self { group: String::new(), left }
    }

    /// The full name of a member, for messages.
    pub(super) fn name(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_owned() } else { format!("{}[{name}]", self.group) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// A text. An empty one is how clients unset a value.
    pub(super) fn text(&mut self, name: &str) -> Answer<Option<String>> {
        match self.left.shift_remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(StripeError::invalid(format!("Invalid string: {}", self.name(name))).param(self.name(name))),
        }
    }

    /// A text that is there and not empty.
    pub(super) fn some_text(&mut self, name: &str) -> Answer<Option<String>> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn required(&mut self, name: &str) -> Answer<String> {
        self.some_text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn missing(&self, name: &str) -> StripeError {
        let name = self.name(name);
        StripeError::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(name)
    }

    pub(super) fn int(&mut self, name: &str) -> Answer<Option<i64>> {
        let Some(text) = self.some_text(name)? else { return Ok(None) };
        let wrong = || {
            StripeError::invalid(format!("Invalid integer: {text}"))
                .code("parameter_invalid_integer")
                .param(self.name(name))
        };
        text.parse().map(Some).map_err(|_| wrong())
    }

    pub(super) fn flag(&mut self, name: &str) -> Answer<Option<bool>> {
        match self.some_text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(StripeError::invalid(format!("Invalid boolean: {other}")).param(self.name(name))),
        }
    }

    /// One of the values that Stripe knows.
    pub(super) fn one_of(&mut self, name: &str, known: &[&'static str]) -> Answer<Option<&'static str>> {
        let Some(text) = self.some_text(name)? else { return Ok(None) };
        let found = known.iter().find(|known| **known == text).copied();
        let wrong = || {
            StripeError::invalid(format!("Invalid {}: must be one of {}", self.name(name), known.join(", ")))
                .param(self.name(name))
        };
        found.map(Some).ok_or_else(wrong)
    }

    /// A group. An empty text unsets it, which is `None` too.
    pub(super) fn group(&mut self, name: &str) -> Answer<Option<Self>> {
        match self.left.shift_remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::Object(left)) => Ok(Some(Self { group: self.name(name), left })),
            Some(_) => Err(StripeError::invalid(format!("Invalid object: {}", self.name(name))).param(self.name(name))),
        }
    }

    /// An array of groups, in the order of its indices.
    pub(super) fn groups(&mut self, name: &str) -> Answer<Option<Vec<Self>>> {
        let Some(group) = self.group(name)? else { return Ok(None) };
        let array = || StripeError::invalid(format!("Invalid array: {}", group.group)).param(group.group.clone());
        let mut elements = BTreeMap::new();
        for (index, element) in &group.left {
            let Value::Object(left) = element else { return Err(array()) };
            let position: usize = index.parse().map_err(|_| array())?;
            elements.insert(position, Self { group: group.name(index), left: left.clone() });
        }
        Ok(Some(elements.into_values().collect()))
    }

    /// An array of texts.
    pub(super) fn texts(&mut self, name: &str) -> Answer<Option<Vec<String>>> {
        let Some(group) = self.group(name)? else { return Ok(None) };
        let array = || StripeError::invalid(format!("Invalid array: {}", group.group)).param(group.group.clone());
        let texts = group.left.iter().map(|(index, element)| match (index.parse::<usize>(), element) {
            (Ok(_), Value::String(text)) => Ok(text.clone()),
            _ => Err(array()),
        });
        texts.collect::<Answer<_>>().map(Some)
    }

    /// Writes `metadata` over `target`: an empty value removes its key, an empty parameter removes all.
    /// <https://docs.stripe.com/metadata>
    pub(super) fn metadata(&mut self, target: &mut Value) -> Answer<()> {
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        match self.left.get("metadata") {
            Some(Value::String(text)) if text.is_empty() => *target = Value::Object(Map::new()),
            _ => {}
        }
        let Some(group) = self.group("metadata")? else { return Ok(()) };
        let Some(target) = target.as_object_mut() else { return Ok(()) };
        for (key, value) in group.left {
            let Value::String(text) = value else {
                return Err(StripeError::invalid("Metadata values must be strings").param(format!("metadata[{key}]")));
            };
            if key.chars().count() > 40 || text.chars().count() > 500 {
                let limits = "Metadata keys can have up to 40 characters, and values up to 500";
                return Err(StripeError::invalid(limits).param(format!("metadata[{key}]")));
            }
            if text.is_empty() {
                target.shift_remove(&key);
            } else {
                target.insert(key, Value::String(text));
            }
        }
        if target.len() > 50 {
            return Err(StripeError::invalid("Metadata can have up to 50 keys").param("metadata"));
        }
        Ok(())
    }

    /// Takes parameters that change nothing here: texts for people, options of payment methods.
    pub(super) fn without_effect(&mut self, names: &[&str]) {
        for name in names {
            self.left.shift_remove(*name);
        }
    }

    /// Refuses what nobody took.
    pub(super) fn done(self) -> Answer<()> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let name = self.name(name);
        let message = format!("Received unknown parameter: {name} (the sandbox knows a part of Stripe's)");
        Err(StripeError::invalid(message).code("parameter_unknown").param(name))
    }
}
