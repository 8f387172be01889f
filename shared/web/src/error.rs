//! One error type for every route; the shape on the wire is chosen by [`crate::router::finish`].
//!
//! Outside the model endpoints errors are RFC 9457 problems, inside they look like OpenAI's, so that the
//! official SDKs raise their typed exceptions. `code` is the same stable word in both.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tenantry_domain::{Millis, metering::Refusal, time::rfc3339};
use tenantry_store::StoreError;
use utoipa::ToSchema;

/// Every word that `code` can be. Clients branch on these, so one is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is not JSON, or not the JSON that is wanted.
    InvalidBody,
    /// A field has a value that it cannot have.
    InvalidValue,
    /// A query parameter, path segment or header is wrong.
    InvalidParameter,
    /// No credentials, or none that hold.
    Unauthenticated,
    /// The API key is unknown, revoked or mistyped. OpenAI's own word.
    InvalidApiKey,
    /// E-mail and password do not match an account that may sign in.
    InvalidCredentials,
    /// The account's address has to be confirmed first.
    EmailNotVerified,
    /// The credits do not cover the price of the request.
    InsufficientCredits,
    /// The bank declined a payment.
    PaymentFailed,
    /// The caller may not do this.
    Forbidden,
    /// The plan does not include this.
    UpgradeRequired,
    /// The one-time token was used, replaced or not made by us, or its time is over.
    InvalidToken,
    /// There is no such thing here.
    NotFound,
    /// There is no such model. OpenAI's own word.
    ModelNotFound,
    /// The path knows other methods.
    MethodNotAllowed,
    /// What is asked for collides with what is there.
    Conflict,
    /// The address belongs to an account already.
    EmailTaken,
    /// The resource is in another version than `If-Match` names.
    PreconditionFailed,
    /// A request with this `Idempotency-Key` is being worked on.
    IdempotencyInFlight,
    /// The request with this `Idempotency-Key` was carried out, and its answer was lost.
    IdempotencyAnswerLost,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// The body is larger than the stated limit.
    BodyTooLarge,
    /// The body is not declared as `application/json`, or is compressed.
    UnsupportedMediaType,
    /// Too many requests a minute.
    RateLimited,
    /// The month's allowance does not cover the request.
    QuotaExceeded,
    /// As many requests are in flight as the plan allows.
    TooManyInFlight,
    /// The model vendor failed; the message says how.
    UpstreamError,
    /// A dependency is down; try again after `Retry-After`.
    Unavailable,
    /// A fault of ours. The request id leads to the log line.
    Internal,
}

