//! Changes of a subscription: another plan, its end, and no end after all.

use axum::{Json as Answer, extract::State as Shared};
use serde::{Deserialize, Serialize};
use tenantry_commerce::{Change, CommerceError, Previewed, Upgraded};
use tenantry_domain::{
    Millis,
    roles::Permission,
    time::{parse_moment, rfc3339},
};
use tenantry_payments::stripe::Subscription;
use tenantry_store::{NewAudit, Origin, TenantScope};
use tenantry_web::{
    ApiError, Caller, Json, Query,
    extract::{OptionalJson, optional_line},
    origin::RequestOrigin,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    State,
    money::Money,
    refusals::{Attempt, BuyRefusals, refused},
};

/// Longest reason, in characters: what fits on Stripe's record of a cancellation.
const REASON_CHARS: usize = 500;

/// How old a preview may be that is agreed to.
const PREVIEW_HOLDS: Millis = 30 * 60_000;

/// The price to change to.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PreviewQuery {
    /// `price_id` of a plan's price.
    #[param(min_length = 1, max_length = 255, example = "price_1QK4vK2eZvKYlo2C")]
    price_id: String,
}

/// Another price.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpgradeRequest {
    /// `price_id` of a plan's price.
    #[schema(max_length = 255, example = "price_1QK4vK2eZvKYlo2C")]
    price_id: String,
    /// `as_of` of the preview that was agreed to, half an hour old at most: the same amount is charged then.
    #[schema(format = DateTime)]
    as_of: Option<String>,
}

/// What a change costs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProrationPreview {
    /// The moment from which the rest of the period is reckoned.
    #[schema(format = DateTime)]
    as_of: String,
    /// The plan that it is about.
    #[schema(example = "team")]
    plan: String,
    /// From when that plan counts: `as_of`, or for a smaller plan the end of the period that is paid for.
    #[schema(format = DateTime)]
    starts_at: String,
    /// The difference for the rest of the current period, zero where nothing is charged for it; `null` when that cannot be told
    /// apart.
    #[schema(required)]
    proration: Option<Money>,
    /// What is charged now, taxes and discounts included.
    amount_due: Money,
    /// What it is made of.
    lines: Vec<PreviewLine>,
}

/// A line of an invoice to be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewLine {
    /// For people.
    #[schema(required)]
    description: Option<String>,
    /// Negative when it gives back.
    amount: Money,
}

/// What came of a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpgradeAnswer {
    /// Whether the change is made, be it that a smaller plan comes later. If not, its payment has to be confirmed or made up
    /// for at `payment_url` within 23 hours, and the plan stays as it is until then.
    success: bool,
    /// What it cost, as reckoned just before.
    proration_preview: ProrationPreview,
    /// Stripe's page of the invoice; `null` when nothing is left to pay.
    #[schema(required)]
    payment_url: Option<String>,
}

/// How to end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRequest {
    /// Whether the plan stays until the end of the period that is paid for. If not, it ends now, and nothing is refunded.
    #[serde(default = "yes")]
    at_period_end: bool,
    /// Why, in the customer's words; kept at Stripe.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    reason: Option<String>,
}

const fn yes() -> bool {
    true
}

impl Default for CancelRequest {
    fn default() -> Self {
        Self { at_period_end: true, reason: None }
    }
}

/// How a subscription stands after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangedSubscription {
    /// In Stripe's words.
    #[schema(example = "active")]
    status: String,
    /// Whether it ends with its period.
    cancel_at_period_end: bool,
    /// When it ends, if it does.
    #[schema(required, format = DateTime)]
    ends_at: Option<String>,
}

impl From<Subscription> for ChangedSubscription {
    fn from(subscription: Subscription) -> Self {
        let period_end = subscription.items.first().map(|item| item.period_end);
        let at_period_end = period_end.filter(|_| subscription.cancel_at_period_end);
        let ends_at = subscription.ended_at.or(subscription.cancel_at).or(at_period_end);
        Self {
            status: subscription.status.to_string(),
            cancel_at_period_end: subscription.cancel_at_period_end,
            ends_at: ends_at.map(rfc3339),
        }
    }
}

fn by_price(error: CommerceError) -> ApiError {
    refused(error, "/price_id")
}

/// Preview a change of plan
///
/// What a change to this price would cost now, and from when its plan would count. Refused like the change. Changes nothing.
#[utoipa::path(
    get,
    path = "/api/v1/subscriptions/upgrade/preview",
    tag = "billing",
    operation_id = "preview_upgrade",
    params(PreviewQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "What it would cost.", body = ProrationPreview), BuyRefusals),
)]
pub(crate) async fn preview(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<PreviewQuery>,
) -> Result<Answer<ProrationPreview>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let offer = state.commerce.offer(&query.price_id).await.map_err(by_price)?;
    let as_of = whole_second(state.store().now());
    let change = Change { offer: &offer, as_of: Some(as_of) };
    let preview = state.commerce.preview(scope, &change).await.map_err(by_price)?;
    Ok(Answer(shown(preview, &offer.plan.id, as_of)))
}

