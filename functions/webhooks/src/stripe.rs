//! Stripe's events.

use axum::extract::{Request, State as Shared};
use http::{HeaderMap, StatusCode};
use tenantry_domain::secret::sha256_hex;
use tenantry_payments::stripe::{Delivery, Stripe, Unreadable};
use tenantry_web::{ApiError, extract::body, telemetry};

use crate::{
    Refusals, State,
    work::{Told, not_believed, not_configured},
};

/// As keys and logs call it.
const VENDOR: &str = "stripe";

/// Events of Stripe
///
/// Signed by `Stripe-Signature` over the raw body, at most five minutes ago. The endpoint at Stripe must be created with
/// version `2026-09-30.endive` of its API.
#[utoipa::path(
    post,
    path = "/webhooks/stripe",
    tag = "webhooks",
    operation_id = "stripe_webhook",
    security(()),
    responses((status = 204, description = "Taken; or kept for people, because it fits nothing or cannot be read."), Refusals),
)]
pub(crate) async fn stripe(Shared(state): Shared<State>, request: Request) -> Result<StatusCode, ApiError> {
    let stripe = state.commerce.stripe().map_err(|_| not_configured())?;
    let headers = request.headers().clone();
    let body = body(request, &()).await?;
    match verify(&state, stripe, &headers, &body)? {
        Delivery::Event(event) => {
            let told = Told { vendor: VENDOR, id: &event.id, body: &body };
            state.once(&told, state.commerce.handle(&event)).await?;
        }
        Delivery::Unreadable(unreadable) => keep(&state, &unreadable, &body).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

fn verify(state: &State, stripe: &Stripe, headers: &HeaderMap, body: &[u8]) -> Result<Delivery, ApiError> {
    // Two headers of the name are nobody's signature.
    let mut signatures = headers.get_all("stripe-signature").iter();
    let signature = match (signatures.next(), signatures.next()) {
        (Some(signature), None) => signature.to_str().unwrap_or_default(),
        _ => "",
    };
    let store = state.commerce.store();
    let verified = stripe.webhooks().verify(body, signature, store.now());
    verified.map_err(|error| not_believed(store, VENDOR, &error, format!("{error}.")))
}

/// To refuse it would have it delivered for three days, as unreadable as now.
async fn keep(state: &State, unreadable: &Unreadable, body: &[u8]) -> Result<(), ApiError> {
    let store = state.commerce.store();
    let Unreadable { id, kind, api_version, why } = unreadable;
    tracing::error!(vendor = VENDOR, id, kind, api_version, why, "a message cannot be read, and is kept for people");
    telemetry::metric(store.now(), "WebhooksUnreadable", 1);
    let id = id.clone().unwrap_or_else(|| sha256_hex(body));
    store.keep_unreadable_event(VENDOR, &id, &String::from_utf8_lossy(body)).await?;
    Ok(())
}