impl Code {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidBody | Self::InvalidParameter => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::InvalidApiKey | Self::InvalidCredentials => StatusCode::UNAUTHORIZED,
            Self::InsufficientCredits | Self::PaymentFailed => StatusCode::PAYMENT_REQUIRED,
            Self::Forbidden | Self::UpgradeRequired | Self::EmailNotVerified => StatusCode::FORBIDDEN,
            Self::NotFound | Self::ModelNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict | Self::EmailTaken | Self::IdempotencyInFlight | Self::IdempotencyAnswerLost => {
                StatusCode::CONFLICT
            }
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidValue | Self::InvalidToken | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited | Self::QuotaExceeded | Self::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::InvalidBody => "The body is not what this route takes",
            Self::InvalidValue => "A value is not allowed",
            Self::InvalidParameter => "A parameter is not well-formed",
            Self::Unauthenticated => "Sign in first",
            Self::InvalidApiKey => "The API key is not valid",
            Self::InvalidCredentials => "E-mail or password is wrong",
            Self::InsufficientCredits => "Out of credits",
            Self::PaymentFailed => "The payment failed",
            Self::EmailNotVerified => "The e-mail address is not confirmed",
            Self::InvalidToken => "The token is not good",
            Self::Forbidden => "Not allowed",
            Self::UpgradeRequired => "The plan does not include this",
            Self::NotFound => "Not found",
            Self::ModelNotFound => "No such model",
            Self::MethodNotAllowed => "Wrong method",
            Self::Conflict => "Conflict",
            Self::EmailTaken => "The e-mail address is taken",
            Self::PreconditionFailed => "It has changed meanwhile",
            Self::IdempotencyInFlight => "The same request is in flight",
            Self::IdempotencyAnswerLost => "It was done, and the answer was lost",
            Self::IdempotencyKeyReused => "The idempotency key was used for another request",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The media type is not supported",
            Self::RateLimited => "Too many requests",
            Self::QuotaExceeded => "The plan's quota is used up",
            Self::TooManyInFlight => "Too many requests at the same time",
            Self::UpstreamError => "The model vendor failed",
            Self::Unavailable => "Not available right now",
            Self::Internal => "Internal error",
        }
    }

    /// `type` of OpenAI's errors.
    const fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthenticated | Self::InvalidApiKey | Self::InvalidCredentials => "authentication_error",
            Self::Forbidden | Self::UpgradeRequired | Self::EmailNotVerified => "permission_error",
            Self::InsufficientCredits | Self::QuotaExceeded => "insufficient_quota",
            Self::RateLimited | Self::TooManyInFlight => "rate_limit_error",
            Self::UpstreamError => "upstream_error",
            Self::Unavailable | Self::Internal => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// Where in the body a problem lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[schema(example = "/email")]
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// An RFC 9457 problem, as every route but the model endpoints answers errors.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stable URI of the kind of problem.
    pub r#type: String,
    /// The kind of problem in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// Stable word for programs.
    pub code: Code,
    /// The response's `x-request-id`.
    pub request_id: String,
    /// The fields that are wrong, where fields are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// An error as OpenAI's clients expect it, as the model endpoints answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiError {
    /// The error.
    pub error: OpenAiErrorBody,
}

/// Inside of [`OpenAiError`].
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiErrorBody {
    /// What happened, and what to do.
    pub message: String,
    /// OpenAI's classes of errors.
    pub r#type: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// Stable word for programs.
    pub code: Option<String>,
}

/// A failed request.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    waiting_helps: bool,
    verbatim: Option<(StatusCode, Arc<[u8]>)>,
    internal: Option<String>,
}

