//! `POST /subscriptions/checkout` and `/subscriptions/portal`: pages of Stripe's.

use axum::{Json as Answer, extract::State as Shared};
use serde::{Deserialize, Serialize};
use tenantry_commerce::CheckoutPages;
use tenantry_domain::roles::Permission;
use tenantry_store::TenantScope;
use tenantry_web::{ApiError, Caller, Json, extract::OptionalJson};
use utoipa::ToSchema;

use crate::{
    State,
    refusals::{Attempt, BuyRefusals, refused},
};

/// What to subscribe to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckoutRequest {
    /// `price_id` of a plan's price.
    #[schema(example = "price_1QK4vK2eZvKYlo2C", max_length = 255)]
    price_id: String,
    /// Where the browser goes after the purchase: a page of this product. Stripe puts the session's id in the place of
    /// `{CHECKOUT_SESSION_ID}`.
    #[schema(max_length = 2048, pattern = "^https?://")]
    success_url: Option<String>,
    /// Where it goes when nothing was bought.
    #[schema(max_length = 2048, pattern = "^https?://")]
    cancel_url: Option<String>,
}

/// A page to send the browser to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckoutAnswer {
    /// Stripe's page.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_test_a1b2c3")]
    checkout_url: String,
    /// Stripe's id of it.
    #[schema(example = "cs_test_a1b2c3")]
    session_id: String,
}

/// Where to come back to.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortalRequest {
    /// Where the browser goes from Stripe's pages: a page of this product.
    #[schema(max_length = 2048, pattern = "^https?://")]
    return_url: Option<String>,
}

/// A page to send the browser to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PortalAnswer {
    /// Stripe's page, good for some minutes.
    #[schema(example = "https://billing.stripe.com/p/session/test_a1b2c3")]
    portal_url: String,
}

/// Subscribe
///
/// A page of Stripe's where the organization subscribes to a plan, with promotion codes and, for a first subscription, the
/// plan's trial. The plan counts once Stripe tells of the payment, which takes seconds. While a subscription lives it is
/// changed by `POST /subscriptions/upgrade`, and not bought again. One page can be paid at a time: to open another closes
/// the one before.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions/checkout",
    tag = "billing",
    operation_id = "create_checkout",
    request_body = CheckoutRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "Send the browser there.", body = CheckoutAnswer), BuyRefusals),
)]
pub(crate) async fn subscribe(
    Shared(state): Shared<State>,
    caller: Caller,
    Attempt(attempt): Attempt,
    Json(request): Json<CheckoutRequest>,
) -> Result<Answer<CheckoutAnswer>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let success_url = state.pages.back("/success_url", request.success_url.as_deref(), "/billing?checkout=success")?;
    let cancel_url = state.pages.back("/cancel_url", request.cancel_url.as_deref(), "/billing?checkout=canceled")?;
    let commerce = &state.commerce;
    let refused = |error| refused(error, "/price_id");
    let offer = commerce.offer(&request.price_id).await.map_err(refused)?;
    let customer = customer(&state, &caller, scope).await?;
    let pages = CheckoutPages { success_url: &success_url, cancel_url: &cancel_url };
    let session = commerce.subscribe(scope, &customer, &offer.price.id, offer.plan.trial_days, pages, &attempt).await;
    let session = session.map_err(refused)?;
    let checkout_url = session.url.ok_or_else(|| ApiError::internal("a checkout session without a page"))?;
    Ok(Answer(CheckoutAnswer { checkout_url, session_id: session.id }))
}

/// Customer portal
///
/// A page of Stripe's with the organization's invoices and payment methods.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions/portal",
    tag = "billing",
    operation_id = "create_portal",
    request_body = Option<PortalRequest>,
    security(("bearer" = [])),
    responses((status = 200, description = "Send the browser there.", body = PortalAnswer), BuyRefusals),
)]
pub(crate) async fn portal(
    Shared(state): Shared<State>,
    caller: Caller,
    Attempt(attempt): Attempt,
    OptionalJson(request): OptionalJson<PortalRequest>,
) -> Result<Answer<PortalAnswer>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let return_url = state.pages.back("/return_url", request.return_url.as_deref(), "/billing")?;
    let session = state.commerce.portal(scope, &return_url, &attempt).await;
    let session = session.map_err(|error| refused(error, "/return_url"))?;
    Ok(Answer(PortalAnswer { portal_url: session.url }))
}

/// Stripe's customer that the organization is, with the caller's address and the organization's name on its invoices.
pub(crate) async fn customer(state: &State, caller: &Caller, scope: &TenantScope) -> Result<String, ApiError> {
    let (user, _) = caller.user()?;
    let store = state.store();
    let (user, organization) = tokio::try_join!(store.user(user), store.organization(scope))?;
    let (user, organization) = user.zip(organization).ok_or_else(ApiError::not_found)?;
    let customer = state.commerce.customer(scope, user.email.as_str(), &organization.name).await;
    customer.map_err(|error| refused(error, "/price_id"))
}
