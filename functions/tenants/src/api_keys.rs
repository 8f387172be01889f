//! `/api-keys`: listed, created, changed, rotated and revoked by owners and admins. A secret is shown once.

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    KeyId, Millis, UserId,
    budget::Budgets,
    features::Counted,
    roles::{KeyScope, KeyScopes, Permission},
    secret::ApiKeySecret,
    time::{parse_moment, rfc3339},
};
use tenantry_store::{
    ApiKey as Stored, ApiKeyChange, AuditActor, Change, Changed, NewApiKey, NewAudit, Origin, Precondition,
};
use tenantry_web::{
    ApiError, Caller, IfMatch, Json, Query, Tagged,
    cursor::{Cursors, ListQuery},
    error::Problem,
    etag::changed,
    extract::{Object, OptionalJson, line},
    origin::RequestOrigin,
    plan::OnPlan,
};
use utoipa::ToSchema;

use crate::{
    State,
    acting::{Ids, change},
    budgets::{BudgetChange, MonthlyBudget, in_words},
    organizations::given,
    refusals::{ActRefusals, WriteRefusals},
};

/// How often a change is tried while others change the same key.
const TRIES: usize = 5;

/// Longest overlap of two secrets of a key, in seconds: a week.
const LONGEST_OVERLAP: u32 = 7 * 24 * 3600;

/// Most characters of a key's name.
const NAME_CHARS: usize = 100;

/// An API key as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKey {
    /// The key's public name.
    #[schema(value_type = String, example = "key_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^key_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: KeyId,
    /// Name for people.
    name: String,
    /// First characters of the secret.
    #[schema(example = "wk_live_Ab3d")]
    prefix: String,
    /// Last characters of the secret.
    #[schema(example = "x9Zk")]
    last4: String,
    /// What it may be used for.
    scopes: Vec<KeyScopeName>,
    /// Whether it is for test mode: such a key reaches the sandbox's models and no vendor.
    test: bool,
    /// Switched off: it is refused until it is switched on again.
    disabled: bool,
    /// What it may use in a month; `null` when the plan alone says.
    #[schema(required, nullable)]
    budget: Option<MonthlyBudget>,
    /// How many requests it may make in a minute; `null` when the plan alone says.
    #[schema(required)]
    requests_per_minute: Option<u64>,
    /// From when it is refused.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// Until when the secret before the last rotation is good.
    #[schema(required, format = DateTime)]
    previous_secret_expires_at: Option<String>,
    /// When it was last used, to about an hour; from when the call was booked, which takes some seconds.
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// Who created it.
    #[schema(value_type = String, example = "usr_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    created_by: UserId,
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KeyScope)]
pub(crate) enum KeyScopeName {
    /// Call models.
    Models,
    /// See usage and what is left.
    Usage,
    /// Sign tenant users in. Such a key sits in shipped apps: give it nothing else.
    Login,
    /// Record usage of the organization's own resources.
    Record,
}

impl From<KeyScope> for KeyScopeName {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Models => Self::Models,
            KeyScope::Usage => Self::Usage,
            KeyScope::Login => Self::Login,
            KeyScope::Record => Self::Record,
        }
    }
}

impl From<KeyScopeName> for KeyScope {
    fn from(scope: KeyScopeName) -> Self {
        match scope {
            KeyScopeName::Models => Self::Models,
            KeyScopeName::Usage => Self::Usage,
            KeyScopeName::Login => Self::Login,
            KeyScopeName::Record => Self::Record,
        }
    }
}

/// Whether a key is for real traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyMode {
    /// It is.
    #[default]
    Live,
    /// It reaches the sandbox's models and no vendor. Its calls are metered like all others.
    Test,
}

impl From<Stored> for ApiKey {
    fn from(key: Stored) -> Self {
        Self {
            test: key.is_test(),
            budget: MonthlyBudget::of(&key.budgets),
            requests_per_minute: key.budgets.whole.requests_per_minute,
            scopes: key.scopes.iter().map(Into::into).collect(),
            disabled: key.disabled,
            expires_at: key.expires_at.map(rfc3339),
            previous_secret_expires_at: key.previous_until.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            last4: key.last4,
            created_at: rfc3339(key.created_at),
            created_by: key.created_by,
        }
    }
}

