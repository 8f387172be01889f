//! Who is who: registering, signing in, sessions, and the keys that access tokens are checked with.
//!
//! - [`password`] has the rules for new passwords, [`hasher`] the work of hashing and its bounds.
//! - `tokens` turns a session into the answer of register, login and refresh.
//! - The other modules are one route each.

pub mod hasher;
mod jwks;
mod login;
mod logout;
mod me;
pub mod password;
mod refresh;
mod register;
mod tokens;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use tenantry_domain::{OrgId, SessionId, UserId, roles::Role};
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{RefreshTokens, SigningKey, secret_key},
    config::{self, ConfigError, Env},
    router::{ErrorShape, finish},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use hasher::Hasher;
pub use register::register_user;

/// Largest body, in bytes. Nothing here is long, and what is hashed should not be either.
pub const BODY_LIMIT: usize = 16 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    store: Store,
    authenticator: Authenticator,
    signing_key: Arc<SigningKey>,
    refresh_tokens: RefreshTokens,
    hasher: Hasher,
}

impl State {
    /// From parts that were made elsewhere, as `host` does.
    #[must_use]
    pub const fn new(
        store: Store,
        authenticator: Authenticator,
        signing_key: Arc<SigningKey>,
        refresh_tokens: RefreshTokens,
        hasher: Hasher,
    ) -> Self {
        Self { store, authenticator, signing_key, refresh_tokens, hasher }
    }

    /// From `TABLE_NAME`, `JWT_SIGNING_KEY` (PKCS #8 in base64), `JWT_JWKS`, `JWT_ISSUER` and `SECRET_KEY`.
    ///
    /// # Errors
    /// [`ConfigError`], also when the signing key's public half is not in the JWKS: every token would be
    /// refused.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let authenticator = Authenticator::from_env(env, store.clone())?;
        let signing_key = signing_key(env, &authenticator, &store)?;
        let refresh_tokens = RefreshTokens::new(&secret_key(env)?);
        Ok(Self::new(store, authenticator, Arc::new(signing_key), refresh_tokens, Hasher::default()))
    }
}

fn signing_key(env: &Env, authenticator: &Authenticator, store: &Store) -> Result<SigningKey, ConfigError> {
    const NAME: &str = "JWT_SIGNING_KEY";
    let pkcs8 = data_encoding::BASE64
        .decode(env.required(NAME)?.as_bytes())
        .map_err(|error| ConfigError::new(NAME, format!("must be PKCS #8 in base64: {error}")))?;
    let key =
        SigningKey::from_pkcs8(&pkcs8, env.required("JWT_ISSUER")?).map_err(|error| ConfigError::new(NAME, error))?;
    let now = store.now();
    key.issue(&UserId::new(), &OrgId::new(), Role::Member, &SessionId::new(), now)
        .and_then(|token| authenticator.tokens.verify(&token, now))
        .map_err(|error| ConfigError::new(NAME, format!("its tokens do not verify with JWT_JWKS: {error}")))?;
    Ok(key)
}

impl FromRef<State> for Authenticator {
    fn from_ref(state: &State) -> Self {
        state.authenticator.clone()
    }
}

/// The routes with their documentation.
#[must_use]
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::default()
        .routes(routes!(register::register))
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(me::me))
        .routes(routes!(jwks::jwks))
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    finish(routes(), state, ErrorShape::Problem, BODY_LIMIT)
}
