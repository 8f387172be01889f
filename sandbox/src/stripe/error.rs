//! Errors in Stripe's shape: <https://docs.stripe.com/api/errors>.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::object::Kind;

/// Why the double refuses, as Stripe would say it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct StripeError {
    /// The status of the answer.
    pub status: StatusCode,
    /// `invalid_request_error`, `card_error`, `idempotency_error` or `api_error`.
    pub kind: &'static str,
    /// A code that programs look at, `resource_missing` for one.
    pub code: Option<&'static str>,
    /// For people.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// What else the error carries: `decline_code`, `charge`, `payment_intent`.
    pub more: Box<Map<String, Value>>,
}

/// What a call answers.
pub(super) type Answer<T = Value> = Result<T, StripeError>;

impl StripeError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, message: message.into(), param: None, more: Box::default() }
    }

    /// A request that makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Nothing has this id. In a parameter that is a bad request; in the path it is [`not_found`](Self::not_found).
    pub(super) fn no_such(kind: Kind, id: &str, param: &str) -> Self {
        Self::invalid(format!("No such {}: '{id}'", kind.noun())).code("resource_missing").param(param)
    }

    /// What the path names does not exist.
    pub(super) fn not_found(kind: Kind, id: &str) -> Self {
        Self::no_such(kind, id, kind.path_parameter()).status(StatusCode::NOT_FOUND)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// A key that was used for something else.
    pub(super) fn idempotency(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", message)
    }

    /// The card does not pay.
    pub(super) fn card(code: &'static str, decline_code: &str, message: &str) -> Self {
        let mut error = Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message).code(code);
        error.more.insert("decline_code".to_owned(), json!(decline_code));
        error
    }

    /// Stripe is not well.
    pub(super) fn api(status: StatusCode, message: &str) -> Self {
        Self::new(status, "api_error", message)
    }

    /// The error as the answer and as `last_payment_error` hold it.
    pub(super) fn to_json(&self) -> Value {
        let mut error = (*self.more).clone();
        error.insert("type".to_owned(), json!(self.kind));
        error.insert("message".to_owned(), json!(self.message));
        if let Some(code) = self.code {
            error.insert("code".to_owned(), json!(code));
            error.insert(
                "doc_url".to_owned(),
                json!(format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"))),
            );
        }
        if let Some(param) = &self.param {
            error.insert("param".to_owned(), json!(param));
        }
        Value::Object(error)
    }
}

impl IntoResponse for StripeError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.to_json() }))).into_response()
    }
}