/// A page of API keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeyList {
    /// The keys, oldest first.
    data: Vec<ApiKey>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A key to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiKeyRequest {
    /// Name for people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "production"
    )]
    name: String,
    /// What it may be used for; `models` and `usage` when left out.
    #[schema(min_items = 1)]
    scopes: Option<Vec<KeyScopeName>>,
    /// From when it is refused; never when left out.
    #[schema(format = DateTime, example = "2027-01-01T00:00:00Z")]
    expires_at: Option<String>,
    /// Whether it is for real traffic; it is when left out.
    #[serde(default)]
    mode: KeyMode,
    /// What it may use in a month; as much as the plan allows when left out.
    #[schema(value_type = Option<MonthlyBudget>)]
    budget: Option<Object<MonthlyBudget>>,
    /// How many requests it may make in a minute; as many as the plan allows when left out.
    #[schema(minimum = 1, maximum = 60_000)]
    requests_per_minute: Option<u64>,
}

/// Fields to change. What is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateApiKeyRequest {
    /// Name for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")]
    name: Option<String>,
    /// What it may be used for.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Vec<KeyScopeName>, min_items = 1)]
    scopes: Option<Vec<KeyScopeName>>,
    /// From when it is refused; never when `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
    /// Whether it is switched off.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = bool)]
    disabled: Option<bool>,
    /// What it may use in a month, all parts of it; as much as the plan allows when `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<MonthlyBudget>)]
    budget: Option<Option<Object<MonthlyBudget>>>,
    /// How many requests it may make in a minute; as many as the plan allows when `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 60_000)]
    requests_per_minute: Option<Option<u64>>,
}

/// How to rotate. May be left out altogether.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateApiKeyRequest {
    /// How long the old secret stays good, in seconds, a week at most. Not at all when left out.
    #[schema(maximum = 604_800, example = 86_400)]
    #[serde(default)]
    overlap_seconds: u32,
}

/// A key that was created.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    key: ApiKey,
    /// The secret. It is shown here and never again.
    secret: String,
}

/// List API keys
///
/// The keys of the caller's organization, without their secrets.
#[utoipa::path(
    get,
    path = "/api/v1/api-keys",
    tag = "api keys",
    operation_id = "list_api_keys",
    params(ListQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of keys.", body = ApiKeyList),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only owners and admins manage keys; an API key cannot.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<ApiKeyList>, ApiError> {
    let scope = caller.still_may(&state.store, Permission::ManageKeys).await?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "api-keys");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.api_keys(scope, query.limit.0, position.as_deref()).await?;
    Ok(Answer(ApiKeyList {
        data: page.items.into_iter().map(Into::into).collect(),
        next_cursor: page.next.map(|position| cursors.seal(&position)),
    }))
}

/// Create an API key
///
/// The answer holds the secret; it is shown this once.
#[utoipa::path(
    post,
    path = "/api/v1/api-keys",
    tag = "api keys",
    operation_id = "create_api_key",
    request_body = CreateApiKeyRequest,
    security(("bearer" = [])),
    responses((status = 201, description = "Created.", body = CreatedApiKey), WriteRefusals),
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<CreateApiKeyRequest>,
) -> Result<Response, ApiError> {
    let scope = caller.scope(Permission::ManageKeys)?;
    let (created_by, _) = caller.user()?;
    // A token is good for ten minutes whatever happens meanwhile; a key that it makes is good for ever.
    caller.still_may(&state.store, Permission::ManageKeys).await?;
    let name = line("/name", &request.name, NAME_CHARS)?;
    let scopes = request.scopes.map(scopes).transpose()?.unwrap_or_default();
    let expires_at = request.expires_at.map(|text| end(&text, state.store.now())).transpose()?;
    let budgets = BudgetChange::checked(request.budget.map(Some), request.requests_per_minute.map(Some))?;
    let budgets = budgets.of(&Budgets::default()).unwrap_or_default();
    let secret = match request.mode {
        KeyMode::Live => ApiKeySecret::generate(),
        KeyMode::Test => ApiKeySecret::generate_test(),
    };
    let secret = secret.map_err(|error| ApiError::internal(error.to_string()))?;
    let on = OnPlan::of(&state.store, scope).await?;
    let id = KeyId::new();
    let limits = (!budgets.is_empty()).then(|| in_words(&budgets));
    let new = NewApiKey { id: &id, name: &name, secret: &secret, scopes, expires_at, budgets, created_by };
    let changes = vec![
        change("name", None::<String>, Some(&name)),
        change("scopes", None::<String>, Some(scopes.words())),
        change("expires_at", None::<String>, expires_at.map(rfc3339)),
        change("budget", None::<String>, limits),
    ];
    let audit = audit(&caller, "api_key.created", &id, changes, &origin);
    let key = state.store.create_api_key(scope, &new, on.plan().limits.keys, Some(&audit)).await?;
    Ok((StatusCode::CREATED, shown_once(key.ok_or_else(|| on.full(Counted::Keys))?, &secret)).into_response())
}

