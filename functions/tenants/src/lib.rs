//! Organizations, who belongs to them, and their API keys.
//!
//! - [`organizations`] shows a caller the organizations they belong to, and changes, deletes and restores them.
//! - [`members`] and [`invites`] have who belongs to one, and how people come in.
//! - [`api_keys`] has the keys of the caller's organization.
//! - [`budgets`] has the limits of their own that keys, members and models may have.
//! - [`audit`] reads the audit log, [`export`] takes all data of an organization out.
//! - [`acting`] has who acts in an organization, as they are at this moment.

mod acting;
mod api_keys;
mod audit;
mod budgets;
mod export;
mod invites;
mod members;
mod organizations;
mod refusals;

use std::sync::Arc;

use axum::{Extension, Router, extract::FromRef};
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{MacKey, secret_key},
    config::{self, ConfigError, Env},
    cursor::CURSOR_KEY,
    idempotency::{Idempotency, idempotent},
    mail::{MailQueue, SqsMailQueue},
    router::{ErrorShape, finish},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Largest body, in bytes. The longest thing that is sent is a name.
pub const BODY_LIMIT: usize = 16 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    store: Store,
    authenticator: Authenticator,
    cursor_key: MacKey,
    idempotency: Idempotency,
    mails: Arc<dyn MailQueue>,
}

impl State {
    /// From parts that were made elsewhere; `secret` is what cursors are authenticated with.
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, secret: &[u8; 32], mails: Arc<dyn MailQueue>) -> Self {
        let idempotency = Idempotency::new(authenticator.clone(), secret);
        Self { store, authenticator, cursor_key: MacKey::derive(secret, CURSOR_KEY), idempotency, mails }
    }

    /// From `TABLE_NAME`, `JWT_JWKS`, `JWT_ISSUER`, `SECRET_KEY` and `MAIL_QUEUE_URL`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let authenticator = Authenticator::from_env(env, store.clone())?;
        let mails = Arc::new(SqsMailQueue::new(config::queue(env, "MAIL_QUEUE_URL")?));
        Ok(Self::new(store, authenticator, &secret_key(env)?, mails))
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
    let routes = OpenApiRouter::default()
        .routes(routes!(organizations::list, organizations::create))
        .routes(routes!(organizations::get, organizations::update, organizations::delete))
        .routes(routes!(organizations::restore))
        .routes(routes!(members::list, invites::create))
        .routes(routes!(members::update, members::remove))
        .routes(routes!(members::transfer))
        .routes(routes!(invites::list))
        .routes(routes!(invites::revoke))
        .routes(routes!(invites::accept))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::update, api_keys::revoke))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(audit::list))
        .routes(routes!(export::export));
    idempotent(routes)
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    let routes = routes().layer(Extension(state.idempotency.clone()));
    finish(routes, state, ErrorShape::Problem, BODY_LIMIT)
}
