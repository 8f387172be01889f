//! `/api-keys`: listed, created and revoked by owners and admins. The secret is shown once.

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    KeyId, SessionId, UserId,
    plans::{Limit, Plan},
    roles::{Actor, Permission},
    secret::ApiKeySecret,
    time::rfc3339,
};
use tenantry_store::{ApiKey as Stored, NewApiKey, Store, TenantScope};
use tenantry_web::{ApiError, Caller, Code, Json, Path, Query, cursor::Cursors, error::Problem, extract::line};
use utoipa::ToSchema;

use crate::{ListQuery, State};

/// Most characters of a key's name.
const NAME_CHARS: usize = 100;

/// An API key as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKey {
    /// The key's public name.
    #[schema(value_type = String, example = "key_068b0kx0fawcp8yv9p2zkv5a5r")]
    id: KeyId,
    /// Name for people.
    name: String,
    /// First characters of the secret.
    #[schema(example = "wk_live_Ab3d")]
    prefix: String,
    /// Last characters of the secret.
    #[schema(example = "x9Zk")]
    last4: String,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// Who created it.
    #[schema(value_type = String, example = "usr_068b0kx0fawcp8yv9p2zkv5a5r")]
    created_by: UserId,
}

impl From<Stored> for ApiKey {
    fn from(key: Stored) -> Self {
        Self {
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
    #[schema(min_length = 1, max_length = 100, example = "production")]
    name: String,
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
    let scope = caller.scope(Permission::ManageKeys)?;
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
    responses(
        (status = 201, description = "Created.", body = CreatedApiKey),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only owners and admins manage keys; or `upgrade_required`: the plan includes no more keys.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(request): Json<CreateApiKeyRequest>,
) -> Result<Response, ApiError> {
    let scope = caller.scope(Permission::ManageKeys)?;
    let (created_by, session) = caller.user()?;
    must_still_hold(&state.store, scope, created_by, session).await?;
    let name = line("/name", &request.name, NAME_CHARS)?;
    let plan = state.store.plans().get(&state.store.meter(scope).await?.plan);
    let secret = ApiKeySecret::generate().map_err(|error| ApiError::internal(error.to_string()))?;
    let new = NewApiKey { id: &KeyId::new(), name: &name, secret: &secret, created_by };
    let key = state.store.create_api_key(scope, &new, plan.limits.keys).await?.ok_or_else(|| full(plan))?;
    let created = CreatedApiKey { key: key.into(), secret: secret.expose().to_owned() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Answer(created)).into_response())
}

/// An access token is good for ten minutes whatever happens meanwhile; a key that it makes is good for ever.
/// So the token's session, its person and their role are looked at as they are now.
async fn must_still_hold(
    store: &Store,
    scope: &TenantScope,
    user: &UserId,
    session: &SessionId,
) -> Result<(), ApiError> {
    let ended = || ApiError::new(Code::Unauthenticated, "Your session has ended; sign in again.");
    store.session(user, session).await?.ok_or_else(ended)?;
    store.user(user).await?.filter(|user| !user.disabled).ok_or_else(ended)?;
    let role = store.membership(user, scope.org()).await?.ok_or_else(ended)?.role;
    if Actor::User(role).may(Permission::ManageKeys) {
        Ok(())
    } else {
        Err(ApiError::new(Code::Forbidden, "Your role does not allow this any more; ask an owner or admin."))
    }
}

/// Revoke an API key
///
/// It stops working within half a minute.
#[utoipa::path(
    delete,
    path = "/api/v1/api-keys/{id}",
    tag = "api keys",
    operation_id = "revoke_api_key",
    params(("id" = String, Path, description = "The key.")),
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Revoked."),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only owners and admins manage keys; an API key cannot.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The organization has no such key.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    id: Result<Path<KeyId>, ApiError>,
) -> Result<StatusCode, ApiError> {
    // The permission first: who may not revoke learns nothing from how an id is written.
    let scope = caller.scope(Permission::ManageKeys)?;
    let Path(id) = id?;
    if state.store.revoke_api_key(scope, &id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found()) }
}

/// The plan includes no more keys. An unlimited plan gets here only when the organization is gone.
fn full(plan: &Plan) -> ApiError {
    match plan.limits.keys {
        Limit::Of(limit) => ApiError::new(
            Code::UpgradeRequired,
            format!(
                "The plan {} includes {limit} API keys, and there are as many. Revoke one, or change to a larger plan.",
                plan.name
            ),
        ),
        Limit::Unlimited => ApiError::not_found(),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::plans::{DEFAULT_PLANS, Plans};

    use super::*;

    #[test]
    fn the_refusal_names_limit_and_plan() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let error = full(plans.get("free"));
        assert_eq!(error.code(), Code::UpgradeRequired);
        let detail = error.to_problem("").detail;
        assert!(detail.contains("Free") && detail.contains("2 API keys"), "{detail}");
        assert_eq!(full(plans.get("team")).code(), Code::NotFound);
    }
}
