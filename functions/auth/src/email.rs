//! `POST /auth/verify-email` and `/auth/verify-email/resend`: whose address it is.

use axum::extract::State as Shared;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tenantry_domain::{
    Email, UserId,
    one_time::{OneTimeToken, Purpose},
};
use tenantry_web::{
    ApiError, Code, Json,
    config::{ConfigError, Env},
    error::Problem,
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{State, limits::Throttle, login::find};

/// What an address has to prove before somebody signs in with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmailVerification {
    /// Nothing: registering signs in, and says when an address is taken.
    #[default]
    Optional,
    /// That it is its owner's: nobody signs in before, and registering tells nobody whether an address is taken.
    Required,
}

impl EmailVerification {
    /// From `EMAIL_VERIFICATION`, `optional` or `required`; optional when it is not set.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        const NAME: &str = "EMAIL_VERIFICATION";
        match env.optional(NAME) {
            None | Some("optional") => Ok(Self::Optional),
            Some("required") => Ok(Self::Required),
            Some(_) => Err(ConfigError::new(NAME, "must be `optional` or `required`")),
        }
    }
}

/// A token from a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// The token, as it stands behind `#token=` in the link.
    #[schema(max_length = 200)]
    token: String,
}

/// An address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddressRequest {
    /// Address that the account was registered with.
    #[schema(format = Email, example = "ada@example.com")]
    pub(crate) email: String,
}

/// Confirm an address
///
/// Redeems the token of a mail. It is good once, for a day, and until a newer one is ordered.
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email",
    tag = "auth",
    operation_id = "verify_email",
    request_body = VerifyRequest,
    security(()),
    responses(
        (status = 204, description = "The address is confirmed."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_token`: it was used or replaced, has expired, or is none.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn verify(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<VerifyRequest>,
) -> Result<StatusCode, ApiError> {
    Throttle::new(&state.store, &origin).token().await?;
    let (user, token) = token_of(Purpose::VerifyEmail, &request.token)?;
    // Looked at first: most tokens that are not good cost one read, and no transaction.
    if state.store.is_one_time_open(&user, &token).await? && state.store.confirm_address(&user, &token, &origin).await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(bad_token())
    }
}

/// Send the mail again
///
/// Orders another mail to confirm the address; the links of earlier ones are worthless then. The answer is the
/// same whether there is an account with this address and whether it is confirmed.
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email/resend",
    tag = "auth",
    operation_id = "resend_verification",
    request_body = AddressRequest,
    security(()),
    responses(
        (status = 202, description = "If there is such an account, a mail is on its way."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "That is no address.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn resend(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<AddressRequest>,
) -> Result<StatusCode, ApiError> {
    let email: Email = request.email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    Throttle::new(&state.store, &origin).mail("verification", &email).await?;
    let user = find(&state.store, &email).await?;
    let user = user.filter(|user| !user.disabled && user.email_verified_at.is_none());
    state.mails.link(Purpose::VerifyEmail, user.as_ref(), &email, &headers).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The token in `text` and whose it says it is.
pub(crate) fn token_of(purpose: Purpose, text: &str) -> Result<(UserId, OneTimeToken), ApiError> {
    let token = OneTimeToken::parse(purpose, text.trim());
    token.and_then(|token| Some((token.user()?, token))).ok_or_else(bad_token)
}

/// One answer for every reason.
pub(crate) fn bad_token() -> ApiError {
    ApiError::field(Code::InvalidToken, "/token", "was used or replaced, or its time is over; order a new mail")
}
