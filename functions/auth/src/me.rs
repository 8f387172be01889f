//! `GET /auth/me`: who is signed in, and where.

use axum::{Json, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::roles::Permission;
use tenantry_web::{ApiError, Caller, Code, auth::RoleName, error::Problem};
use utoipa::ToSchema;

use crate::{
    State,
    tokens::{Organization, User},
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
        (status = 200, description = "The person.", body = Me),
        (status = 401, description = "No valid access token, or the account or membership is gone.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key is no person.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn me(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Me>, ApiError> {
    let (user, _) = caller.user()?;
    let current = caller.scope(Permission::ReadOrganization)?.org();
    let (user, current, all) = tokio::try_join!(
        state.store.user(user),
        state.store.organization_of(user, current),
        state.store.organizations_of(user, LISTED, None),
    )?;
    let user = user.filter(|user| !user.disabled);
    let gone = || ApiError::new(Code::Unauthenticated, "This account or its membership has ended. Sign in again.");
    let (user, current) = user.zip(current).ok_or_else(gone)?;
    let organization = Organization::from(current);
    Ok(Json(Me {
        user: (&user).into(),
        role: organization.role,
        organization,
        organizations: all.items.into_iter().map(Into::into).collect(),
    }))
}
