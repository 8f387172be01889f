//! `POST /auth/logout`: ends sessions. Access tokens that are out run to their end, ten minutes at most.

use axum::extract::State as Shared;
use http::StatusCode;
use serde::Deserialize;
use tenantry_web::{ApiError, Caller, error::Problem, extract::OptionalJson, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::State;

/// Which sessions to end. May be left out altogether.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogoutRequest {
    /// Which sessions to end.
    #[serde(default)]
    scope: LogoutScope,
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
/// minutes. Ending what has ended is fine.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    operation_id = "logout",
    request_body(content = Option<LogoutRequest>, description = "Which sessions to end; by default the one that calls."),
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Ended."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key has no session.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`scope` is none of the three.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn logout(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    OptionalJson(request): OptionalJson<LogoutRequest>,
) -> Result<StatusCode, ApiError> {
    let (user, own) = caller.user()?;
    if request.scope == LogoutScope::Local {
        state.store.end_session(user, own).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    for session in state.store.sessions(user).await? {
        if request.scope == LogoutScope::Global || session.id != *own {
            // Gone already is fine: somebody was faster.
            state.store.revoke_session(user, &session.id, &origin).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
