//! What a tenant used, and what is left.
//!
//! - `stats` is one period at a glance: the meter, sums and a series to draw.
//! - `history` sums any days by day, model, key, member or resource.
//! - `records` are the requests one by one, as JSON or CSV; `export` streams those of any days.
//! - `own` records what the organization counts itself.
//! - `features` is what the plan includes.
//!
//! What vendors charge the operator is in none of them.

mod days;
mod export;
mod features;
mod figures;
mod history;
mod own;
mod records;
mod rows;
mod stats;

use axum::{Router, extract::FromRef};
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{MacKey, secret_key},
    config::{self, ConfigError, Env},
    cursor::CURSOR_KEY,
    router::{ErrorShape, finish},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Largest body, in bytes: that of a record, whose metadata have 4 KB, with room for how JSON may write them.
pub const BODY_LIMIT: usize = 32 * 1024;

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

/// The routes with their documentation.
#[must_use]
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::default()
        .routes(routes!(stats::stats))
        .routes(routes!(history::history))
        .routes(routes!(records::records))
        .routes(routes!(export::export))
        .routes(routes!(own::record))
        .routes(routes!(features::features))
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    finish(routes(), state, ErrorShape::Problem, BODY_LIMIT)
}
