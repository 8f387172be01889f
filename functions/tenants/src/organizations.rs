//! `/organizations`: those that a caller belongs to. To everybody else an organization does not exist.

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use tenantry_domain::{
    Email, Millis, OrgId,
    roles::{Permission, Role},
    time::rfc3339,
};
use tenantry_store::{
    AuditActor, Change, Changed, MemberOf, NewAudit, Organization as Stored, OrganizationChange, Precondition,
    StoreError, TenantScope,
};
use tenantry_web::{
    ApiError, Caller, Code, IfMatch, Json, Path, Query, Tagged,
    auth::{Identity, RoleName},
    cursor::{Cursors, ListQuery},
    error::Problem,
    etag::changed,
    extract::{Object, line},
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{
    State,
    acting::{Acting, Ids, change},
    budgets::{ModelBudgets, in_words},
    refusals::{ActRefusals, WriteRefusals},
};

/// Most characters of an organization's name.
const NAME_CHARS: usize = 100;

/// How long an owner may bring a deleted organization back: 30 days.
const GRACE: Millis = 30 * 24 * 60 * 60 * 1000;

/// How often a change is tried while others change the same organization.
const TRIES: usize = 5;

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Organization {
    /// The organization.
    #[schema(value_type = String, example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: OrgId,
    /// Its name.
    name: String,
    /// Id of its plan.
    #[schema(example = "free")]
    plan: String,
    /// Its settings.
    settings: OrganizationSettings,
    /// What all its members and keys together may use of single models; `null` when the plan alone says.
    #[schema(required, nullable)]
    model_budgets: Option<ModelBudgets>,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it will be erased, once an owner has deleted it. Until then it may be restored.
    #[schema(required, format = DateTime)]
    deletes_at: Option<String>,
    /// The caller's role in it; `null` for an API key, which has none.
    #[schema(required)]
    role: Option<RoleName>,
}

/// Settings of an organization.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrganizationSettings {
    /// Where its own customers get help.
    #[schema(required, format = Email)]
    support_email: Option<String>,
    /// What its invitations are written in; English when `null`.
    #[schema(required, value_type = Option<OrganizationLanguage>)]
    default_language: Option<String>,
}

/// A language that there are mails in.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrganizationLanguage {
    /// English.
    En,
    /// Chinese, simplified.
    Zh,
}

impl OrganizationLanguage {
    const fn word(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// An organization to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateOrganizationRequest {
    /// Its name.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "Analytical Engines"
    )]
    name: String,
}

/// Fields to change. What is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateOrganizationRequest {
    /// The name.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")]
    name: Option<String>,
    /// Settings to change.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = UpdateSettings)]
    settings: Option<Object<UpdateSettings>>,
    /// What all its members and keys together may use of single models, all of them; as much as the plan allows when
    /// `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ModelBudgets>)]
    model_budgets: Option<Option<ModelBudgets>>,
}

/// Settings to change. What is left out stays; `null` empties a field.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateSettings {
    /// Where the organization's own customers get help.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = Email)]
    support_email: Option<Option<String>>,
    /// What its invitations are written in.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<OrganizationLanguage>)]
    default_language: Option<Option<OrganizationLanguage>>,
}

/// A field that stands in the body: so `null` is something else than nothing.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
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
/// The organizations that the caller belongs to, those included that are being deleted. An API key belongs to one.
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
) -> Result<Answer<OrganizationList>, ApiError> {
    let scope = caller.scope(Permission::ReadOrganization)?;
    let Identity::User { user, .. } = caller.identity() else {
        // The list of a key is one page, so no cursor was handed out.
        if query.cursor.is_some() {
            return Err(StoreError::BadCursor.into());
        }
        let data = of_key(&state, scope).await?.into_iter().map(bare).collect();
        return Ok(Answer(OrganizationList { data, next_cursor: None }));
    };
    // The list is the person's, whichever organization the token acts for.
    let cursors = Cursors::new(&state.cursor_key, user.as_str(), "organizations");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.organizations_of_in_any_state(user, query.limit.0, position.as_deref()).await?;
    let mut data = Vec::with_capacity(page.items.len());
    for member in page.items {
        data.push(bare(of_member(&state, member).await?));
    }
    Ok(Answer(OrganizationList { data, next_cursor: page.next.map(|position| cursors.seal(&position)) }))
}