/// Change an API key
///
/// Its name, scopes, limits, end, and whether it is switched off. Other processes learn of it within half a minute.
#[utoipa::path(
    patch,
    path = "/api/v1/api-keys/{id}",
    tag = "api keys",
    operation_id = "update_api_key",
    params(("id" = String, Path, description = "The key.", pattern = "^key_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    request_body = UpdateApiKeyRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "As it is now.", body = ApiKey, headers(("etag" = String, description = "Its version."))),
        WriteRefusals,
    ),
)]
pub(crate) async fn update(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
    Json(request): Json<UpdateApiKeyRequest>,
) -> Result<Tagged<Answer<ApiKey>>, ApiError> {
    let scope = caller.still_may(&state.store, Permission::ManageKeys).await?;
    let id: KeyId = ids.at(0)?;
    let now = state.store.now();
    let budgets = BudgetChange::checked(request.budget, request.requests_per_minute)?;
    let mut wanted = ApiKeyChange {
        budgets: None,
        name: request.name.map(|name| line("/name", &name, NAME_CHARS)).transpose()?,
        scopes: request.scopes.map(scopes).transpose()?,
        expires_at: request.expires_at.map(|text| text.map(|text| end(&text, now)).transpose()).transpose()?,
        disabled: request.disabled,
    };
    for _ in 0..TRIES {
        // The old values of the log are those of the version that is changed.
        let before = state.store.api_key(scope, &id).await?.ok_or_else(ApiError::not_found)?;
        if !expected.holds(before.version) {
            return Err(ApiError::stale());
        }
        let seen = Precondition::OneOf(vec![before.version]);
        wanted.budgets = budgets.of(&before.budgets);
        let audit = audit(&caller, "api_key.updated", &id, changes(&before, &wanted), &origin);
        match state.store.change_api_key(scope, &id, &wanted, &seen, &audit).await? {
            Changed::Stale => {}
            other => {
                let key = changed(other)?;
                return Ok(Tagged(key.version, Answer(key.into())));
            }
        }
    }
    Err(ApiError::stale())
}

