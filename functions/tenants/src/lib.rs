//! Organizations and their API keys.
//!
//! - [`organizations`] shows a caller the organizations they belong to.
//! - [`api_keys`] lists, creates and revokes the keys of the caller's organization.

mod api_keys;
mod organizations;

use axum::{Router, extract::FromRef};
use serde::Deserialize;
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{MacKey, secret_key},
    config::{self, ConfigError, Env},
    cursor::{CURSOR_KEY, PageLimit},
    router::{ErrorShape, finish},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Largest body, in bytes. The longest thing that is sent is a name.
pub const BODY_LIMIT: usize = 16 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    store: Store,
    authenticator: Authenticator,
    cursor_key: MacKey,
}

impl State {
    /// From parts that were made elsewhere; `secret` is what cursors are authenticated with.
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, secret: &[u8; 32]) -> Self {
        Self { store, authenticator, cursor_key: MacKey::derive(secret, CURSOR_KEY) }
    }

    /// From `TABLE_NAME`, `JWT_JWKS`, `JWT_ISSUER` and `SECRET_KEY`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let authenticator = Authenticator::from_env(env, store.clone())?;
        Ok(Self::new(store, authenticator, &secret_key(env)?))
    }
}

impl FromRef<State> for Authenticator {
    fn from_ref(state: &State) -> Self {
        state.authenticator.clone()
    }
}

/// The part of a list that is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// How many items at most.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    pub(crate) limit: PageLimit,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// The routes with their documentation.
#[must_use]
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::default()
        .routes(routes!(organizations::list))
        .routes(routes!(organizations::get))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    finish(routes(), state, ErrorShape::Problem, BODY_LIMIT)
}
