//! `POST /auth/switch`: the session acts for another of the person's organizations.

use axum::extract::State as Shared;
use serde::Deserialize;
use tenantry_domain::OrgId;
use tenantry_web::{ApiError, Caller, Json, error::Problem};
use utoipa::ToSchema;

use crate::{
    State,
    tokens::{NotStored, Tokens, gone, tokens},
};

/// Where to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchRequest {
    /// One of the caller's organizations.
    #[schema(example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    organization_id: String,
}

/// Switch organization
///
/// The session acts for another of the caller's organizations from here on. The refresh token of before is
/// exchanged with it; a client that lost this answer refreshes with the old one and gets the new one.
#[utoipa::path(
    post,
    path = "/api/v1/auth/switch",
    tag = "auth",
    operation_id = "switch_organization",
    request_body = SwitchRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The next tokens.", body = Tokens),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, or the session or the account has ended.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key belongs to one organization.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The caller belongs to no such organization.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn switch(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(request): Json<SwitchRequest>,
) -> Result<NotStored<Tokens>, ApiError> {
    let (id, session) = caller.user()?;
    let (user, current) = tokio::try_join!(state.store.user(id), state.store.session(id, session))?;
    let (user, current) = user.filter(|user| !user.disabled).zip(current).ok_or_else(gone)?;
    if current.epoch != user.epoch {
        return Err(gone());
    }
    let org: OrgId = request.organization_id.parse().map_err(|_| ApiError::not_found())?;
    let member = state.store.organization_of(id, &org).await?.ok_or_else(ApiError::not_found)?;
    let switched = state.store.switch_session(id, session, &org).await?.ok_or_else(gone)?;
    Ok(NotStored(tokens(&state, &user, member.into(), &switched)?))
}
