//! Tenant users sign in: with an API key of the scope `login`, which says whose customers they are, a name and a
//! password. Their tokens are for the tenant's own services; no route of the platform takes them.

use serde::Serialize;
use tenantry_domain::{OrgId, TenantUserId, Username, roles::Permission};
use tenantry_store::{Device, Origin, TenantRotation, TenantScope, TenantSession, TenantUser};
use tenantry_web::{
    ApiError, Code,
    auth::{ACCESS_TOKEN_SECONDS, TenantRefreshToken},
};
use utoipa::ToSchema;

use crate::{
    State,
    limits::{Account, Throttle},
    password::Password,
    refresh::ended,
    tokens::{SESSION_LASTS, Tokens},
};

/// Tokens of a person, or of a tenant user.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SignedIn {
    /// Of a person, who came with an e-mail address.
    Person(Box<Tokens>),
    /// Of a tenant user, who came with an API key.
    TenantUser(Box<TenantTokens>),
}

/// Tokens of a tenant user, and who they are for.
#[derive(Serialize, ToSchema)]
pub(crate) struct TenantTokens {
    /// For the tenant's own services: a JWT signed with ES256, of the type `tenant_user`, with the audience
    /// `tenantry:tenant_user`. `sub` is the tenant user, `org` the tenant.
    access_token: String,
    /// Exchange it for new tokens before the access token expires; each is good for one exchange.
    refresh_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    expires_in: i64,
    /// Who signed in.
    tenant_user: SignedInTenantUser,
    /// The tenant.
    #[schema(value_type = String, example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    organization_id: OrgId,
}

/// A tenant user, as they see themselves.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedInTenantUser {
    /// The person; a name may be given to somebody else later, this is not.
    #[schema(value_type = String, example = "tus_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^tus_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: TenantUserId,
    /// The name they sign in with.
    #[schema(example = "mike")]
    username: String,
    /// Name for people.
    #[schema(required)]
    display_name: Option<String>,
}

/// Begins a session of a tenant user. Unknown name, wrong password, none at all and a disabled user are answered
/// alike, after the same work.
pub(crate) async fn login(
    state: &State,
    origin: &Origin,
    api_key: &str,
    username: &str,
    password: &str,
    device: Device,
) -> Result<TenantTokens, ApiError> {
    let caller = state.authenticator.caller_with_key(api_key).await?;
    let scope = caller.scope(Permission::LoginTenantUsers)?;
    let username: Username = username.parse().map_err(|error| ApiError::invalid("/username", format!("{error}")))?;
    let user = state.store.tenant_user(scope, &username).await?;
    let guess = Throttle::new(&state.store, origin).password(Account::TenantUser(scope.org(), &username)).await?;
    let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
    let usable = user.as_ref().is_some_and(|user| !user.disabled);
    let right = state.check_password(guess, Password::given(password), hash, usable).await?;
    let user = user.filter(|_| right).ok_or_else(|| {
        ApiError::new(Code::InvalidCredentials, "Name and password do not match a user who may sign in.")
    })?;
    let session = TenantSession::begin(&user, device, state.store.now(), SESSION_LASTS);
    state.store.create_tenant_session(scope, &session).await?;
    tokens(state, scope, user, &session)
}

/// The next tokens of a tenant user's session, if `token` is one of theirs.
pub(crate) async fn refresh(state: &State, origin: &Origin, token: &str) -> Result<TenantTokens, ApiError> {
    let (scope, token) = state.refresh_tokens.open_tenant(token).ok_or_else(ended)?;
    let turned = state.store.rotate_tenant_session(&scope, &token.user, &token.session, token.counter, origin).await?;
    let session = match turned {
        TenantRotation::Current(session) => session,
        TenantRotation::Gone => return Err(ended()),
        TenantRotation::Replayed => {
            tracing::warn!(user = %token.user, session = %token.session, "an old refresh token came back");
            return Err(ended());
        }
    };
    let (user, organization) =
        tokio::try_join!(state.store.tenant_user(&scope, &session.username), state.store.organization(&scope))?;
    let lives = organization.is_some_and(|organization| organization.deletes_at.is_none());
    match user.filter(|user| lives && session.belongs_to(user)) {
        Some(user) => tokens(state, &scope, user, &session),
        None => {
            state.store.end_tenant_session(&scope, &session.user, &session.id).await?;
            Err(ended())
        }
    }
}

fn tokens(
    state: &State,
    scope: &TenantScope,
    user: TenantUser,
    session: &TenantSession,
) -> Result<TenantTokens, ApiError> {
    let org = scope.org().clone();
    let access_token = state
        .signing_key
        .issue_to_tenant_user(&user.id, &org, &session.id, state.store.now())
        .map_err(|error| ApiError::internal(format!("signing an access token failed: {error}")))?;
    let refresh_token = state.refresh_tokens.seal_tenant(&TenantRefreshToken {
        org: org.clone(),
        user: user.id.clone(),
        session: session.id.clone(),
        counter: session.counter,
    });
    let tenant_user =
        SignedInTenantUser { id: user.id, username: user.username.to_string(), display_name: user.display_name };
    Ok(TenantTokens {
        access_token,
        refresh_token,
        token_type: "Bearer",
        expires_in: ACCESS_TOKEN_SECONDS,
        tenant_user,
        organization_id: org,
    })
}
