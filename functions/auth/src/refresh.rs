//! `POST /auth/refresh`: the next tokens of a session. The rules of rotation are in `store::sessions`.

use axum::extract::State as Shared;
use serde::Deserialize;
use tenantry_store::{MemberOf, Rotation, Session, User};
use tenantry_web::{ApiError, Code, Json, error::Problem, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{
    State,
    login::confirmed,
    tenant_login::{self, SignedIn},
    tokens::{NotStored, tokens},
};

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    /// The last refresh token that was answered.
    refresh_token: String,
}

/// Refresh
///
/// Exchanges a refresh token for new tokens, with the role as it is now. A client that lost the answer may
/// send the same token again and gets the same new one; an older token ends the session.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    operation_id = "refresh",
    request_body = RefreshRequest,
    security(()),
    responses(
        (status = 200, description = "The next tokens.", body = SignedIn),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`: the session has ended; sign in again.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`email_not_verified`: since addresses have to be confirmed, this one has to be first. The refresh token stays good.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn refresh(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<RefreshRequest>,
) -> Result<NotStored<SignedIn>, ApiError> {
    let Some(token) = state.refresh_tokens.open(&request.refresh_token) else {
        let tokens = tenant_login::refresh(&state, &origin, &request.refresh_token).await?;
        return Ok(NotStored(SignedIn::TenantUser(Box::new(tokens))));
    };
    let session = match state.store.rotate_session(&token.user, &token.session, token.counter, &origin).await? {
        Rotation::Current(session) => session,
        Rotation::Gone => return Err(ended()),
        Rotation::Replayed => {
            tracing::warn!(user = %token.user, session = %token.session, "an old refresh token came back");
            return Err(ended());
        }
    };
    // Looked up after rotating: were it before, a person could be disabled in between and still get in.
    let Some((user, member)) = still_there(&state, &session).await? else {
        state.store.end_session(&session.user, &session.id).await?;
        return Err(ended());
    };
    // The session stays: with the address confirmed it goes on.
    confirmed(&state, &user)?;
    Ok(NotStored(SignedIn::Person(Box::new(tokens(&state, &user, member.into(), &session)?))))
}

/// One answer for every reason: who holds a stolen token learns nothing.
pub(crate) fn ended() -> ApiError {
    ApiError::new(Code::Unauthenticated, "This refresh token is not good any more. Sign in again.")
}

/// The session's person and organization, unless the person was disabled, has another password since, or left.
async fn still_there(state: &State, session: &Session) -> Result<Option<(User, MemberOf)>, ApiError> {
    let (user, member) =
        tokio::try_join!(state.store.user(&session.user), state.store.organization_of(&session.user, &session.org))?;
    Ok(user.filter(|user| !user.disabled && user.epoch == session.epoch).zip(member))
}