/// Get an organization
///
/// One of the organizations that the caller belongs to.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    operation_id = "get_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")),
    responses(
        (status = 200, description = "The organization.", body = Organization, headers(("etag" = String, description = "Its version."))),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The caller belongs to no such organization.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<OrgId>,
) -> Result<Tagged<Answer<Organization>>, ApiError> {
    let scope = caller.scope(Permission::ReadOrganization)?;
    let organization = match caller.identity() {
        Identity::User { user, .. } => match state.store.organization_of_in_any_state(user, &id).await? {
            Some(member) => Some(of_member(&state, member).await?),
            None => None,
        },
        Identity::Key { .. } if id == *scope.org() => of_key(&state, scope).await?,
        Identity::Key { .. } => None,
    };
    organization.ok_or_else(ApiError::not_found)
}

/// Create an organization
///
/// Creates another organization that the caller owns, on the first plan. One person may create 20.
#[utoipa::path(
    post,
    path = "/api/v1/organizations",
    tag = "organizations",
    operation_id = "create_organization",
    request_body = CreateOrganizationRequest,
    security(("bearer" = [])),
    responses(
        (status = 201, description = "Created.", body = Organization, headers(("etag" = String, description = "Its version."))),
        WriteRefusals,
    ),
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<CreateOrganizationRequest>,
) -> Result<Response, ApiError> {
    let (user, _) = caller.user()?;
    caller.still_signed_in(&state.store).await?;
    let name = line("/name", &request.name, NAME_CHARS)?;
    let org = OrgId::new();
    let audit = NewAudit {
        action: "organization.created",
        actor: AuditActor::User(user.clone()),
        target: Some(org.as_str()),
        changes: vec![change("name", None::<String>, Some(&name))],
        origin: &origin,
    };
    let plan = state.store.plans().first();
    let member =
        state.store.create_organization(user, &org, &name, plan, &audit).await?.ok_or_else(|| {
            ApiError::new(Code::Forbidden, "You have created as many organizations as one person may.")
        })?;
    let organization = of_member(&state, member).await?;
    Ok((StatusCode::CREATED, organization).into_response())
}

/// Change an organization
///
/// Its name, settings and budgets of models, which reach every process within half a minute.
#[utoipa::path(
    patch,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    operation_id = "update_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    request_body = UpdateOrganizationRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "As it is now.", body = Organization, headers(("etag" = String, description = "Its version."))),
        WriteRefusals,
    ),
)]
pub(crate) async fn update(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
    Json(request): Json<UpdateOrganizationRequest>,
) -> Result<Tagged<Answer<Organization>>, ApiError> {
    let mut acting = Acting::changing(&state, &caller, &ids, Permission::ManageOrganization).await?;
    let wanted = wanted(request)?;
    for _ in 0..TRIES {
        let before = &acting.organization;
        // The old values of the log are those of the version that is changed.
        let seen = seen(before, &expected)?;
        let changes = changes(before, &wanted);
        let audit = acting.audit("organization.updated", before.id.as_str(), changes, &origin);
        match state.store.change_organization(&acting.scope, &wanted, &seen, &audit).await? {
            Changed::Stale => {
                acting = Acting::changing(&state, &caller, &ids, Permission::ManageOrganization).await?;
            }
            other => return shown(&state, &acting.scope, changed(other)?, Some(acting.role)).await,
        }
    }
    Err(ApiError::stale())
}

/// Delete an organization
///
/// It is erased with all its data after 30 days, and its members cannot use it until then: its API keys stop working
/// within half a minute, its members' access tokens within ten. An owner may restore it before.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    operation_id = "delete_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    security(("bearer" = [])),
    responses(
        (status = 202, description = "It will be erased at `deletes_at`.", body = Organization, headers(("etag" = String, description = "Its version."))),
        ActRefusals,
    ),
)]
pub(crate) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
) -> Result<Response, ApiError> {
    let acting = Acting::deciding(&state, &caller, &ids, Permission::OwnOrganization).await?;
    let before = &acting.organization;
    if before.deletes_at.is_some() {
        return Err(ApiError::new(Code::Conflict, "The organization is being deleted already."));
    }
    let at = state.store.now() + GRACE;
    let changes = vec![change("deletes_at", None::<String>, Some(rfc3339(at)))];
    let audit = acting.audit("organization.deleted", before.id.as_str(), changes, &origin);
    let deleted = state.store.delete_organization(&acting.scope, at, &expected, &audit).await?;
    let organization = shown(&state, &acting.scope, changed(deleted)?, Some(acting.role)).await?;
    Ok((StatusCode::ACCEPTED, organization).into_response())
}

