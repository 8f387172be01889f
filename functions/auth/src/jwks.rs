//! `GET /.well-known/jwks.json`: the public keys, so that other services can check access tokens.

use axum::extract::State as Shared;
use http::{HeaderName, header};
use tenantry_web::auth::Jwks;

use crate::State;

/// Five minutes, the time that a new key must be published before it signs.
const CACHE: &str = "public, max-age=300";

/// Public keys
///
/// The keys that access tokens are signed with (RFC 7517). A token names its key in the header's `kid`.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    operation_id = "jwks",
    security(()),
    responses((status = 200, description = "The keys.", body = Jwks)),
)]
pub(crate) async fn jwks(Shared(state): Shared<State>) -> ([(HeaderName, &'static str); 2], String) {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, CACHE)];
    (headers, state.authenticator.tokens.jwks().to_owned())
}