impl ApiError {
    /// An error with a text for the caller.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: vec![],
            retry_after: None,
            waiting_helps: true,
            verbatim: None,
            internal: None,
        }
    }

    /// A field of the body is wrong.
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let mut error = Self::new(code, format!("{}: {detail}", pointer.trim_start_matches('/').replace('/', ".")));
        error.errors.push(FieldError { pointer, detail });
        error
    }

    /// A value that its field cannot have: 422.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::field(Code::InvalidValue, pointer, detail)
    }

    /// Nothing here: the same words for what never existed, what is gone and what is another tenant's.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing at this path.")
    }

    /// The resource is in another version than the one that the request is meant for.
    #[must_use]
    pub fn stale() -> Self {
        Self::new(
            Code::PreconditionFailed,
            "It was changed since you read the version in If-Match. Read it again, and decide again.",
        )
    }

    /// A fault of ours; `internal` goes to the log only.
    pub fn internal(internal: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Internal, "This is our fault. Quote the request id when you report it.");
        error.internal = Some(internal.into());
        error
    }

    /// An error that a vendor's answer decided: its status, and the body in OpenAI's shape.
    #[must_use]
    pub fn upstream(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let mut error = Self::new(Code::UpstreamError, "");
        error.verbatim = Some((status, body.into()));
        error.retry_after = retry_after;
        error
    }

    /// With `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With `x-should-retry: false`: OpenAI's SDKs then do not try again by themselves.
    #[must_use]
    pub const fn waiting_is_useless(mut self) -> Self {
        self.waiting_helps = false;
        self
    }

    /// With a cause that goes to the log only.
    #[must_use]
    pub fn because(mut self, internal: String) -> Self {
        self.internal = Some(internal);
        self
    }

    /// The stable word.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What only the log may know.
    #[must_use]
    pub fn internal_message(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.verbatim.as_ref().map_or(self.code.status(), |(status, _)| *status)
    }

    /// As an RFC 9457 problem.
    #[must_use]
    pub fn to_problem(&self, request_id: &str) -> Problem {
        Problem {
            r#type: format!("urn:tenantry:problem:{}", self.word()),
            title: self.code.title().to_owned(),
            status: self.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// As OpenAI's JSON.
    #[must_use]
    pub fn to_openai(&self) -> Vec<u8> {
        if let Some((_, body)) = &self.verbatim {
            return body.to_vec();
        }
        let param = self.errors.first().map(|e| e.pointer.trim_start_matches('/').replace('/', "."));
        let error = OpenAiErrorBody {
            message: self.detail.clone(),
            r#type: self.code.openai_type().to_owned(),
            param,
            code: Some(self.word()),
        };
        serde_json::to_vec(&OpenAiError { error }).unwrap_or_default()
    }

    fn word(&self) -> String {
        match serde_json::to_value(self.code) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }

    /// `Retry-After` and `x-should-retry`, where they say something.
    pub(crate) fn headers(&self, headers: &mut http::HeaderMap) {
        if let Some(wait) = self.retry_after {
            // Whole seconds (RFC 9110, 10.2.3), rounded up so that who waits that long gets in.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(http::header::RETRY_AFTER, value);
            }
        }
        if !self.waiting_helps {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
}

impl IntoResponse for ApiError {
    /// The status, with the error attached; [`crate::router::finish`] writes headers and body, because
    /// only it knows the routes' shape and the request id.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let mut api = match &error {
            StoreError::Unavailable(_) | StoreError::Contention => {
                Self::new(Code::Unavailable, "The database is not answering. Try again.")
                    .retry_after(Duration::from_secs(1))
            }
            StoreError::Superseded => Self::new(
                Code::IdempotencyInFlight,
                "This took so long that a later request with the same Idempotency-Key took over. Ask for its answer.",
            )
            .retry_after(Duration::from_secs(1)),
            StoreError::ActorChanged => {
                let text = "Your role does not allow this any more; ask an owner or admin.";
                return Self::new(Code::Forbidden, text);
            }
            StoreError::BadCursor => Self::new(Code::InvalidParameter, "cursor: not one that this list handed out"),
            StoreError::Corrupt { .. } | StoreError::Rejected(_) => Self::internal(""),
        };
        api.internal = Some(error.to_string());
        api
    }
}

fn too_fast(whose: &str, retry_after: Millis) -> ApiError {
    ApiError::new(Code::RateLimited, format!("Faster than the {whose}'s rate. Try again in {retry_after} ms."))
        .retry_after(Duration::from_millis(retry_after.unsigned_abs()))
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QuotaExceeded { resource, limit, left, resets_at } => Self::new(
                Code::QuotaExceeded,
                format!(
                    "The plan's monthly allowance of {name} does not cover this request: {left} of {limit} left. \
                     It starts afresh at {at}; a larger plan helps at once.",
                    name = resource.name(),
                    at = rfc3339(resets_at),
                ),
            )
            .waiting_is_useless(),
            Refusal::BudgetExceeded { what, limit, left, resets_at } => Self::new(
                Code::QuotaExceeded,
                format!(
                    "This API key's monthly budget of {name} does not cover this request: {left} of {limit} left. \
                     It starts afresh at {at}; an owner or admin can raise it at once.",
                    name = what.name(),
                    at = rfc3339(resets_at),
                ),
            )
            .waiting_is_useless(),
            Refusal::OutOfCredits { left, needed } => Self::new(
                Code::InsufficientCredits,
                format!(
                    "This request may cost {needed} micro-credits and {left} are left. Buy credits, or ask for less."
                ),
            ),
            Refusal::TooManyInFlight { limit } => Self::new(
                Code::TooManyInFlight,
                format!("{limit} requests are in flight, as many as the plan allows. Try again when one has ended."),
            )
            .retry_after(Duration::from_secs(1)),
            Refusal::RateLimited { retry_after } => too_fast("plan", retry_after),
            Refusal::KeyRateLimited { retry_after } => too_fast("API key", retry_after),
        }
    }
}
