//! `GET /auth/me`: who is signed in, and where.

use axum::{Json, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::{OrgId, roles::Permission};
use tenantry_store::User as Stored;
use tenantry_web::{ApiError, Caller, auth::RoleName, error::Problem, etag::Tagged};
use utoipa::ToSchema;

use crate::{
    State,
    tokens::{Organization, User, gone},
};

/// How many organizations are listed here. The whole list is at `/organizations`.
const LISTED: u16 = 100;

/// The person who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The person.
    user: User,
    /// The organization that the access token acts for.
    organization: Organization,
    /// The person's role in it, as it is now.
    role: RoleName,
    /// The organizations that the person belongs to, oldest first, 100 at most.
    organizations: Vec<Organization>,
}

/// Who am I
///
/// The person who is signed in, and their organizations.
#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    operation_id = "me",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The person; `ETag` names the version of the profile.", body = Me, headers(("ETag" = String, description = "The version, for `If-Match`."))),
        (status = 401, description = "No valid access token, or the account or membership is gone.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key is no person.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn me(Shared(state): Shared<State>, caller: Caller) -> Result<Tagged<Json<Me>>, ApiError> {
    let (user, _) = caller.user()?;
    let org = caller.scope(Permission::ReadOrganization)?.org();
    let user = state.store.user(user).await?.filter(|user| !user.disabled).ok_or_else(gone)?;
    me_of(&state, user, org, &caller).await
}

/// What is answered about `user`, who acts for `org`.
pub(crate) async fn me_of(
    state: &State,
    user: Stored,
    org: &OrgId,
    caller: &Caller,
) -> Result<Tagged<Json<Me>>, ApiError> {
    let (current, all) = tokio::try_join!(
        state.store.organization_of_in_any_state(&user.id, org),
        state.store.organizations_of(&user.id, LISTED, None),
    )?;
    let current = current.filter(|member| caller.is_waiting() || member.organization.deletes_at.is_none());
    let organization = Organization::from(current.ok_or_else(gone)?);
    let me = Me {
        user: (&user).into(),
        role: organization.role,
        organization,
        organizations: all.items.into_iter().map(Into::into).collect(),
    };
    Ok(Tagged(user.version, Json(me)))
}
