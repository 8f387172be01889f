//! `POST /auth/logout`: ends sessions. Access tokens that are out run to their end, ten minutes at most.

use axum::extract::State as Shared;
use http::StatusCode;
use serde::Deserialize;
use tenantry_web::{ApiError, Caller, Code, error::Problem, extract::OptionalJson, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{State, refresh::ended, tokens::signed_in};

/// Which sessions to end. May be left out altogether.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogoutRequest {
    /// Which sessions to end.
    #[serde(default)]
    scope: LogoutScope,
    /// A refresh token of the session to end, instead of an access token: so a tenant user logs out, or somebody whose
    /// access token has expired.
    refresh_token: Option<String>,
}

/// Which sessions to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogoutScope {
    /// The one that calls.
    #[default]
    Local,
    /// All but the one that calls.
    Others,
    /// All.
    Global,
}

/// Log out
///
/// Ends sessions of the caller: their refresh tokens are worthless at once, their access tokens within ten
/// minutes. Ending what has ended is fine. A refresh token in the body ends its session, of a person or of a tenant user,
/// and takes no access token.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    operation_id = "logout",
    request_body(content = Option<LogoutRequest>, description = "Which sessions to end; by default the one that calls."),
    security((), ("bearer" = [])),
    responses(
        (status = 204, description = "Ended."),
        (status = 400, description = "The body is malformed, has an unknown field, or both a refresh token and a scope other than `local`.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, the session has ended (for `others` and `global`), or the refresh token is none of ours.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key has no session.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`scope` is none of the three.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn logout(
    Shared(state): Shared<State>,
    caller: Result<Caller, ApiError>,
    RequestOrigin(origin): RequestOrigin,
    OptionalJson(request): OptionalJson<LogoutRequest>,
) -> Result<StatusCode, ApiError> {
    if let Some(token) = &request.refresh_token {
        if request.scope != LogoutScope::Local {
            return Err(ApiError::field(Code::InvalidBody, "/scope", "takes an access token, and no refresh token"));
        }
        end_session_of(&state, token).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let caller = caller?;
    let (user, own) = caller.user()?;
    if request.scope == LogoutScope::Local {
        state.store.end_session(user, own).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    // Whose session was ended from elsewhere does not end the others in turn.
    signed_in(&state, &caller).await?;
    for session in state.store.sessions(user).await? {
        if request.scope == LogoutScope::Global || session.id != *own {
            // Gone already is fine: somebody was faster.
            state.store.revoke_session(user, &session.id, &origin).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Any token of the session will do, an old one too: sent to `/auth/refresh` it would end the session as well.
async fn end_session_of(state: &State, token: &str) -> Result<(), ApiError> {
    if let Some(token) = state.refresh_tokens.open(token) {
        return Ok(state.store.end_session(&token.user, &token.session).await?);
    }
    let (scope, token) = state.refresh_tokens.open_tenant(token).ok_or_else(ended)?;
    Ok(state.store.end_tenant_session(&scope, &token.user, &token.session).await?)
}
