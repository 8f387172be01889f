//! The errors of the metered endpoints, for the API document.

use tenantry_web::error::OpenAiError;
use utoipa::IntoResponses;

/// What a metered call can be answered instead of what was asked for.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum ModelErrors {
    /// The request is wrong; `param` names the field.
    #[response(status = 400)]
    Invalid(OpenAiError),
    /// No valid API key or access token.
    #[response(status = 401)]
    Unauthenticated(OpenAiError),
    /// Out of credits.
    #[response(status = 402)]
    OutOfCredits(OpenAiError),
    /// The API key lacks the scope `models`; or `upgrade_required`: the plan does not include the model.
    #[response(status = 403)]
    Forbidden(OpenAiError),
    /// No such model.
    #[response(status = 404)]
    NoSuchModel(OpenAiError),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(OpenAiError),
    /// The body is not plain JSON.
    #[response(status = 415)]
    NotJson(OpenAiError),
    /// `rate_limited`, `quota_exceeded` or `too_many_in_flight`.
    #[response(status = 429)]
    Limited(OpenAiError),
    /// The vendor failed.
    #[response(status = 502)]
    VendorFailed(OpenAiError),
    /// The vendor or a dependency is down; try again after `Retry-After`.
    #[response(status = 503)]
    Unavailable(OpenAiError),
    /// The vendor took too long.
    #[response(status = 504)]
    VendorTooSlow(OpenAiError),
}
