//! What can go wrong between us and a vendor, and how it looks to the client.

use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::key::VendorKey;
use crate::openai::client::MAX_ANSWER_BYTES;

/// Longer messages of vendors are cut here (in characters).
const LONGEST_MESSAGE: usize = 2000;

/// Why a call to a vendor gave no answer. No text in it holds a key, so all of it may be logged; for the client there are
/// [`status`](Self::status), [`body`](Self::body) and [`retry_after`](Self::retry_after).
#[derive(Debug, Clone, Error)]
pub enum UpstreamError {
    /// No connection: name not resolved, refused, TLS failed, connect timeout. Nothing was sent.
    #[error("cannot connect to the upstream: {0}")]
    Connect(String),
    /// The vendor took too long.
    #[error("the upstream timed out ({0:?})")]
    Timeout(TimeoutPhase),
    /// The vendor answered with an error status.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// The connection broke or what came is not what the protocol says.
    #[error("upstream protocol error: {0}")]
    Protocol(String),
    /// A whole answer outgrew our own limit. The vendor produced it, and bills it.
    #[error("the upstream's answer is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
}

/// Which wait took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutPhase {
    /// Until the head of the response.
    FirstByte,
    /// Between two chunks of a stream.
    Idle,
    /// The whole call.
    Deadline,
}

/// An error answer of a vendor, made fit for the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the upstream answered {upstream_status}: {detail}")]
pub struct StatusError {
    /// What the vendor answered.
    pub upstream_status: StatusCode,
    /// What the client gets: the same class, but our bad key is not the client's fault.
    pub status: StatusCode,
    /// How long to wait: whole seconds, at most an hour.
    pub retry_after: Option<Duration>,
    /// What the client gets.
    pub body: ErrorBody,
    /// What the vendor said, redacted, for the operator's log only.
    pub detail: String,
}

impl From<StatusError> for UpstreamError {
    fn from(error: StatusError) -> Self {
        Self::Status(Box::new(error))
    }
}

impl UpstreamError {
    /// The status for the client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Connect(_) | Self::Protocol(_) | Self::TooLarge => StatusCode::BAD_GATEWAY,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Status(error) => error.status,
        }
    }

    /// The error object for the client.
    pub fn body(&self) -> ErrorBody {
        match self {
            Self::Connect(_) => ErrorBody::upstream("upstream_unreachable", "The model's provider cannot be reached."),
            Self::Timeout(_) => {
                ErrorBody::upstream("upstream_timeout", "The model's provider took too long to answer.")
            }
            Self::Protocol(_) => ErrorBody::upstream("upstream_protocol", "The model's provider sent a broken answer."),
            Self::TooLarge => ErrorBody::upstream(
                "upstream_too_large",
                "The model's provider sent an answer that is larger than the 64 MiB that pass through here.",
            ),
            Self::Status(error) => error.body.clone(),
        }
    }

    /// The value for a `Retry-After` header: whole seconds, at most an hour.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(error) => error.retry_after,
            Self::Connect(_) | Self::Timeout(_) | Self::Protocol(_) | Self::TooLarge => None,
        }
    }
}

/// A status that tells something about our account with the vendor, which is none of the tenant's business.
pub(crate) fn is_about_key(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

/// The `error` object of OpenAI's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// For people.
    pub message: String,
    /// The class, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<String>,
}

impl ErrorBody {
    /// An error of ours about the vendor, of type `upstream_error`.
    pub fn upstream(code: &str, message: &str) -> Self {
        Self {
            message: message.to_owned(),
            kind: "upstream_error".to_owned(),
            param: None,
            code: Some(code.to_owned()),
        }
    }

    /// Our vendor key is bad; the tenant learns only that it is not its fault.
    pub(crate) fn upstream_auth() -> Self {
        Self::upstream("upstream_auth", "The model's provider refused the platform's credentials.")
    }

    pub(crate) fn is_upstream_auth(&self) -> bool {
        self.code.as_deref() == Some("upstream_auth")
    }

    /// `{"error":{…}}`
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: &'a ErrorBody,
        }
        // Strings always serialize.
        serde_json::to_vec(&Envelope { error: self }).unwrap_or_default().into()
    }

    /// Reads the error object a vendor sent, without the key or anything like it. None when it says nothing.
    pub(crate) fn from_vendor(error: &Value, key: &VendorKey) -> Option<Self> {
        let clean = |text: &str| -> String { key.redact(text).chars().take(LONGEST_MESSAGE).collect() };
        let text = |name: &str| match error.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(clean(text)),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let message = error.as_str().map(clean).or_else(|| text("message"))?;
        let (kind, param, code) = (text("type"), text("param"), text("code"));
        let refused = |word: &str| {
            matches!(word, "401" | "402" | "403" | "invalid_api_key" | "authentication_error" | "permission_error")
        };
        // Google answers a bad key with 400 and says what is wrong only in words.
        let lower = message.to_ascii_lowercase();
        let in_words =
            ["api key not valid", "invalid api key", "incorrect api key"].iter().any(|words| lower.contains(words));
        if in_words || [&kind, &code].into_iter().flatten().any(|word| refused(word)) {
            return Some(Self::upstream_auth());
        }
        Some(Self { message, kind: kind.unwrap_or_else(|| "upstream_error".to_owned()), param, code })
    }
}
