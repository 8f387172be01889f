//! `/tenant-users`: the end customers of a tenant, kept by its owners and admins. They are served here because their
//! passwords are hashed here.

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use tenantry_domain::{
    TenantUserId, Username,
    roles::{Actor, Permission},
    time::rfc3339,
};
use tenantry_store::{
    Change, Changed, NewAudit, Origin, Precondition, TenantScope, TenantUser as Stored, TenantUserChange, Version,
};
use tenantry_web::{
    ApiError, Caller, Code, IfMatch, Json, Path, Query, Tagged,
    cursor::{Cursors, PageLimit},
    error::Problem,
    etag::changed,
    extract::optional_line,
    json::{Members, members},
    origin::RequestOrigin,
};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::{
    State,
    limits::tenant_password,
    password::Password,
    tokens::{gone, signed_in},
};

/// Most characters of a name for people.
const NAME_CHARS: usize = 100;

/// Most bytes of metadata, as JSON.
const METADATA_BYTES: usize = 4096;

/// How often a change is tried while others change the same person.
const TRIES: usize = 5;

/// An end customer of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantUser {
    /// The person; a name may be given to somebody else later, this is not.
    #[schema(value_type = String, example = "tus_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^tus_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: TenantUserId,
    /// The name they sign in with, in lower case.
    #[schema(example = "mike")]
    username: String,
    /// Name for people.
    #[schema(required)]
    display_name: Option<String>,
    /// What the tenant keeps there.
    #[schema(value_type = Object)]
    metadata: Members,
    /// Whether they can sign in with a password.
    has_password: bool,
    /// May not sign in any more.
    disabled: bool,
    /// When they were created.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Stored> for TenantUser {
    fn from(user: Stored) -> Self {
        let metadata = user.metadata.and_then(|text| members(text.as_bytes()).ok()).map(Members);
        Self {
            id: user.id,
            username: user.username.to_string(),
            display_name: user.display_name,
            metadata: metadata.unwrap_or_default(),
            has_password: user.password_hash.is_some(),
            disabled: user.disabled,
            created_at: rfc3339(user.created_at),
        }
    }
}

/// A page of tenant users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantUserList {
    /// The people, by name.
    data: Vec<TenantUser>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// The part of the list that is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TenantUserQuery {
    /// How many people at most.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{22,}$")]
    cursor: Option<String>,
}

/// A tenant user to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenantUserRequest {
    /// 3 to 64 letters a to z, digits, or `. _ - @ +`. Upper and lower case are the same name.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$", example = "mike")]
    username: String,
    /// Without one they cannot sign in with a password.
    #[schema(format = Password, min_length = 8, max_length = 128)]
    password: Option<String>,
    /// Name for people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    display_name: Option<String>,
    /// Whatever the tenant keeps there, 4 KB at most.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Members,
    /// May not sign in.
    #[serde(default)]
    disabled: bool,
}

/// Fields to change. What is left out stays; `null` empties a field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenantUserRequest {
    /// The new password.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 128)]
    password: Option<Option<String>>,
    /// Name for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")]
    display_name: Option<Option<String>>,
    /// The whole of it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Members>>,
    /// Whether they may not sign in.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = bool)]
    disabled: Option<bool>,
}

