//! What an answer says of the caller's limits: `x-ratelimit-*` as OpenAI names them, and the IETF's `RateLimit` fields
//! (draft-ietf-httpapi-ratelimit-headers-10). Where a key has limits of its own, the one that is reached first.

use http::{HeaderMap, HeaderName, HeaderValue};
use tenantry_domain::{
    Millis, Resource,
    metering::{Meter, Rate},
    plans::Limit,
};
use tenantry_store::WithinBudget;

/// The headers of an answer to a request that `meter`, and the budget of a key, admitted.
pub(crate) fn headers(meter: &Meter, within: Option<&WithinBudget>, now: Millis) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let rates = [(meter.rate, meter.ready_at)].into_iter();
    let rates = rates.chain(within.map(|within| (within.budget.rate(), within.spent.ready_at)));
    let tightest = rates
        .filter(|(rate, _)| rate.interval > 0)
        .min_by_key(|(rate, ready_at)| (rate.remaining(*ready_at, now), -rate.interval));
    if let Some((rate, ready_at)) = tightest {
        let Rate { interval, .. } = rate;
        let (limit, remaining) = (60_000 / interval, rate.remaining(ready_at, now));
        let full_in = (ready_at - rate.floor(now)).max(0);
        put("x-ratelimit-limit-requests", limit.to_string());
        put("x-ratelimit-remaining-requests", remaining.to_string());
        put("x-ratelimit-reset-requests", format!("{full_in}ms"));
        put("ratelimit-policy", format!("\"requests\";q={limit};w=60"));
        put("ratelimit", format!("\"requests\";r={remaining};t={}", (full_in + 999) / 1000));
    }
    let tokens = match (meter.given.get(Resource::LlmTokens), meter.left.get(Resource::LlmTokens)) {
        (Limit::Of(limit), Limit::Of(left)) => Some((limit, left)),
        _ => None,
    };
    let budgeted = within.and_then(|within| {
        let limit = *within.budget.limits.get(&Resource::LlmTokens)?;
        Some((limit, limit.saturating_sub(within.spent.amounts.get(Resource::LlmTokens))))
    });
    if let Some((limit, left)) = tokens.into_iter().chain(budgeted).min_by_key(|(_, left)| *left) {
        put("x-ratelimit-limit-tokens", limit.to_string());
        put("x-ratelimit-remaining-tokens", left.to_string());
        put("x-ratelimit-reset-tokens", format!("{}s", ((meter.period.end() - now) / 1000).max(0)));
    }
    headers
}
