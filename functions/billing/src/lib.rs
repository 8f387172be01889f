//! What is sold, and what a tenant bought of it.
//!
//! - [`plans`] and [`packages`] are the shop windows.
//! - [`checkout`] and [`orders`] sell: pages of Stripe's, QR codes of WeChat Pay and Alipay.
//! - [`current`] is the subscription at a glance, [`changes`] changes it, [`history`] is what was.
//! - [`credits`] is the balance and its ledger, [`top_up`] what happens when it runs out.
//!
//! What a payment does to a tenant is in the crate `commerce`; here is who may ask for it, and how it is shown. Nothing
//! that comes back from a vendor's page in the browser is believed: what was paid is told by webhooks, or asked for.

mod changes;
mod checkout;
mod credits;
mod current;
mod history;
mod money;
mod orders;
mod packages;
mod pages;
mod plans;
mod refusals;
mod top_up;

use axum::{Extension, Router, extract::FromRef};
use tenantry_commerce::Commerce;
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{MacKey, secret_key},
    config::{self, ConfigError, Env},
    cursor::CURSOR_KEY,
    idempotency::{Idempotency, idempotent},
    router::{ErrorShape, finish},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use pages::Pages;

/// Largest body, in bytes. The longest thing that is sent are two addresses.
pub const BODY_LIMIT: usize = 16 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    commerce: Commerce,
    authenticator: Authenticator,
    cursor_key: MacKey,
    idempotency: Idempotency,
    pages: Pages,
    offers: plans::Offers,
}

impl State {
    /// From parts that were made elsewhere; `secret` is what cursors are authenticated with.
    #[must_use]
    pub fn new(commerce: Commerce, authenticator: Authenticator, secret: &[u8; 32], pages: Pages) -> Self {
        Self {
            commerce,
            idempotency: Idempotency::new(authenticator.clone(), secret),
            authenticator,
            cursor_key: MacKey::derive(secret, CURSOR_KEY),
            pages,
            offers: plans::Offers::default(),
        }
    }

    /// From `TABLE_NAME`, `JWT_JWKS`, `JWT_ISSUER`, `SECRET_KEY`, `PUBLIC_URL`, `CORS_ORIGINS` and what
    /// [`Commerce::from_env`] reads.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let authenticator = Authenticator::from_env(env, store.clone())?;
        let commerce = Commerce::from_env(env, store)?;
        Ok(Self::new(commerce, authenticator, &secret_key(env)?, Pages::from_env(env)?))
    }

    fn store(&self) -> &Store {
        self.commerce.store()
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
        .routes(routes!(plans::list))
        .routes(routes!(current::get))
        .routes(routes!(checkout::subscribe))
        .routes(routes!(checkout::portal))
        .routes(routes!(changes::preview))
        .routes(routes!(changes::upgrade))
        .routes(routes!(changes::cancel))
        .routes(routes!(changes::resume))
        .routes(routes!(history::subscription))
        .routes(routes!(history::invoices))
        .routes(routes!(packages::list))
        .routes(routes!(packages::checkout))
        .routes(routes!(orders::create_wechat))
        .routes(routes!(orders::create_alipay))
        .routes(routes!(orders::list))
        .routes(routes!(orders::get))
        .routes(routes!(credits::balance))
        .routes(routes!(credits::ledger))
        .routes(routes!(top_up::get, top_up::set));
    idempotent(routes)
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    let routes = routes().layer(Extension(state.idempotency.clone()));
    finish(routes, state, ErrorShape::Problem, BODY_LIMIT)
}