/// Restore an organization
///
/// Brings back one that was deleted, until it is erased. Its API keys work again.
#[utoipa::path(
    post,
    path = "/api/v1/organizations/{id}/restore",
    tag = "organizations",
    operation_id = "restore_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "As it is now.", body = Organization, headers(("etag" = String, description = "Its version."))),
        ActRefusals,
    ),
)]
pub(crate) async fn restore(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<Answer<Organization>>, ApiError> {
    let acting = Acting::deciding(&state, &caller, &ids, Permission::OwnOrganization).await?;
    let before = &acting.organization;
    let Some(deletes_at) = before.deletes_at else {
        return Err(ApiError::new(Code::Conflict, "The organization is not being deleted."));
    };
    if deletes_at <= state.store.now() {
        return Err(ApiError::new(Code::Conflict, "The time to restore the organization is over."));
    }
    let changes = vec![change("deletes_at", Some(rfc3339(deletes_at)), None::<String>)];
    let audit = acting.audit("organization.restored", before.id.as_str(), changes, &origin);
    let restored = state.store.restore_organization(&acting.scope, &expected, &audit).await?;
    shown(&state, &acting.scope, changed(restored)?, Some(acting.role)).await
}

/// The version that was read, if it is one that the change is meant for.
fn seen(before: &Stored, expected: &Precondition) -> Result<Precondition, ApiError> {
    if expected.holds(before.version) { Ok(Precondition::OneOf(vec![before.version])) } else { Err(ApiError::stale()) }
}

fn wanted(request: UpdateOrganizationRequest) -> Result<OrganizationChange, ApiError> {
    let name = request.name.map(|name| line("/name", &name, NAME_CHARS)).transpose()?;
    let Object(settings) = request.settings.unwrap_or_default();
    let address = |text: String| -> Result<String, ApiError> {
        let address: Result<Email, _> = text.parse();
        let address = address.map_err(|error| ApiError::invalid("/settings/support_email", format!("{error}")))?;
        Ok(address.to_string())
    };
    let support_email = settings.support_email.map(|text| text.map(address).transpose()).transpose()?;
    let word = |language: OrganizationLanguage| language.word().to_owned();
    let default_language = settings.default_language.map(|language| language.map(word));
    let model_budgets = request.model_budgets.map(|models| models.unwrap_or_default().checked("/model_budgets"));
    Ok(OrganizationChange { name, support_email, default_language, model_budgets: model_budgets.transpose()? })
}

/// What changes. An address is a person's, so the log only says that there is another.
fn changes(before: &Stored, wanted: &OrganizationChange) -> Vec<Change> {
    let mut changes = vec![];
    if let Some(name) = wanted.name.as_ref().filter(|name| **name != before.name) {
        changes.push(change("name", Some(&before.name), Some(name)));
    }
    if let Some(address) = wanted.support_email.as_ref().filter(|address| **address != before.support_email) {
        let set = |address: &Option<String>| address.as_ref().map(|_| "(set)");
        changes.push(change("settings.support_email", set(&before.support_email), set(address)));
    }
    if let Some(language) = wanted.default_language.as_ref().filter(|word| **word != before.default_language) {
        changes.push(change("settings.default_language", before.default_language.clone(), language.clone()));
    }
    if let Some(models) = wanted.model_budgets.as_ref().filter(|models| **models != before.model_budgets) {
        changes.push(change("model_budgets", Some(in_words(&before.model_budgets)), Some(in_words(models))));
    }
    changes
}

/// In a list there is no place for versions.
fn bare(Tagged(_, Answer(organization)): Tagged<Answer<Organization>>) -> Organization {
    organization
}

async fn of_key(state: &State, scope: &TenantScope) -> Result<Option<Tagged<Answer<Organization>>>, ApiError> {
    match state.store.organization(scope).await? {
        Some(stored) => shown(state, scope, stored, None).await.map(Some),
        None => Ok(None),
    }
}

pub(crate) async fn of_member(state: &State, member: MemberOf) -> Result<Tagged<Answer<Organization>>, ApiError> {
    let scope = member.scope().clone();
    shown(state, &scope, member.organization, Some(member.role)).await
}

async fn shown(
    state: &State,
    scope: &TenantScope,
    stored: Stored,
    role: Option<Role>,
) -> Result<Tagged<Answer<Organization>>, ApiError> {
    // The plan in force is the meter's: what a subscription says takes effect there.
    let plan = state.store.meter(scope).await?.plan;
    let organization = Organization {
        id: stored.id,
        name: stored.name,
        plan,
        settings: OrganizationSettings {
            support_email: stored.support_email,
            default_language: stored.default_language,
        },
        model_budgets: (!stored.model_budgets.is_empty()).then(|| ModelBudgets::of(&stored.model_budgets)),
        created_at: rfc3339(stored.created_at),
        deletes_at: stored.deletes_at.map(rfc3339),
        role: role.map(Into::into),
    };
    Ok(Tagged(stored.version, Answer(organization)))
}
