//! One error type for every route; the shape on the wire is chosen by [`crate::router::finish`].
//!
//! Outside the model endpoints errors are RFC 9457 problems, inside they look like OpenAI's, so that the
//! official SDKs raise their typed exceptions. `code` is the same stable word in both.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tenantry_domain::{
    features::{Lacking, Offer, Shortfall},
    plans::PlanPrice,
};
use tenantry_store::StoreError;
use utoipa::ToSchema;

use crate::limit::LimitReached;

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
    /// Of `upgrade_required`: the feature that the plan does not include, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "advanced_models")]
    pub feature: Option<String>,
    /// Of `upgrade_required`: the organization's plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "free")]
    pub current_plan: Option<String>,
    /// Of `upgrade_required`: the smallest plan that does; absent when no plan on offer does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<LargerPlan>,
    /// Of `quota_exceeded`, `rate_limited`, `too_many_in_flight` and `insufficient_credits`: the limit that stood in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitReached>,
}

/// A plan that includes what the organization's own does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LargerPlan {
    /// Its id.
    #[schema(example = "pro")]
    pub id: String,
    /// Its name.
    #[schema(example = "Pro")]
    pub name: String,
    /// What it costs.
    pub price: LargerPlanPrice,
}

/// What a plan costs, in minor units; `null` where it is not sold that way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LargerPlanPrice {
    /// US cents a month.
    #[schema(required, example = 1_900)]
    pub usd_month: Option<u64>,
    /// US cents a year.
    #[schema(required, example = 19_000)]
    pub usd_year: Option<u64>,
    /// Fen a month.
    #[schema(required, example = 19_900)]
    pub cny_month: Option<u64>,
}

impl From<&Offer> for LargerPlan {
    fn from(offer: &Offer) -> Self {
        let PlanPrice { usd_month, usd_year, cny_month } = offer.price;
        let price = LargerPlanPrice { usd_month, usd_year, cny_month };
        Self { id: offer.id.clone(), name: offer.name.clone(), price }
    }
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
    /// Of `upgrade_required`: the feature that the plan does not include.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "advanced_models")]
    pub feature: Option<String>,
    /// Of `upgrade_required`: the organization's plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "free")]
    pub current_plan: Option<String>,
    /// Of `upgrade_required`: the smallest plan that does; absent when no plan on offer does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<LargerPlan>,
    /// Of `quota_exceeded`, `rate_limited`, `too_many_in_flight` and `insufficient_credits`: the limit that stood in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitReached>,
}

/// What few errors have: an error stands in every answer of a handler, and is kept small.
#[derive(Debug, Clone, Default)]
struct Beside {
    shortfall: Option<Shortfall>,
    limit: Option<LimitReached>,
    headers: HeaderMap,
}

/// A failed request.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    waiting_helps: bool,
    beside: Option<Box<Beside>>,
    verbatim: Option<Box<(StatusCode, Arc<[u8]>)>>,
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
            beside: None,
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
        error.verbatim = Some(Box::new((status, body.into())));
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

    /// With the limit that stood in the way.
    pub(crate) fn limited(mut self, limit: LimitReached) -> Self {
        self.beside().limit = Some(limit);
        self
    }

    /// With headers beside those that say what kind of error it is.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.beside().headers = headers;
        self
    }

    fn beside(&mut self) -> &mut Beside {
        self.beside.get_or_insert_default()
    }

    fn limit(&self) -> Option<LimitReached> {
        self.beside.as_ref()?.limit.clone()
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
        self.verbatim.as_ref().map_or(self.code.status(), |verbatim| verbatim.0)
    }

    /// As an RFC 9457 problem.
    #[must_use]
    pub fn to_problem(&self, request_id: &str) -> Problem {
        let (feature, current_plan, plan) = self.upgrade();
        Problem {
            r#type: format!("urn:tenantry:problem:{}", self.word()),
            title: self.code.title().to_owned(),
            status: self.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
            feature,
            current_plan,
            plan,
            limit: self.limit(),
        }
    }

    /// As OpenAI's JSON.
    #[must_use]
    pub fn to_openai(&self) -> Vec<u8> {
        if let Some(verbatim) = &self.verbatim {
            return verbatim.1.to_vec();
        }
        let param = self.errors.first().map(|e| e.pointer.trim_start_matches('/').replace('/', "."));
        let (feature, current_plan, plan) = self.upgrade();
        let error = OpenAiErrorBody {
            message: self.detail.clone(),
            r#type: self.code.openai_type().to_owned(),
            param,
            code: Some(self.word()),
            feature,
            current_plan,
            plan,
            limit: self.limit(),
        };
        serde_json::to_vec(&OpenAiError { error }).unwrap_or_default()
    }

    /// The feature that is lacking, the plan that lacks it, and the one that does not.
    fn upgrade(&self) -> (Option<String>, Option<String>, Option<LargerPlan>) {
        let shortfall = self.beside.as_ref().and_then(|beside| beside.shortfall.as_ref());
        let Some(shortfall) = shortfall else { return (None, None, None) };
        let feature = match &shortfall.lacking {
            Lacking::Feature(feature) => Some(feature.name().to_owned()),
            Lacking::More(..) => None,
        };
        (feature, Some(shortfall.plan.clone()), shortfall.offer.as_ref().map(Into::into))
    }

    fn word(&self) -> String {
        match serde_json::to_value(self.code) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }

    /// `Retry-After` and `x-should-retry`, where they say something.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        headers.extend(self.beside.as_ref().map(|beside| beside.headers.clone()).unwrap_or_default());
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

impl From<Shortfall> for ApiError {
    /// 403 `upgrade_required`: the one way in which a plan refuses what it does not include.
    fn from(shortfall: Shortfall) -> Self {
        let mut error = Self::new(Code::UpgradeRequired, shortfall.to_string());
        error.beside().shortfall = Some(shortfall);
        error
    }
}
