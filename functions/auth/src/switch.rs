//! `POST /auth/switch`: the session acts for another of the person's organizations.

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use tenantry_domain::OrgId;
use tenantry_store::Rotation;
use tenantry_web::{ApiError, Caller, Json, auth::ACCESS_TOKEN_SECONDS, error::Problem, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{
    State,
    login::confirmed,
    refresh::ended,
    tokens::{NotStored, Organization, User, access_token, gone, refresh_token, signed_in},
};

/// Where to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchRequest {
    /// One of the caller's organizations.
    #[schema(example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    organization_id: String,
    /// The session's refresh token. With it the answer has the next one; without it nothing is answered that outlives
    /// the access token of the call.
    refresh_token: Option<String>,
}

/// Tokens of the same session for another organization.
#[derive(Serialize, ToSchema)]
pub(crate) struct SwitchedTokens {
    /// Send it as `Authorization: Bearer`. A JWT signed with ES256.
    access_token: String,
    /// The session's next refresh token, if the call brought one; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    expires_in: i64,
    /// The person.
    user: User,
    /// The organization that the tokens act for.
    organization: Organization,
}

/// Switch organization
///
/// The session acts for another of the caller's organizations from here on. With its refresh token in the body, that
/// is exchanged by the rules of `refresh`. Without, the refresh token stays as it is, and the new access token ends when
/// the one of the call does: an access token alone never becomes a longer session.
#[utoipa::path(
    post,
    path = "/api/v1/auth/switch",
    tag = "auth",
    operation_id = "switch_organization",
    request_body = SwitchRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The next tokens.", body = SwitchedTokens),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, the session or the account has ended, or the refresh token is not one of this session's or not good any more.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key belongs to one organization. `email_not_verified`: the address has to be confirmed first.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The caller belongs to no such organization.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn switch(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<SwitchRequest>,
) -> Result<NotStored<SwitchedTokens>, ApiError> {
    let (id, session) = caller.user()?;
    let (user, _) = signed_in(&state, &caller).await?;
    confirmed(&state, &user)?;
    let org: OrgId = request.organization_id.parse().map_err(|_| ApiError::not_found())?;
    let member = state.store.organization_of(id, &org).await?.ok_or_else(ApiError::not_found)?;
    let now = state.store.now().div_euclid(1000);
    let mut ends_at = caller.token_ends_at().unwrap_or(now);
    if let Some(text) = &request.refresh_token {
        let token = state.refresh_tokens.open(text).filter(|token| token.user == *id && token.session == *session);
        let counter = token.ok_or_else(ended)?.counter;
        let Rotation::Current(_) = state.store.rotate_session(id, session, counter, &origin).await? else {
            return Err(ended());
        };
        ends_at = now + ACCESS_TOKEN_SECONDS;
    }
    let switched = state.store.switch_session(id, session, &org).await?.ok_or_else(gone)?;
    let organization = member.into();
    Ok(NotStored(SwitchedTokens {
        access_token: access_token(&state, &user, &organization, &switched, ends_at)?,
        refresh_token: request.refresh_token.map(|_| refresh_token(&state, &switched)),
        token_type: "Bearer",
        expires_in: ends_at - now,
        user: (&user).into(),
        organization,
    }))
}
