//! `GET /credits/auto-top-up` and `PUT`: what happens when credits run out.

use axum::{Json as Answer, extract::State as Shared};
use serde::{Deserialize, Serialize};
use tenantry_commerce::{Buyer, CreditRules, TopUpRule};
use tenantry_domain::{Millis, Period, credit_watch::CreditWatch, roles::Permission, time::rfc3339};
use tenantry_web::{ApiError, Caller, Json, extract::Object, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{
    State,
    money::Money,
    refusals::{BuyRefusals, ReadRefusals, refused},
};

/// Largest number of micro-credits or cents, so that every client reads it back as it is.
const MOST: u64 = 9_007_199_254_740_991;

/// Buying by itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopUp {
    /// Whether it is on. A payment that fails switches it off.
    enabled: bool,
    /// Buy while there are fewer micro-credits than this.
    #[schema(example = 1_000_000, maximum = 9_007_199_254_740_991_u64)]
    below: u64,
    /// What to buy: a package of `GET /billing/packages` that is sold for US dollars.
    #[schema(example = "small", min_length = 1, max_length = 32)]
    package_id: String,
    /// The most that is spent in a UTC calendar month, in cents. An order counts before it is paid.
    #[schema(example = 5_000, maximum = 9_007_199_254_740_991_u64)]
    monthly_cap: u64,
}

/// What to do when credits run out. What is left out is switched off.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopUpRequest {
    /// Mail the owners when there are fewer micro-credits than this: once, until there are more again.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    notify_below: Option<u64>,
    /// Buy by itself, with the payment method that is saved at Stripe (`POST /subscriptions/portal`).
    #[schema(value_type = Option<TopUp>)]
    top_up: Option<Object<TopUp>>,
}

/// What happens when credits run out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopUpSettings {
    /// The owners get a mail when there are fewer micro-credits than this; `null` for none.
    #[schema(required)]
    notify_below: Option<u64>,
    /// Buying by itself; `null` when it was never set up.
    #[schema(required)]
    top_up: Option<TopUp>,
    /// What was spent by itself in this month.
    spent_this_month: Money,
    /// When a payment failed that switched it off.
    #[schema(required, format = DateTime)]
    failed_at: Option<String>,
}

impl TopUpSettings {
    fn of(watch: CreditWatch, now: Millis) -> Self {
        Self {
            notify_below: watch.notify_below,
            spent_this_month: Money::of(watch.spent_in(Period::of(now)), "usd"),
            failed_at: watch.failed_at.map(rfc3339),
            top_up: watch.top_up.map(|rule| TopUp {
                enabled: rule.enabled,
                below: rule.below,
                package_id: rule.package,
                monthly_cap: rule.monthly_cap,
            }),
        }
    }
}

/// Automatic top-up
///
/// What happens when credits run out: nothing, unless it was set up.
#[utoipa::path(
    get,
    path = "/api/v1/credits/auto-top-up",
    tag = "billing",
    operation_id = "get_auto_top_up",
    security(("bearer" = [])),
    responses((status = 200, description = "The settings.", body = TopUpSettings), ReadRefusals),
)]
pub(crate) async fn get(Shared(state): Shared<State>, caller: Caller) -> Result<Answer<TopUpSettings>, ApiError> {
    let scope = caller.scope(Permission::ManageBilling)?;
    let watch = state.commerce.auto_top_up(scope).await.map_err(|error| refused(error, ""))?;
    Ok(Answer(TopUpSettings::of(watch, state.store().now())))
}

/// Set up automatic top-up
///
/// Replaces the settings. They are looked at every five minutes.
#[utoipa::path(
    put,
    path = "/api/v1/credits/auto-top-up",
    tag = "billing",
    operation_id = "set_auto_top_up",
    request_body = TopUpRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "The settings.", body = TopUpSettings), BuyRefusals),
)]
pub(crate) async fn set(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<TopUpRequest>,
) -> Result<Answer<TopUpSettings>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let fits = |field: &str, number: Option<u64>| match number.filter(|number| *number > MOST) {
        Some(_) => Err(ApiError::invalid(field, format!("must be at most {MOST}"))),
        None => Ok(()),
    };
    let top_up = request.top_up.map(|Object(rule)| rule);
    fits("/notify_below", request.notify_below)?;
    fits("/top_up/below", top_up.as_ref().map(|rule| rule.below))?;
    fits("/top_up/monthly_cap", top_up.as_ref().map(|rule| rule.monthly_cap))?;
    let rules = CreditRules {
        notify_below: request.notify_below,
        top_up: top_up.as_ref().map(|rule| TopUpRule {
            enabled: rule.enabled,
            below: rule.below,
            package: &rule.package_id,
            monthly_cap: rule.monthly_cap,
        }),
    };
    let buyer = Buyer { user: caller.user()?.0, origin: &origin };
    let set = state.commerce.set_auto_top_up(scope, rules, &buyer).await;
    let watch = set.map_err(|error| refused(error, "/top_up/package_id"))?;
    Ok(Answer(TopUpSettings::of(watch, state.store().now())))
}
