//! Who calls: API keys, access tokens, refresh tokens.

mod access;
mod caller;
mod mac;
mod refresh;
mod role;
mod still;

use std::sync::Arc;

use tenantry_store::Store;

pub use access::{ACCESS_TOKEN_SECONDS, AccessClaims, Jwk, Jwks, SigningKey, TokenVerifier, VerifyError};
pub use caller::{Caller, Identity};
pub use mac::MacKey;
pub use refresh::{RefreshToken, RefreshTokens, TenantRefreshToken};
pub use role::RoleName;

use crate::config::{ConfigError, Env};

/// What it takes to authenticate a request. Part of the state of every function with callers.
#[derive(Clone)]
pub struct Authenticator {
    /// Where API keys are.
    pub store: Store,
    /// Public keys of access tokens.
    pub tokens: Arc<TokenVerifier>,
}

impl Authenticator {
    /// From `JWT_JWKS` and `JWT_ISSUER`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env, store: Store) -> Result<Self, ConfigError> {
        let jwks = env.required("JWT_JWKS")?;
        let tokens = TokenVerifier::from_jwks(jwks, env.required("JWT_ISSUER")?)
            .map_err(|error| ConfigError::new("JWT_JWKS", error))?;
        Ok(Self { store, tokens: Arc::new(tokens) })
    }
}

/// The secret that refresh tokens and cursors are authenticated with: `SECRET_KEY`, 32 bytes in base64.
///
/// # Errors
/// [`ConfigError`].
pub fn secret_key(env: &Env) -> Result<[u8; 32], ConfigError> {
    let bytes = data_encoding::BASE64
        .decode(env.required("SECRET_KEY")?.as_bytes())
        .map_err(|error| ConfigError::new("SECRET_KEY", error))?;
    bytes.try_into().map_err(|_| ConfigError::new("SECRET_KEY", "must be 32 bytes in base64"))
}