/// Change the plan
///
/// To a larger plan, or from the month to the year: now, and the difference for the rest of the period is charged at once. A
/// change that is not paid is not made: see `success`. To a smaller plan: with the next invoice; until then the larger one, which
/// is paid for, stays, and can be changed back to for nothing. Nothing is paid back, so from the year to the month there is no
/// change: cancel, and subscribe anew then. A change in a trial ends it, and the whole price is charged.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions/upgrade",
    tag = "billing",
    operation_id = "upgrade_subscription",
    request_body = UpgradeRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "What came of it.", body = UpgradeAnswer), BuyRefusals),
)]
pub(crate) async fn upgrade(
    Shared(state): Shared<State>,
    caller: Caller,
    Attempt(attempt): Attempt,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<UpgradeRequest>,
) -> Result<Answer<UpgradeAnswer>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let now = state.store().now();
    // Without one it is the moment of the change, which is Stripe's to say: a request that is repeated because its answer
    // was lost has to be the same one.
    let as_of = match &request.as_of {
        None => None,
        Some(text) => parse_moment(text)
            .ok()
            .filter(|moment| (now - PREVIEW_HOLDS..=now).contains(moment))
            .ok_or_else(|| ApiError::invalid("/as_of", "must be the `as_of` of a preview of the last half hour"))
            .map(Some)?,
    };
    let commerce = &state.commerce;
    let offer = commerce.offer(&request.price_id).await.map_err(by_price)?;
    let change = Change { offer: &offer, as_of };
    let preview = commerce.preview(scope, &change).await.map_err(by_price)?;
    let upgraded = commerce.upgrade(scope, &change, &attempt).await.map_err(by_price)?;
    let Upgraded { subscription: changed, is_news } = upgraded;
    let success = changed.pending_update.is_none();
    if is_news {
        record(&state, scope, &caller, &origin, "subscription.plan_changed", Some(&offer.plan.id)).await?;
    }
    let payment_url = match (success, &changed.latest_invoice) {
        (false, Some(invoice)) => {
            let invoice = commerce.stripe().map_err(by_price)?.invoice(invoice).await;
            invoice.map_err(|error| by_price(error.into()))?.hosted_invoice_url
        }
        _ => None,
    };
    let proration_preview = shown(preview, &offer.plan.id, as_of.unwrap_or(whole_second(now)));
    Ok(Answer(UpgradeAnswer { success, proration_preview, payment_url }))
}

/// Cancel the subscription
///
/// With its period, unless `at_period_end` is false. Data is kept in any case; the organization goes on with the first plan.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions/cancel",
    tag = "billing",
    operation_id = "cancel_subscription",
    request_body = Option<CancelRequest>,
    security(("bearer" = [])),
    responses((status = 200, description = "Canceled.", body = ChangedSubscription), BuyRefusals),
)]
pub(crate) async fn cancel(
    Shared(state): Shared<State>,
    caller: Caller,
    Attempt(attempt): Attempt,
    RequestOrigin(origin): RequestOrigin,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Result<Answer<ChangedSubscription>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let reason = optional_line("/reason", request.reason.as_deref(), REASON_CHARS)?;
    let changed = state.commerce.cancel(scope, !request.at_period_end, reason.as_deref(), &attempt).await;
    let changed = changed.map_err(by_price)?;
    let when = if request.at_period_end { "at_period_end" } else { "now" };
    record(&state, scope, &caller, &origin, "subscription.canceled", Some(when)).await?;
    Ok(Answer(changed.into()))
}

/// Resume the subscription
///
/// Lets a subscription go on that would have ended with its period.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions/resume",
    tag = "billing",
    operation_id = "resume_subscription",
    security(("bearer" = [])),
    responses((status = 200, description = "It goes on.", body = ChangedSubscription), BuyRefusals),
)]
pub(crate) async fn resume(
    Shared(state): Shared<State>,
    caller: Caller,
    Attempt(attempt): Attempt,
    RequestOrigin(origin): RequestOrigin,
) -> Result<Answer<ChangedSubscription>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let changed = state.commerce.resume(scope, &attempt).await.map_err(by_price)?;
    record(&state, scope, &caller, &origin, "subscription.resumed", None).await?;
    Ok(Answer(changed.into()))
}

/// Writes into the audit log what was changed at Stripe.
async fn record(
    state: &State,
    scope: &TenantScope,
    caller: &Caller,
    origin: &Origin,
    action: &'static str,
    new: Option<&str>,
) -> Result<(), ApiError> {
    let change = |new: &str| tenantry_store::Change { field: "subscription", old: None, new: Some(new.to_owned()) };
    let row = NewAudit {
        action,
        actor: caller.audit_actor(),
        target: Some(scope.org().as_str()),
        changes: new.map(change).into_iter().collect(),
        origin,
    };
    Ok(state.store().record_audit(scope, &row).await?)
}

fn shown(previewed: Previewed, plan: &str, as_of: Millis) -> ProrationPreview {
    let Previewed { cost: preview, starts_at } = previewed;
    let line = |line: tenantry_payments::stripe::InvoiceLine| PreviewLine {
        description: line.description,
        amount: Money::new(line.amount, &line.currency),
    };
    ProrationPreview {
        as_of: rfc3339(as_of),
        plan: plan.to_owned(),
        starts_at: rfc3339(starts_at.unwrap_or(as_of)),
        proration: preview.proration_total.map(|amount| Money::new(amount, &preview.currency)),
        amount_due: Money::new(preview.amount_due, &preview.currency),
        lines: preview.lines.into_iter().map(line).collect(),
    }
}

/// Stripe reckons in seconds.
const fn whole_second(at: Millis) -> Millis {
    at - at.rem_euclid(1000)
}
