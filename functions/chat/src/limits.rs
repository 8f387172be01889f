//! What an answer says of the caller's limits: `x-ratelimit-*` as OpenAI names them, and the IETF's `RateLimit` fields
//! (draft-ietf-httpapi-ratelimit-headers-10). Of all limits that a call falls under (the plan's, and those of budgets; of
//! the minute and of the month) it is the one that is reached first, after this call: so many more would be admitted.

use http::{HeaderMap, HeaderName, HeaderValue};
use tenantry_domain::{
    Amounts, Millis, Resource,
    metering::{Meter, Rate},
    plans::Limit,
};
use tenantry_store::{Refused, Reservation, WithinBudget};

/// The limits that a call was held against, as they stand after it.
pub(crate) struct Standing<'a> {
    meter: &'a Meter,
    within: &'a [WithinBudget],
    /// What the call gives back of what it held.
    back: Amounts,
}

/// One limit of a number of requests.
struct Requests {
    limit: u64,
    remaining: u64,
    /// Milliseconds until all of it is there again.
    full_in: Millis,
    /// Seconds that the limit is for.
    window: i64,
}

impl<'a> Standing<'a> {
    /// Of a call that was admitted, and gives back what of its hold was not `charged`; nothing while that is not known.
    pub(crate) fn after(reservation: &'a Reservation, charged: Option<&Amounts>) -> Self {
        let back = charged.map_or(Amounts::NONE, |charged| reservation.hold().amounts.minus(charged));
        Self { meter: reservation.meter(), within: reservation.within(), back }
    }

    /// Of a call that was refused.
    pub(crate) fn refused(refused: &'a Refused) -> Self {
        Self { meter: &refused.meter, within: &refused.within, back: Amounts::NONE }
    }

    /// The headers for who makes more calls like this one, which takes `each` beside its tokens.
    pub(crate) fn headers(&self, each: &Amounts, now: Millis) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        let month_ends_in = (self.meter.period.end() - now).max(0);
        let counts = each.iter().filter(|(resource, amount)| *amount > 0 && *resource != Resource::LlmTokens);
        let monthly = counts.flat_map(|(resource, amount)| {
            let window = (self.meter.period.end() - self.meter.period.start()) / 1000;
            let of = move |(limit, left)| Requests { limit, remaining: left / amount, full_in: month_ends_in, window };
            self.left(resource).map(of)
        });
        // Of equals the one that takes longest to come back.
        let tightest = self.rates(now).chain(monthly).min_by_key(|all| (all.remaining, -all.full_in));
        if let Some(Requests { limit, remaining, full_in, window }) = tightest {
            put("x-ratelimit-limit-requests", limit.to_string());
            put("x-ratelimit-remaining-requests", remaining.to_string());
            put("x-ratelimit-reset-requests", format!("{full_in}ms"));
            put("ratelimit-policy", format!("\"requests\";q={limit};w={window}"));
            put("ratelimit", format!("\"requests\";r={remaining};t={}", (full_in + 999) / 1000));
        }
        if let Some((limit, left)) = self.left(Resource::LlmTokens).min_by_key(|(_, left)| *left) {
            put("x-ratelimit-limit-tokens", limit.to_string());
            put("x-ratelimit-remaining-tokens", left.to_string());
            put("x-ratelimit-reset-tokens", format!("{}s", (month_ends_in + 999) / 1000));
        }
        headers
    }

    /// The limits per minute.
    fn rates(&self, now: Millis) -> impl Iterator<Item = Requests> {
        let of = move |rate: Rate, limit: u64, ready_at: Millis| {
            let (remaining, full_in) = (rate.remaining(ready_at, now), (ready_at - rate.floor(now)).max(0));
            (rate.interval > 0).then_some(Requests { limit, remaining, full_in, window: 60 })
        };
        let plan = of(self.meter.rate, self.meter.rate.limit(), self.meter.ready_at);
        let budgets = self.within.iter();
        let budgets = budgets.filter_map(move |w| of(w.budget.rate(), w.budget.rate().limit(), w.spent.ready_at));
        plan.into_iter().chain(budgets)
    }

    /// The limits of the month, with what is left of each.
    fn left(&self, resource: Resource) -> impl Iterator<Item = (u64, u64)> {
        let back = self.back.get(resource);
        let plan = match (self.meter.given.get(resource), self.meter.left.get(resource)) {
            (Limit::Of(limit), Limit::Of(left)) => Some((limit, left.saturating_add(back))),
            _ => None,
        };
        let budgets = self.within.iter().filter_map(move |within| {
            let limit = *within.budget.limits.get(&resource)?;
            let used = within.spent.amounts.get(resource).saturating_sub(back);
            Some((limit, limit.saturating_sub(used)))
        });
        plan.into_iter().chain(budgets)
    }
}
