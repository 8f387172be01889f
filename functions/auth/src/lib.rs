//! Who is who: registering, signing in, sessions, and the keys that access tokens are checked with.
//!
//! - [`password`] has the rules for new passwords, [`hasher`] the work of hashing and its bounds.
//! - `limits` has how often anything may be tried, `mails` what is mailed.
//! - `tokens` turns a session into the answer of register, login, refresh and switch.
//! - The other modules are a route each, or a few.

mod email;
pub mod hasher;
mod jwks;
mod limits;
mod login;
mod logout;
mod mails;
mod me;
pub mod password;
mod passwords;
mod profile;
mod refresh;
mod register;
mod sessions;
mod switch;
mod tenant_login;
mod tenant_users;
mod tokens;

use std::sync::Arc;

use axum::{Extension, Router, extract::FromRef};
use tenantry_domain::{OrgId, SessionId, UserId, roles::Role};
use tenantry_store::Store;
use tenantry_web::{
    ApiError, Authenticator,
    auth::{MacKey, RefreshTokens, SigningKey, secret_key},
    config::{self, ConfigError, Env},
    cursor::CURSOR_KEY,
    idempotency::{Idempotency, idempotent},
    mail::{MailQueue, SqsMailQueue},
    router::{ErrorShape, finish},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{limits::Guess, mails::Mails, password::Password};

pub use email::EmailVerification;
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
    cursor_key: MacKey,
    log_names: MacKey,
    idempotency: Idempotency,
    hasher: Hasher,
    mails: Mails,
    verification: EmailVerification,
}

impl State {
    /// From parts that were made elsewhere, as `host` does. `secret` is what refresh tokens and cursors are
    /// authenticated with.
    #[must_use]
    pub fn new(
        store: Store,
        authenticator: Authenticator,
        signing_key: Arc<SigningKey>,
        secret: &[u8; 32],
        hasher: Hasher,
        mail_queue: Arc<dyn MailQueue>,
        verification: EmailVerification,
    ) -> Self {
        Self {
            mails: Mails::new(store.clone(), mail_queue),
            idempotency: Idempotency::new(authenticator.clone(), secret),
            store,
            authenticator,
            signing_key,
            refresh_tokens: RefreshTokens::new(secret),
            cursor_key: MacKey::derive(secret, CURSOR_KEY),
            log_names: MacKey::derive(secret, "names in the log"),
            hasher,
            verification,
        }
    }

    /// From `TABLE_NAME`, `JWT_SIGNING_KEY` (PKCS #8 in base64), `JWT_JWKS`, `JWT_ISSUER`, `SECRET_KEY`,
    /// `MAIL_QUEUE_URL` and `EMAIL_VERIFICATION`.
    ///
    /// # Errors
    /// [`ConfigError`], also when the signing key's public half is not in the JWKS: every token would be
    /// refused.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let authenticator = Authenticator::from_env(env, store.clone())?;
        let signing_key = Arc::new(signing_key(env, &authenticator, &store)?);
        let mail_queue = Arc::new(SqsMailQueue::new(config::queue(env, "MAIL_QUEUE_URL")?));
        let (secret, verification) = (secret_key(env)?, EmailVerification::from_env(env)?);
        Ok(Self::new(store, authenticator, signing_key, &secret, Hasher::default(), mail_queue, verification))
    }

    /// Whether `password` is the one of `hash`, and the account `usable`. The guess was counted; it is forgotten
    /// when it was right, and taken back when nobody could look.
    async fn check_password(
        &self,
        guess: Guess<'_>,
        password: Password,
        hash: Option<&str>,
        usable: bool,
    ) -> Result<bool, ApiError> {
        match self.hasher.verify(password, hash).await {
            Ok(matches) if matches && usable => guess.was_right().await.map(|()| true),
            Ok(_) => {
                guess.was_wrong(&self.log_names);
                Ok(false)
            }
            Err(error) => {
                guess.was_not_checked().await?;
                Err(error)
            }
        }
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
    // The only ones that have a caller and create something.
    let tenant_users = OpenApiRouter::default()
        .routes(routes!(tenant_users::list, tenant_users::create))
        .routes(routes!(tenant_users::update, tenant_users::delete));
    OpenApiRouter::default()
        .routes(routes!(register::register))
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(switch::switch))
        .routes(routes!(me::me, profile::update))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::revoke))
        .routes(routes!(email::verify))
        .routes(routes!(email::resend))
        .routes(routes!(passwords::forgot))
        .routes(routes!(passwords::reset))
        .routes(routes!(passwords::change))
        .routes(routes!(jwks::jwks))
        .merge(idempotent(tenant_users))
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    let routes = routes().layer(Extension(state.idempotency.clone()));
    finish(routes, state, ErrorShape::Problem, BODY_LIMIT)
}