/// A field that stands in the body: so `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What the routes may answer instead of what was asked for.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum TenantUserRefusals {
    /// The body or a parameter is malformed.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No valid access token, or the session has ended.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// Only owners and admins manage tenant users; an API key cannot.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such tenant user.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// `conflict`: the name is taken.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// It was changed since the version in `If-Match`.
    #[response(status = 412, content_type = "application/problem+json")]
    Stale(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// A value is not allowed; `errors` names the field.
    #[response(status = 422, content_type = "application/problem+json")]
    NotAllowed(Problem),
    /// The tenant gave its users very many passwords; try again after `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem),
    /// Busy; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// List tenant users
///
/// The end customers of the caller's organization, by name.
#[utoipa::path(
    get,
    path = "/api/v1/tenant-users",
    tag = "tenant users",
    operation_id = "list_tenant_users",
    params(TenantUserQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of people.", body = TenantUserList),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, or the session has ended.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only owners and admins manage tenant users; an API key cannot.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<TenantUserQuery>,
) -> Result<Answer<TenantUserList>, ApiError> {
    // People's names: who was removed a moment ago reads no more of them.
    let scope = managed(&state, &caller).await?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "tenant-users");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.tenant_users(scope, query.limit.0, position.as_deref()).await?;
    let next_cursor = page.next.map(|position| cursors.seal(&position));
    Ok(Answer(TenantUserList { data: page.items.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Create a tenant user
///
/// An end customer of the caller's organization. They may sign in with an API key of the scope `login`, their name and
/// their password.
#[utoipa::path(
    post,
    path = "/api/v1/tenant-users",
    tag = "tenant users",
    operation_id = "create_tenant_user",
    request_body = CreateTenantUserRequest,
    security(("bearer" = [])),
    responses(
        (status = 201, description = "Created.", body = TenantUser, headers(("etag" = String, description = "Its version."))),
        TenantUserRefusals,
    ),
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<CreateTenantUserRequest>,
) -> Result<Response, ApiError> {
    let scope = managed(&state, &caller).await?;
    let username: Username =
        request.username.parse().map_err(|error| ApiError::invalid("/username", format!("{error}")))?;
    let display_name = optional_line("/display_name", request.display_name.as_deref(), NAME_CHARS)?;
    let metadata = metadata(&request.metadata)?;
    let password_hash = hash(&state, scope, request.password.as_deref(), &username).await?;
    let user = Stored {
        id: TenantUserId::new(),
        username,
        password_hash,
        display_name,
        metadata,
        disabled: request.disabled,
        created_at: state.store.now(),
        version: Version::FIRST,
    };
    // Names of people, which may be addresses, stay out of the log: the id leads to them.
    let changes = vec![Change { field: "disabled", old: None, new: Some(user.disabled.to_string()) }];
    let audit = audit(&caller, "tenant_user.created", &user.id, changes, &origin);
    if !state.store.create_tenant_user(scope, &user, &audit).await? {
        return Err(ApiError::field(Code::Conflict, "/username", "is taken; choose another"));
    }
    Ok((StatusCode::CREATED, Tagged(user.version, Answer(TenantUser::from(user)))).into_response())
}

/// Change a tenant user
///
/// Password, name for people, metadata, and whether they may sign in.
#[utoipa::path(
    patch,
    path = "/api/v1/tenant-users/{username}",
    tag = "tenant users",
    operation_id = "update_tenant_user",
    params(("username" = String, Path, description = "The tenant user's name.", min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$"), IfMatch),
    request_body = UpdateTenantUserRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "As they are now.", body = TenantUser, headers(("etag" = String, description = "Its version."))),
        TenantUserRefusals,
    ),
)]
pub(crate) async fn update(
    Shared(state): Shared<State>,
    caller: Caller,
    username: Result<Path<Username>, ApiError>,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
    Json(request): Json<UpdateTenantUserRequest>,
) -> Result<Tagged<Answer<TenantUser>>, ApiError> {
    let scope = managed(&state, &caller).await?;
    let Path(username) = username?;
    state.store.tenant_user(scope, &username).await?.ok_or_else(ApiError::not_found)?;
    let name = |name: Option<String>| optional_line("/display_name", name.as_deref(), NAME_CHARS);
    let wanted = TenantUserChange {
        display_name: request.display_name.map(name).transpose()?,
        metadata: request.metadata.map(|map| metadata(&map.unwrap_or_default())).transpose()?,
        disabled: request.disabled,
        password_hash: match request.password {
            None => None,
            Some(password) => Some(hash(&state, scope, password.as_deref(), &username).await?),
        },
    };
    for _ in 0..TRIES {
        // The old values of the log are those of the version that is changed.
        let before = state.store.tenant_user(scope, &username).await?.ok_or_else(ApiError::not_found)?;
        if !expected.holds(before.version) {
            return Err(ApiError::stale());
        }
        let seen = Precondition::OneOf(vec![before.version]);
        let audit = audit(&caller, "tenant_user.updated", &before.id, changes(&before, &wanted), &origin);
        match state.store.change_tenant_user(scope, &username, &wanted, &seen, &audit).await? {
            Changed::Stale => {}
            other => {
                let user = changed(other)?;
                return Ok(Tagged(user.version, Answer(user.into())));
            }
        }
    }
    Err(ApiError::stale())
}

/// Delete a tenant user
///
/// The name may be given to somebody else after that, who gets another id.
#[utoipa::path(
    delete,
    path = "/api/v1/tenant-users/{username}",
    tag = "tenant users",
    operation_id = "delete_tenant_user",
    params(("username" = String, Path, description = "The tenant user's name.", min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$"), IfMatch),
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Deleted."),
        (status = 400, description = "`If-Match` is malformed.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, or the session has ended.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only owners and admins manage tenant users; an API key cannot.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such tenant user.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed since the version in `If-Match`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    username: Result<Path<Username>, ApiError>,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, ApiError> {
    let scope = managed(&state, &caller).await?;
    let Path(username) = username?;
    for _ in 0..TRIES {
        // The row of the log names the person, so it is this one that is deleted and no later one of the same name.
        let user = state.store.tenant_user(scope, &username).await?.ok_or_else(ApiError::not_found)?;
        if !expected.holds(user.version) {
            return Err(ApiError::stale());
        }
        let seen = Precondition::OneOf(vec![user.version]);
        let audit = audit(&caller, "tenant_user.deleted", &user.id, vec![], &origin);
        match state.store.delete_tenant_user(scope, &username, &seen, &audit).await? {
            Changed::Stale => {}
            other => return changed(other).map(|()| StatusCode::NO_CONTENT),
        }
    }
    Err(ApiError::stale())
}

/// The organization, if the caller may manage its tenant users at this moment. An access token is good for ten minutes
/// whatever happens meanwhile; a password that it sets is good for ever.
async fn managed<'a>(state: &State, caller: &'a Caller) -> Result<&'a TenantScope, ApiError> {
    let scope = caller.scope(Permission::ManageTenantUsers)?;
    let (user, _) = signed_in(state, caller).await?;
    let member = state.store.organization_of(&user.id, scope.org()).await?.ok_or_else(gone)?;
    if Actor::User(member.role).may(Permission::ManageTenantUsers) {
        Ok(scope)
    } else {
        Err(ApiError::new(Code::Forbidden, "Your role does not allow this any more; ask an owner or admin."))
    }
}

async fn hash(
    state: &State,
    scope: &TenantScope,
    password: Option<&str>,
    username: &Username,
) -> Result<Option<String>, ApiError> {
    let Some(password) = password else { return Ok(None) };
    let password = Password::chosen_by("/password", password, username)?;
    tenant_password(&state.store, scope.org()).await?;
    state.hasher.hash(password).await.map(Some)
}

/// As it is stored; nothing where there is nothing.
fn metadata(Members(metadata): &Members) -> Result<Option<String>, ApiError> {
    if metadata.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(metadata).map_err(|error| ApiError::internal(error.to_string()))?;
    if text.len() > METADATA_BYTES {
        return Err(ApiError::invalid("/metadata", format!("must be {METADATA_BYTES} bytes of JSON at most")));
    }
    Ok(Some(text))
}

/// What changes. Of what is about the person, the log says that it changed.
fn changes(before: &Stored, wanted: &TenantUserChange) -> Vec<Change> {
    let mut changes = vec![];
    let set = |value: &Option<String>| value.as_ref().map(|_| "(set)".to_owned());
    for (field, old, new) in [
        ("password", &before.password_hash, &wanted.password_hash),
        ("display_name", &before.display_name, &wanted.display_name),
        ("metadata", &before.metadata, &wanted.metadata),
    ] {
        if let Some(new) = new
            && new != old
        {
            changes.push(Change { field, old: set(old), new: set(new) });
        }
    }
    if let Some(disabled) = wanted.disabled.filter(|disabled| *disabled != before.disabled) {
        let (old, new) = (Some(before.disabled.to_string()), Some(disabled.to_string()));
        changes.push(Change { field: "disabled", old, new });
    }
    changes
}

fn audit<'a>(
    caller: &Caller,
    action: &'static str,
    id: &'a TenantUserId,
    changes: Vec<Change>,
    origin: &'a Origin,
) -> NewAudit<'a> {
    NewAudit { action, actor: caller.audit_actor(), target: Some(id.as_str()), changes, origin }
}
