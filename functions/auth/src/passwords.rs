//! `POST /auth/password/forgot`, `/reset` and `/change`: another password, for who has a mail or the old one.

use axum::extract::State as Shared;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tenantry_domain::{Email, one_time::Purpose};
use tenantry_web::{ApiError, Caller, Code, Json, error::Problem, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{
    State,
    email::{AddressRequest, bad_token, token_of},
    limits::{Account, Throttle},
    login::find,
    password::Password,
    tokens::{gone, signed_in},
};

/// A token from a mail, and the password that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetRequest {
    /// The token, as it stands behind `#token=` in the link.
    #[schema(max_length = 200)]
    token: String,
    /// Any characters; not one of the most common passwords, and not the address again.
    #[schema(format = Password, min_length = 8, max_length = 128)]
    password: String,
}

/// The password that is, and the one that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    /// The account's password.
    #[schema(format = Password)]
    current_password: String,
    /// Any characters; not one of the most common passwords, and not the address again.
    #[schema(format = Password, min_length = 8, max_length = 128)]
    new_password: String,
}

/// Forgot the password
///
/// Orders a mail with a link to choose a new one, good for 30 minutes. The answer is the same whether there is
/// an account with this address.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password/forgot",
    tag = "auth",
    operation_id = "forgot_password",
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
pub(crate) async fn forgot(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<AddressRequest>,
) -> Result<StatusCode, ApiError> {
    let email: Email = request.email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    Throttle::new(&state.store, &origin).mail("reset", &email).await?;
    let user = find(&state.store, &email).await?.filter(|user| !user.disabled);
    state.mails.link(Purpose::ResetPassword, user.as_ref(), &email, &headers).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Choose a new password
///
/// Redeems the token of a mail and ends all sessions. The token is good once, for 30 minutes, and until a newer
/// one is ordered. It came to the account's address, which is confirmed by that.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password/reset",
    tag = "auth",
    operation_id = "reset_password",
    request_body = ResetRequest,
    security(()),
    responses(
        (status = 204, description = "The password is set; sign in with it."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_token`: it was used or replaced, has expired, or is none. `invalid_value`: the password is not allowed, and the token still good.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn reset(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<ResetRequest>,
) -> Result<StatusCode, ApiError> {
    let throttle = Throttle::new(&state.store, &origin);
    throttle.token().await?;
    let (id, token) = token_of(Purpose::ResetPassword, &request.token)?;
    // Looked at before anything is hashed: only who has a good token makes us work.
    if !state.store.is_one_time_open(&id, &token).await? {
        return Err(bad_token());
    }
    let user = state.store.user(&id).await?.filter(|user| !user.disabled).ok_or_else(bad_token)?;
    let password = Password::chosen("/password", &request.password, &user.email)?;
    let hash = state.hasher.hash(password).await?;
    if !state.store.reset_password(&id, &token, &hash, &origin).await? {
        return Err(bad_token());
    }
    state.store.sweep_sessions(&id, None).await?;
    throttle.forget(&user.email).await?;
    state.mails.password_changed(&user, &headers).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the password
///
/// Ends all other sessions of the caller: their refresh tokens are worthless at once, their access tokens within
/// ten minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password/change",
    tag = "auth",
    operation_id = "change_password",
    request_body = ChangeRequest,
    security(("bearer" = [])),
    responses(
        (status = 204, description = "The password is changed."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, or the session or the account has ended.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key has no password.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The current password is wrong, or the new one not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn change(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<ChangeRequest>,
) -> Result<StatusCode, ApiError> {
    let (user, session) = signed_in(&state, &caller).await?;
    let id = &user.id;
    let chosen = Password::chosen("/new_password", &request.new_password, &user.email)?;
    // Whoever found an unlocked machine has no more guesses here than at the door.
    let guess = Throttle::new(&state.store, &origin).password(Account::Own(id)).await?;
    let given = Password::given(&request.current_password);
    if !state.check_password(guess, given, Some(&user.password_hash), true).await? {
        return Err(ApiError::field(Code::InvalidValue, "/current_password", "is not the account's password"));
    }
    let hash = state.hasher.hash(chosen).await?;
    if !state.store.change_password(&user, &session, &hash, &origin).await? {
        return Err(gone());
    }
    state.store.sweep_sessions(id, Some(&session.id)).await?;
    state.mails.password_changed(&user, &headers).await;
    Ok(StatusCode::NO_CONTENT)
}
