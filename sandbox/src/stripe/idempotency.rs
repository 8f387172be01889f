//! Idempotency keys: <https://docs.stripe.com/api/idempotent_requests>. Stricter than Stripe in one thing: every POST
//! needs one, because a payment without one can be made twice. And as strict in another that is easily forgotten: after a
//! day a key is new again.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    calendar::DAY,
    error::{Answer, StripeError},
    state::State,
};

/// What a key was used for, and what was answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    at: i64,
    path: String,
    params: Value,
    pub(super) status: u16,
    pub(super) body: Value,
}

/// Longer than any key that Stripe takes.
const LONGEST: usize = 255;

/// The key of a request that needs one.
pub(super) fn required<'a>(method: &Method, key: Option<&'a str>) -> Answer<Option<&'a str>> {
    if method != Method::POST {
        return Ok(None);
    }
    match key {
        Some(key) if (1..=LONGEST).contains(&key.len()) => Ok(Some(key)),
        Some(_) => Err(StripeError::idempotency("Idempotency-Key must have between 1 and 255 characters")),
        None => Err(StripeError::idempotency(
            "The sandbox takes no POST without the header Idempotency-Key. Stripe would, but a payment that is sent again \
             after a lost answer would then be made twice",
        )),
    }
}

impl State {
    /// The answer that was given under `key` before, when there is one.
    pub(super) fn replay(&mut self, key: &str, path: &str, params: &Map<String, Value>) -> Answer<Option<Kept>> {
        let now = self.now;
        self.kept.retain(|_, kept| kept.at + DAY > now);
        let Some(kept) = self.kept.get(key) else { return Ok(None) };
        if kept.path != path {
            return Err(StripeError::idempotency(format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for ('{}' vs \
                 '{path}'). Try using a key other than '{key}' if you meant to execute a different request.",
                kept.path
            )));
        }
        if kept.params.as_object() != Some(params) {
            return Err(StripeError::idempotency(format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try \
                 using a key other than '{key}' if you meant to execute a different request."
            )));
        }
        Ok(Some(kept.clone()))
    }

    /// Keeps an answer. Requests that were refused before anything was done may be sent again with the same key.
    pub(super) fn keep(&mut self, key: &str, path: &str, params: Map<String, Value>, status: StatusCode, body: &Value) {
        if status.is_success() || status == StatusCode::PAYMENT_REQUIRED {
            let params = Value::Object(params);
            let kept =
                Kept { at: self.now, path: path.to_owned(), params, status: status.as_u16(), body: body.clone() };
            self.kept.insert(key.to_owned(), kept);
        }
    }
}