/// Rotate an API key
///
/// Gives it a new secret, which is shown this once. The old one stays good for the overlap, if there is one; without,
/// it stops working within half a minute. So does the one before, whatever its overlap was.
#[utoipa::path(
    post,
    path = "/api/v1/api-keys/{id}/rotate",
    tag = "api keys",
    operation_id = "rotate_api_key",
    params(("id" = String, Path, description = "The key.", pattern = "^key_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    request_body(content = Option<RotateApiKeyRequest>, description = "How long the old secret stays good."),
    security(("bearer" = [])),
    responses((status = 200, description = "The key with its new secret.", body = CreatedApiKey), WriteRefusals),
)]
pub(crate) async fn rotate(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
    OptionalJson(request): OptionalJson<RotateApiKeyRequest>,
) -> Result<Response, ApiError> {
    let scope = caller.still_may(&state.store, Permission::ManageKeys).await?;
    let id: KeyId = ids.at(0)?;
    let overlap = request.overlap_seconds;
    if overlap > LONGEST_OVERLAP {
        return Err(ApiError::invalid(
            "/overlap_seconds",
            format!("must be at most {LONGEST_OVERLAP}, which is a week"),
        ));
    }
    let until = (overlap > 0).then(|| state.store.now() + Millis::from(overlap) * 1000);
    let test = state.store.api_key(scope, &id).await?.ok_or_else(ApiError::not_found)?.is_test();
    let secret = if test { ApiKeySecret::generate_test() } else { ApiKeySecret::generate() };
    let secret = secret.map_err(|error| ApiError::internal(error.to_string()))?;
    let changes = vec![change("previous_secret_expires_at", None::<String>, until.map(rfc3339))];
    let audit = audit(&caller, "api_key.rotated", &id, changes, &origin);
    let key = changed(state.store.rotate_api_key(scope, &id, &secret, until, &expected, &audit).await?)?;
    Ok(shown_once(key, &secret).into_response())
}

/// Revoke an API key
///
/// It stops working within half a minute.
#[utoipa::path(
    delete,
    path = "/api/v1/api-keys/{id}",
    tag = "api keys",
    operation_id = "revoke_api_key",
    params(("id" = String, Path, description = "The key.", pattern = "^key_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), IfMatch),
    security(("bearer" = [])),
    responses((status = 204, description = "Revoked."), ActRefusals),
)]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, ApiError> {
    // The permission first: who may not revoke learns nothing from how an id is written.
    let scope = caller.still_may(&state.store, Permission::ManageKeys).await?;
    let id: KeyId = ids.at(0)?;
    let audit = audit(&caller, "api_key.revoked", &id, vec![], &origin);
    changed(state.store.revoke_api_key(scope, &id, &expected, &audit).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key with its secret, which no cache may keep.
fn shown_once(key: Stored, secret: &ApiKeySecret) -> Response {
    let version = key.version;
    let created = CreatedApiKey { key: key.into(), secret: secret.expose().to_owned() };
    Tagged(version, ([(header::CACHE_CONTROL, "no-store")], Answer(created))).into_response()
}

fn audit<'a>(
    caller: &Caller,
    action: &'static str,
    id: &'a KeyId,
    changes: Vec<Change>,
    origin: &'a Origin,
) -> NewAudit<'a> {
    let actor: AuditActor = caller.audit_actor();
    NewAudit { action, actor, target: Some(id.as_str()), changes, origin }
}

fn changes(before: &Stored, wanted: &ApiKeyChange) -> Vec<Change> {
    let mut changes = vec![];
    let mut set = |field, old: Option<String>, new: Option<String>| {
        if old != new {
            changes.push(change(field, old, new));
        }
    };
    if let Some(name) = &wanted.name {
        set("name", Some(before.name.clone()), Some(name.clone()));
    }
    if let Some(scopes) = wanted.scopes {
        set("scopes", Some(before.scopes.words()), Some(scopes.words()));
    }
    if let Some(expires_at) = wanted.expires_at {
        set("expires_at", before.expires_at.map(rfc3339), expires_at.map(rfc3339));
    }
    if let Some(budgets) = &wanted.budgets {
        set("budget", Some(in_words(&before.budgets)), Some(in_words(budgets)));
    }
    if let Some(disabled) = wanted.disabled {
        set("disabled", Some(before.disabled.to_string()), Some(disabled.to_string()));
    }
    changes
}

fn scopes(names: Vec<KeyScopeName>) -> Result<KeyScopes, ApiError> {
    let scopes: KeyScopes = names.into_iter().map(KeyScope::from).collect();
    if scopes.is_empty() { Err(ApiError::invalid("/scopes", "must name one at least")) } else { Ok(scopes) }
}

fn end(text: &str, now: Millis) -> Result<Millis, ApiError> {
    let end = parse_moment(text).map_err(|error| ApiError::invalid("/expires_at", error.to_string()))?;
    if end > now { Ok(end) } else { Err(ApiError::invalid("/expires_at", "must be in the future")) }
}
