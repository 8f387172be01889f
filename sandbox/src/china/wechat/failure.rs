//! Errors in the vendor's shape: <https://pay.weixin.qq.com/docs/merchant/development/interface-rules/basic-rules.html>.

use http::StatusCode;
use serde_json::{Value, json};

use crate::china::Fault;

/// A refused call.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<Value>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), detail: None }
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    /// A parameter is missing or wrong. `field` as a JSON pointer; `location` is `body`, `query` or `path`.
    pub(super) fn parameter(field: &str, location: &str, value: &Value, issue: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "PARAM_ERROR",
            message: "参数错误".to_owned(),
            detail: Some(json!({"field": field, "value": value, "issue": issue, "location": location})),
        }
    }

    /// The signature, or what belongs to it.
    pub(super) fn signature(message: &str, detail: Value) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code: "SIGN_ERROR", message: message.to_owned(), detail: Some(detail) }
    }

    /// What was ordered.
    pub(super) fn ordered(fault: Fault) -> Option<Self> {
        match fault {
            Fault::Denied => Some(Self::signature("错误的签名，验签失败", json!({"location": "authorization"}))),
            Fault::Refused => Some(Self::invalid("a fault was ordered")),
            _ => None,
        }
    }

    pub(super) fn body(&self) -> Value {
        let mut body = json!({"code": self.code, "message": self.message});
        if let Some(detail) = &self.detail {
            body["detail"] = detail.clone();
        }
        body
    }
}
