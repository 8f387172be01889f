//! `GET /subscriptions/plans`: what can be subscribed to. Open to everybody: it is what a page of prices shows.

use std::sync::Arc;

use axum::{Json as Answer, extract::State as Shared};
use serde::Serialize;
use tenantry_commerce::{Commerce, Offer};
use tenantry_domain::{
    Millis,
    plans::{Interval, Plan},
};
use tenantry_web::{ApiError, error::Problem};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::{State, money::Money};

/// How long what Stripe says of prices is believed. They change when somebody puts new ones up for sale.
const FRESH: Millis = 5 * 60_000;

/// How long Stripe is left alone that did not answer: the route is open, and a vendor that is down shall not get every
/// visitor's call, three times each.
const LEFT_ALONE: Millis = 10_000;

/// Stripe's prices of the plans, as this process last saw them. The lock is held for the call, so that one asks and the
/// others wait for what it hears.
#[derive(Clone, Default)]
pub(crate) struct Offers(Arc<Mutex<Option<Seen>>>);

struct Seen {
    at: Millis,
    /// How long it is not asked again.
    holds: Millis,
    offers: Arc<[Offer]>,
}

impl Offers {
    /// The prices; the last known ones while Stripe does not answer, none when there never were any.
    pub(crate) async fn get(&self, commerce: &Commerce) -> Arc<[Offer]> {
        let mut seen = self.0.lock().await;
        let now = commerce.store().now();
        if let Some(seen) = &*seen
            && (0..seen.holds).contains(&(now - seen.at))
        {
            return Arc::clone(&seen.offers);
        }
        let (holds, offers) = match commerce.offers().await {
            Ok(offers) => (FRESH, offers.into()),
            Err(error) => {
                tracing::warn!(%error, "prices are not known");
                (LEFT_ALONE, seen.take().map_or_else(|| [].into(), |seen| seen.offers))
            }
        };
        *seen = Some(Seen { at: now, holds, offers: Arc::clone(&offers) });
        offers
    }
}

/// What a plan allows. `null` is unlimited.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanLimits {
    /// Chat answers a month.
    #[schema(required)]
    messages: Option<u64>,
    /// Tokens of language models a month, prompt and completion together.
    #[schema(required)]
    llm_tokens: Option<u64>,
    /// Generated images a month.
    #[schema(required)]
    images: Option<u64>,
    /// Calls of any model endpoint a month.
    #[schema(required)]
    api_calls: Option<u64>,
    /// Requests a minute.
    #[schema(required)]
    requests_per_minute: Option<u64>,
    /// Requests at the same time.
    in_flight: u64,
    /// Bots.
    #[schema(required)]
    bots: Option<u64>,
    /// Members of the organization.
    #[schema(required)]
    members: Option<u64>,
    /// API keys.
    #[schema(required)]
    keys: Option<u64>,
}

impl From<&Plan> for PlanLimits {
    fn from(plan: &Plan) -> Self {
        let limits = &plan.limits;
        Self {
            messages: limits.messages.number(),
            llm_tokens: limits.llm_tokens.number(),
            images: limits.images.number(),
            api_calls: limits.api_calls.number(),
            requests_per_minute: limits.requests_per_minute.number(),
            in_flight: limits.in_flight,
            bots: limits.bots.number(),
            members: limits.members.number(),
            keys: limits.keys.number(),
        }
    }
}

/// What a plan costs by subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanPrice {
    /// `month` or `year`.
    #[schema(example = "month")]
    interval: &'static str,
    /// Each time, before taxes.
    price: Money,
    /// For `POST /subscriptions/checkout` and `/upgrade`; `null` while it cannot be subscribed to.
    #[schema(required, example = "price_1QK4vK2eZvKYlo2C")]
    price_id: Option<String>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanOffer {
    /// Its id.
    #[schema(example = "pro")]
    id: String,
    /// For people.
    #[schema(example = "Pro")]
    name: String,
    /// What it allows.
    limits: PlanLimits,
    /// What it includes.
    features: Vec<String>,
    /// Micro-credits that come with each month.
    credits_per_month: u64,
    /// Days of trial of a first subscription.
    trial_days: u32,
    /// By subscription; empty for a plan that costs nothing.
    prices: Vec<PlanPrice>,
    /// A month paid in advance, through WeChat Pay or Alipay.
    #[schema(required)]
    prepaid_month: Option<Money>,
}

/// What is sold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanOffers {
    /// From the smallest to the largest; everybody begins on the first.
    data: Vec<PlanOffer>,
    /// Which edition of the catalogue this is.
    catalogue_version: u32,
}

/// List plans
///
/// What can be subscribed to, what it costs and what it allows. Needs no credentials.
#[utoipa::path(
    get,
    path = "/api/v1/subscriptions/plans",
    tag = "billing",
    operation_id = "list_plans",
    security(()),
    responses(
        (status = 200, description = "The plans.", body = PlanOffers),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(Shared(state): Shared<State>) -> Result<Answer<PlanOffers>, ApiError> {
    let offers = state.offers.get(&state.commerce).await;
    let plans = state.store().plans();
    let data = plans.all().iter().map(|plan| offer(plan, &offers)).collect();
    Ok(Answer(PlanOffers { data, catalogue_version: plans.version() }))
}

fn offer(plan: &Plan, offers: &[Offer]) -> PlanOffer {
    let price = |interval: Interval| {
        let amount = plan.price.usd(interval)?;
        let sold = offers.iter().find(|offer| offer.plan.id == plan.id && offer.interval == interval);
        Some(PlanPrice {
            interval: interval.name(),
            price: Money::of(amount, "usd"),
            price_id: sold.map(|offer| offer.price.id.clone()),
        })
    };
    PlanOffer {
        id: plan.id.clone(),
        name: plan.name.clone(),
        limits: plan.into(),
        features: plan.features.iter().map(ToString::to_string).collect(),
        credits_per_month: plan.credits_month.unwrap_or(0),
        trial_days: plan.trial_days.unwrap_or(0),
        prices: Interval::ALL.into_iter().filter_map(price).collect(),
        prepaid_month: plan.price.cny_month.map(|amount| Money::of(amount, "cny")),
    }
}
