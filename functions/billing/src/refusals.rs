//! Why something is not sold: errors of `commerce` as answers, and what the routes may answer instead of what was asked
//! for, for the API document.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tenantry_commerce::CommerceError;
use tenantry_domain::RequestId;
use tenantry_payments::{PaymentError, stripe::StripeError};
use tenantry_web::{ApiError, Code, error::Problem, idempotency::IDEMPOTENCY_KEY};
use utoipa::IntoResponses;

/// The same for each try of one request of a client that sends an `Idempotency-Key`, and another one every time where none
/// is sent: what tells a vendor that it was asked before.
pub(crate) struct Attempt(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Attempt {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let key = parts.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
        Ok(Self(key.map_or_else(|| RequestId::new().to_string(), |key| format!("key {key}"))))
    }
}

/// The answer for an error; `/field` is the field that names what is wanted.
pub(crate) fn refused(error: CommerceError, field: &str) -> ApiError {
    let later = || {
        ApiError::new(
            Code::Unavailable,
            "The payment vendor is not answering. Try again with the same Idempotency-Key: what was done is not done twice.",
        )
        .retry_after(Duration::from_secs(5))
    };
    match error {
        CommerceError::Store(error) => error.into(),
        CommerceError::Unknown(why) => ApiError::invalid(field, why),
        CommerceError::Impossible(why) => ApiError::new(Code::Conflict, sentence(why)),
        CommerceError::NoRefund(why) => ApiError::new(Code::Conflict, sentence(&why.to_string())),
        CommerceError::NoChange(why) => ApiError::new(Code::Conflict, sentence(&why.to_string())),
        CommerceError::NotConfigured(vendor) => {
            ApiError::new(Code::Conflict, format!("{vendor} is not set up on this platform."))
        }
        CommerceError::Contention => {
            ApiError::new(Code::Unavailable, "Others are changing the same at this moment. Try again.")
                .retry_after(Duration::from_secs(1))
        }
        CommerceError::Stripe(StripeError::Refused(refusal)) if refusal.status == 402 => {
            let why = refusal.message.as_deref().unwrap_or("The payment was declined.");
            ApiError::new(Code::PaymentFailed, why.to_owned())
        }
        // The moment of a preview that the current period does not have: of the one before, or of no subscription yet.
        CommerceError::Stripe(StripeError::Refused(refusal)) if refusal.param.as_deref() == Some("proration_date") => {
            ApiError::invalid("/as_of", "must be the `as_of` of a preview of the current period")
        }
        CommerceError::Stripe(StripeError::Unavailable(why)) => {
            tracing::warn!(why, "Stripe does not answer");
            later()
        }
        CommerceError::Payment(PaymentError::Unavailable(why)) => {
            tracing::warn!(why, "the payment vendor does not answer");
            later()
        }
        error @ (CommerceError::Stripe(_)
        | CommerceError::Payment(_)
        | CommerceError::RefundRefused(_)
        | CommerceError::Mail(_)
        | CommerceError::Mismatch(_)) => ApiError::internal(error.to_string()),
    }
}

fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// Of a reading route.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum ReadRefusals {
    /// A parameter is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid credentials.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The role, or the API key's scopes, do not allow it.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// Busy, or the payment vendor does not answer; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Of a route that buys or changes.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum BuyRefusals {
    /// The body is malformed or has an unknown field, or a header is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid credentials, or the session has ended.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// `payment_failed`: the bank declined; `detail` says why.
    #[response(status = 402, content_type = "application/problem+json")]
    Declined(Problem),
    /// The role does not allow it; an API key cannot.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// `conflict`: what was bought before does not allow it, or the vendor is not set up; `detail` says why.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// A value is not allowed; `errors` names the field.
    #[response(status = 422, content_type = "application/problem+json")]
    NotAllowed(Problem),
    /// Busy, or the payment vendor does not answer; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}
