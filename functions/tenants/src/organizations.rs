//! `GET /organizations` and `/organizations/{id}`: the organizations that a caller belongs to. To
//! everybody else an organization does not exist.

use axum::{Json, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::{
    OrgId,
    roles::{Permission, Role},
    time::rfc3339,
};
use tenantry_store::{MemberOf, Organization as Stored, TenantScope};
use tenantry_web::{
    ApiError, Caller, Path, Query,
    auth::{Identity, RoleName},
    cursor::Cursors,
    error::Problem,
};
use utoipa::ToSchema;

use crate::{ListQuery, State};

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Organization {
    /// The organization.
    #[schema(value_type = String, example = "org_068b0kx0fawcp8yv9p2zkv5a5r")]
    id: OrgId,
    /// Its name.
    name: String,
    /// Id of its plan.
    #[schema(example = "free")]
    plan: String,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// The caller's role in it; `null` for an API key, which has none.
    #[schema(required)]
    role: Option<RoleName>,
}

/// A page of organizations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrganizationList {
    /// The organizations, oldest first.
    data: Vec<Organization>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List organizations
///
/// The organizations that the caller belongs to. An API key belongs to one.
#[utoipa::path(
    get,
    path = "/api/v1/organizations",
    tag = "organizations",
    operation_id = "list_organizations",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of organizations.", body = OrganizationList),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<OrganizationList>, ApiError> {
    let scope = caller.scope(Permission::ReadOrganization)?;
    let Identity::User { user, .. } = caller.identity() else {
        let data = of_key(&state, scope).await?.into_iter().collect();
        return Ok(Json(OrganizationList { data, next_cursor: None }));
    };
    // The list is the person's, whichever organization the token acts for.
    let cursors = Cursors::new(&state.cursor_key, user.as_str(), "organizations");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.organizations_of(user, query.limit.0, position.as_deref()).await?;
    let mut data = Vec::with_capacity(page.items.len());
    for member in page.items {
        data.push(of_member(&state, member).await?);
    }
    Ok(Json(OrganizationList { data, next_cursor: page.next.map(|position| cursors.seal(&position)) }))
}

/// Get an organization
///
/// One of the organizations that the caller belongs to.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    operation_id = "get_organization",
    params(("id" = String, Path, description = "The organization.")),
    responses(
        (status = 200, description = "The organization.", body = Organization),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The caller belongs to no such organization.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<OrgId>,
) -> Result<Json<Organization>, ApiError> {
    let scope = caller.scope(Permission::ReadOrganization)?;
    let organization = match caller.identity() {
        Identity::User { user, .. } => match state.store.organization_of(user, &id).await? {
            Some(member) => Some(of_member(&state, member).await?),
            None => None,
        },
        Identity::Key { .. } if id == *scope.org() => of_key(&state, scope).await?,
        Identity::Key { .. } => None,
    };
    organization.map(Json).ok_or_else(ApiError::not_found)
}

async fn of_key(state: &State, scope: &TenantScope) -> Result<Option<Organization>, ApiError> {
    match state.store.organization(scope).await? {
        Some(stored) => shown(state, scope, stored, None).await.map(Some),
        None => Ok(None),
    }
}

async fn of_member(state: &State, member: MemberOf) -> Result<Organization, ApiError> {
    let scope = member.scope().clone();
    shown(state, &scope, member.organization, Some(member.role)).await
}

async fn shown(
    state: &State,
    scope: &TenantScope,
    stored: Stored,
    role: Option<Role>,
) -> Result<Organization, ApiError> {
    // The plan in force is the meter's: what a subscription says takes effect there.
    let plan = state.store.meter(scope).await?.plan;
    Ok(Organization {
        id: stored.id,
        name: stored.name,
        plan,
        created_at: rfc3339(stored.created_at),
        role: role.map(Into::into),
    })
}
