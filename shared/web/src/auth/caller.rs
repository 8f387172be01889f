//! The caller as a typed value. A handler that forgets to take one has no scope to hand to the store.

use axum::extract::FromRef;
use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use tenantry_domain::{
    KeyId, SessionId, UserId,
    budget::Budgets,
    roles::{Actor, KeyScopes, Permission, Role},
    secret::ApiKeySecret,
};
use tenantry_store::{AuditActor, TenantScope};

use super::Authenticator;
use crate::error::{ApiError, Code};

/// Who was authenticated.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A person with an access token.
    User {
        /// The person.
        user: UserId,
        /// The role in the organization; none while that is being deleted.
        role: Option<Role>,
        /// The session.
        session: SessionId,
        /// When the access token ends, in seconds since 1970.
        expires_at: i64,
    },
    /// A program with an API key.
    Key {
        /// The key.
        key: KeyId,
        /// The member who made it.
        created_by: UserId,
        /// What it may be used for.
        scopes: KeyScopes,
        /// Whether it is for test mode.
        test: bool,
        /// Its own limits.
        budgets: Budgets,
    },
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    scope: TenantScope,
    identity: Identity,
}

impl Caller {
    /// The tenant's scope, if the caller may do `permission` there.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn scope(&self, permission: Permission) -> Result<&TenantScope, ApiError> {
        let (actor, help) = match &self.identity {
            Identity::User { role: Some(role), .. } => {
                (Actor::User(*role), "Your role does not allow this; ask an owner or admin.")
            }
            Identity::User { role: None, .. } => (
                Actor::Waiting,
                "Your organization is being deleted. Restore it with POST /api/v1/organizations/{id}/restore, or create another.",
            ),
            Identity::Key { scopes, .. } => (
                Actor::Key(*scopes),
                "This API key may not do this: a scope is missing, or it takes a person's access token.",
            ),
        };
        if actor.may(permission) { Ok(&self.scope) } else { Err(ApiError::new(Code::Forbidden, help)) }
    }

    /// Who it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The signed-in person and their session.
    ///
    /// # Errors
    /// 403 for an API key.
    pub fn user(&self) -> Result<(&UserId, &SessionId), ApiError> {
        match &self.identity {
            Identity::User { user, session, .. } => Ok((user, session)),
            Identity::Key { .. } => {
                Err(ApiError::new(Code::Forbidden, "This is about a person; sign in and use an access token."))
            }
        }
    }

    /// Whether it is a person whose organization is being deleted.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.identity, Identity::User { role: None, .. })
    }

    /// When the access token ends, in seconds since 1970; none for an API key.
    #[must_use]
    pub const fn token_ends_at(&self) -> Option<i64> {
        match &self.identity {
            Identity::User { expires_at, .. } => Some(*expires_at),
            Identity::Key { .. } => None,
        }
    }

    /// The API key, when one was used.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyId> {
        match &self.identity {
            Identity::Key { key, .. } => Some(key),
            Identity::User { .. } => None,
        }
    }

    /// The key with limits of its own, when one was used that has any.
    #[must_use]
    pub fn budgets(&self) -> Option<(&KeyId, &Budgets)> {
        match &self.identity {
            Identity::Key { key, budgets, .. } if !budgets.is_empty() => Some((key, budgets)),
            _ => None,
        }
    }

    /// Whether it is a key for test mode, which reaches no vendor.
    #[must_use]
    pub const fn is_test(&self) -> bool {
        matches!(self.identity, Identity::Key { test: true, .. })
    }

    /// The caller as the audit log names them.
    #[must_use]
    pub fn audit_actor(&self) -> AuditActor {
        match &self.identity {
            Identity::User { user, .. } => AuditActor::User(user.clone()),
            Identity::Key { key, .. } => AuditActor::Key(key.clone()),
        }
    }

    /// The member that usage is booked on: the person, or whoever made the key.
    #[must_use]
    pub const fn member(&self) -> &UserId {
        match &self.identity {
            Identity::User { user, .. } => user,
            Identity::Key { created_by, .. } => created_by,
        }
    }
}

impl Authenticator {
    /// The caller with an API key that came in a body.
    ///
    /// # Errors
    /// 401 when it is not valid.
    pub async fn caller_with_key(&self, secret: &str) -> Result<Caller, ApiError> {
        with_key(self, secret).await
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Authenticator: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Only code of ours puts one there: whoever had to know the caller before the handler.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let authenticator = Authenticator::from_ref(state);
        let caller = authenticate(&authenticator, &parts.headers).await?;
        // The access log names the tenant.
        tracing::Span::current().record("org", caller.scope.org().as_str());
        Ok(caller)
    }
}

async fn authenticate(authenticator: &Authenticator, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let credential = credential(headers)?;
    if credential.starts_with("wk_") {
        return with_key(authenticator, credential).await;
    }
    let claims = authenticator.tokens.verify(credential, authenticator.store.now()).map_err(|error| {
        tracing::debug!(%error, "an access token was refused");
        // OpenAI's SDKs send any text as a key; this is what they get for one that is none of ours.
        ApiError::new(
            Code::InvalidApiKey,
            "Neither a valid API key nor a valid access token. Sign in again, or use a key that starts with wk_.",
        )
    })?;
    // The token's signature proves that auth issued it for this organization.
    #[allow(clippy::disallowed_methods, reason = "this is authentication")]
    let scope = TenantScope::authenticated(claims.org);
    let (user, role, session, expires_at) = (claims.sub, claims.role, claims.sid, claims.exp);
    Ok(Caller { scope, identity: Identity::User { user, role, session, expires_at } })
}

async fn with_key(authenticator: &Authenticator, secret: &str) -> Result<Caller, ApiError> {
    // A wrong checksum is refused before any read.
    let unknown = || {
        ApiError::new(
            Code::InvalidApiKey,
            "This API key is not valid. It may be mistyped, revoked, switched off or expired; create one in the console or with POST /api/v1/api-keys.",
        )
    };
    let secret = ApiKeySecret::parse(secret).ok_or_else(unknown)?;
    let key = authenticator.store.api_key_by_secret(&secret).await?.ok_or_else(unknown)?;
    let (test, scopes) = (key.is_test(), key.scopes);
    let identity = Identity::Key { key: key.id, created_by: key.created_by, scopes, test, budgets: key.budgets };
    Ok(Caller { scope: key.scope, identity })
}

fn credential(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        ApiError::new(
            Code::Unauthenticated,
            "Send Authorization: Bearer followed by an API key or an access token, or X-API-Key.",
        )
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, credential) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
    });
    if let Some(credential) = bearer.filter(|credential| !credential.is_empty()) {
        return Ok(credential);
    }
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    key.filter(|key| !key.is_empty()).ok_or_else(missing)
}
