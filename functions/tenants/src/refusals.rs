//! What the routes may answer instead of what was asked for, for the API document.

use tenantry_web::error::Problem;
use utoipa::IntoResponses;

/// Of a list.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum ReadRefusals {
    /// A parameter is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid credentials.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The role does not allow it; an API key cannot.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The caller belongs to no such organization.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// Busy; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Of a change that has no body.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum ActRefusals {
    /// A parameter is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid credentials, or the session has ended.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The role does not allow it; an API key cannot.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// `conflict`: what is there does not allow it; `detail` says why.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// It was changed since the version in `If-Match`.
    #[response(status = 412, content_type = "application/problem+json")]
    Stale(Problem),
    /// Busy; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Of a change that has a body.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum WriteRefusals {
    /// The body is malformed or has an unknown field, or a header is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid credentials, or the session has ended.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The role does not allow it; an API key cannot; or `upgrade_required`: the plan includes no more.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// `conflict`: what is there does not allow it; `detail` says why.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// It was changed since the version in `If-Match`.
    #[response(status = 412, content_type = "application/problem+json")]
    Stale(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// A value is not allowed; `errors` names the field.
    #[response(status = 422, content_type = "application/problem+json")]
    NotAllowed(Problem),
    /// Busy; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}
