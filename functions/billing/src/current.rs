//! `GET /subscriptions/current`: the plan, how it is paid for and what is left of it.

use axum::{Json as Answer, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::{
    Millis, Resource,
    account::{Account, Subscription},
    metering::Meter,
    plans::Plans,
    roles::Permission,
    time::rfc3339,
};
use tenantry_web::{ApiError, Caller};
use utoipa::ToSchema;

use crate::{State, refusals::ReadRefusals};

/// The plan that counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentPlan {
    /// Its id.
    #[schema(example = "pro")]
    id: String,
    /// For people.
    #[schema(example = "Pro")]
    name: String,
}

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentSubscription {
    /// Stripe's id of it.
    #[schema(example = "sub_1QK4vK2eZvKYlo2C")]
    id: String,
    /// In Stripe's words: `trialing`, `active`, `past_due`, `incomplete`, `incomplete_expired`, `unpaid`, `paused`, `canceled`.
    #[schema(example = "active")]
    status: String,
    /// The plan that is paid for.
    #[schema(example = "pro")]
    plan: String,
    /// A smaller plan that was changed to, and which comes with the next period; `null` when nothing changes then.
    #[schema(required)]
    next_plan: Option<NextPlan>,
    /// The price of its next period, as in `GET /subscriptions/plans`.
    price_id: String,
    /// Since when the current period runs.
    #[schema(format = DateTime)]
    period_start: String,
    /// When it ends, and is paid for again.
    #[schema(format = DateTime)]
    period_end: String,
    /// Whether it ends then for good.
    cancel_at_period_end: bool,
    /// When the trial ends or ended.
    #[schema(required, format = DateTime)]
    trial_end: Option<String>,
}

/// A plan to come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NextPlan {
    /// Its id.
    #[schema(example = "pro")]
    plan: String,
    /// From when it counts. Until then the plan that is paid for can be changed back to, for nothing.
    #[schema(format = DateTime)]
    starts_at: String,
}

/// Months paid for in advance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PrepaidMonths {
    /// Of which plan.
    #[schema(example = "pro")]
    plan: String,
    /// Until when.
    #[schema(format = DateTime)]
    until: String,
}

/// How an allowance stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quota {
    /// `messages`, `llm_tokens`, `images` or `api_calls`.
    #[schema(example = "messages")]
    resource: &'static str,
    /// The month's allowance; `null` when unlimited.
    #[schema(required)]
    limit: Option<u64>,
    /// What was used of it; `null` when unlimited (`GET /usage/stats` adds it up).
    #[schema(required)]
    used: Option<u64>,
    /// What is left for further requests; `null` when unlimited.
    #[schema(required)]
    left: Option<u64>,
    /// `used` in percent of `limit`, to one decimal; `null` when unlimited.
    #[schema(required, example = 12.5)]
    percent: Option<f64>,
}

/// How the organization stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Current {
    /// The plan that counts: the larger of what is subscribed to and what is paid for in advance.
    plan: CurrentPlan,
    /// When that has to be looked at again: a late payment's grace, a larger plan's period or prepaid months end then.
    #[schema(required, format = DateTime)]
    plan_until: Option<String>,
    /// The subscription, also one that has ended; `null` when there never was one.
    #[schema(required)]
    subscription: Option<CurrentSubscription>,
    /// Months paid for in advance; `null` when there are none left.
    #[schema(required)]
    prepaid: Option<PrepaidMonths>,
    /// The month's allowances.
    quotas: Vec<Quota>,
    /// When they start afresh.
    #[schema(format = DateTime)]
    quotas_reset_at: String,
    /// What the plan includes.
    features: Vec<String>,
    /// Micro-credits that are left.
    credits: u64,
}

/// Current subscription
///
/// The plan, how it is paid for, and what is left of its allowances. Exact at any moment.
#[utoipa::path(
    get,
    path = "/api/v1/subscriptions/current",
    tag = "billing",
    operation_id = "get_current_subscription",
    responses((status = 200, description = "How the organization stands.", body = Current), ReadRefusals),
)]
pub(crate) async fn get(Shared(state): Shared<State>, caller: Caller) -> Result<Answer<Current>, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?;
    let store = state.store();
    let (account, meter) = tokio::try_join!(store.account(scope), store.meter(scope))?;
    Ok(Answer(current(account, &meter, store.plans(), store.now())))
}

fn current(account: Account, meter: &Meter, plans: &Plans, now: Millis) -> Current {
    let plan = plans.get(&meter.plan);
    let prepaid = account.prepaid.filter(|prepaid| prepaid.until > now);
    Current {
        plan: CurrentPlan { id: plan.id.clone(), name: plan.name.clone() },
        plan_until: account.plan_until.map(rfc3339),
        subscription: account.subscription.map(|subscription| shown(subscription, plans, now)),
        prepaid: prepaid.map(|prepaid| PrepaidMonths { plan: prepaid.plan, until: rfc3339(prepaid.until) }),
        quotas: Resource::ALL.into_iter().map(|resource| quota(meter, resource)).collect(),
        quotas_reset_at: rfc3339(meter.period.end()),
        features: plan.features.iter().map(ToString::to_string).collect(),
        credits: meter.credits,
    }
}

fn shown(subscription: Subscription, plans: &Plans, now: Millis) -> CurrentSubscription {
    let (plan, until) = subscription.plan_at(plans, now);
    let plan = plan.to_owned();
    CurrentSubscription {
        id: subscription.id,
        status: subscription.standing.status.to_string(),
        next_plan: until.map(|at| NextPlan { plan: subscription.plan, starts_at: rfc3339(at) }),
        plan,
        price_id: subscription.price,
        period_start: rfc3339(subscription.period_start),
        period_end: rfc3339(subscription.period_end),
        cancel_at_period_end: subscription.cancel_at_period_end,
        trial_end: subscription.trial_end.map(rfc3339),
    }
}

fn quota(meter: &Meter, resource: Resource) -> Quota {
    let level = meter.level(resource);
    Quota {
        resource: resource.name(),
        limit: level.map(|level| level.limit),
        used: level.map(|level| level.used),
        left: level.map(|level| level.left),
        percent: level.map(|level| level.percent()),
    }
}
