//! The meter's rules: what a tenant has left, what a request holds, and who gets in.
//!
//! The meter item stores what is *left*, because a DynamoDB condition can compare but not add. This
//! module holds the arithmetic; `store::meter` turns it into one conditional write.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    budget::{BudgetId, Budgeted},
    features::Shortfall,
    ids::RequestId,
    plans::{Limit, Plan},
    sharding::Shards,
    time::{Millis, Period},
};

/// Something a plan allows a number of per month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Chat answers.
    Messages,
    /// Tokens of language models, prompt and completion together.
    LlmTokens,
    /// Generated images.
    Images,
    /// Calls of any model endpoint.
    ApiCalls,
}

impl Resource {
    /// Every resource, in the order in which [`Amounts`] keeps them.
    pub const ALL: [Self; 4] = [Self::Messages, Self::LlmTokens, Self::Images, Self::ApiCalls];

    /// The name in plans, answers and stored items.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::LlmTokens => "llm_tokens",
            Self::Images => "images",
            Self::ApiCalls => "api_calls",
        }
    }
}

/// A number for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts([u64; Resource::ALL.len()]);

impl Amounts {
    /// Nothing of anything.
    pub const NONE: Self = Self([0; Resource::ALL.len()]);

    /// These amounts with `amount` of `resource`.
    #[must_use]
    pub const fn with(mut self, resource: Resource, amount: u64) -> Self {
        self.0[resource as usize] = amount;
        self
    }

    /// How much of `resource`.
    #[must_use]
    pub const fn get(&self, resource: Resource) -> u64 {
        self.0[resource as usize]
    }

    /// Every resource with its amount, zeros too.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, u64)> + '_ {
        Resource::ALL.into_iter().map(|resource| (resource, self.get(resource)))
    }

    /// The smaller of both, resource by resource: a charge is never more than what was held.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        self.zip(other, u64::min)
    }

    /// What is left of these amounts when `other` is taken away, never below zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Resource::ALL.into_iter().fold(Self::NONE, |sum, r| sum.with(r, f(self.get(r), other.get(r))))
    }
}

impl Serialize for Amounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r.name(), n)))
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<Resource, u64>::deserialize(deserializer)?;
        Ok(map.into_iter().fold(Self::NONE, |amounts, (r, n)| amounts.with(r, n)))
    }
}

/// A limit for each resource; an unlimited one is not counted down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowances([Limit; Resource::ALL.len()]);

impl Allowances {
    /// Made from what `of` says about each resource.
    #[must_use]
    pub fn from_fn(of: impl FnMut(Resource) -> Limit) -> Self {
        Self(Resource::ALL.map(of))
    }

    /// The limit of `resource`.
    #[must_use]
    pub const fn get(&self, resource: Resource) -> Limit {
        self.0[resource as usize]
    }

    /// The resources that are counted down.
    pub fn limited(&self) -> impl Iterator<Item = (Resource, u64)> + '_ {
        Resource::ALL.into_iter().filter_map(|r| match self.get(r) {
            Limit::Of(n) => Some((r, n)),
            Limit::Unlimited => None,
        })
    }
}

/// The generic cell rate algorithm (ITU-T I.371): one time stamp per tenant instead of a window of
/// counters. `ready_at` is the moment from which the next request conforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Milliseconds per request; 0 means no limit.
    pub interval: i64,
    /// How far `ready_at` may lie behind now, in milliseconds: the requests a quiet tenant saved up.
    pub burst: i64,
}

impl Rate {
    /// `per_minute` requests a minute, of which a quiet caller saves up `burst`.
    #[must_use]
    pub fn per_minute(per_minute: u64, burst: u64) -> Self {
        // Rounded up: a rate that does not divide a minute is never exceeded.
        let interval = i64::try_from(60_000_u64.div_ceil(per_minute.max(1))).unwrap_or(60_000);
        let burst = i64::try_from(burst.max(1)).unwrap_or(1);
        // A burst of n means: the first request and n − 1 saved ones.
        Self { interval, burst: interval * (burst - 1) }
    }

    /// `ready_at` of a tenant that was quiet for long: it never saves up more than the burst.
    #[must_use]
    pub const fn floor(&self, now: Millis) -> Millis {
        now - self.burst
    }

    /// `ready_at` after one more request.
    #[must_use]
    pub fn advance(&self, ready_at: Millis, now: Millis) -> Millis {
        ready_at.max(self.floor(now)) + self.interval
    }

    /// The requests per minute that it was made of: the interval is rounded up to milliseconds, so a number that such
    /// an interval cannot tell from the next smaller one is that one. 0 means no limit.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        if self.interval <= 0 { 0 } else { 60_000_u64.div_ceil(self.interval.unsigned_abs()) }
    }

    /// How many requests would conform right now.
    #[must_use]
    pub fn remaining(&self, ready_at: Millis, now: Millis) -> u64 {
        if self.interval == 0 {
            return u64::MAX;
        }
        let saved = now - ready_at.max(self.floor(now));
        if saved < 0 { 0 } else { (saved / self.interval).unsigned_abs() + 1 }
    }
}

/// What a request in flight has taken out of the meter, until it is settled or expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What was reserved of each resource.
    pub amounts: Amounts,
    /// Which of them were counted down; an unlimited resource is held for the record only.
    pub counted: [bool; Resource::ALL.len()],
    /// Micro-credits taken.
    pub credits: u64,
    /// The period whose allowances were taken.
    pub period: Period,
    /// When the hold may be settled by others, in whole seconds since the epoch.
    pub expires_at: i64,
    /// The budgets that it was taken from as well.
    pub budgets: Vec<BudgetId>,
    /// The shard of the meter that it was taken from.
    pub shard: u8,
}

impl Hold {
    /// Whether the request that took the hold is past its time.
    #[must_use]
    pub const fn is_expired(&self, now: Millis) -> bool {
        self.expires_at * 1000 <= now
    }

    /// What `left` was lowered by.
    #[must_use]
    pub fn taken(&self) -> Amounts {
        self.only_counted(self.amounts)
    }

    /// What goes back when `charged` of the hold was used.
    #[must_use]
    pub fn refund(&self, charged: &Amounts) -> Amounts {
        self.only_counted(self.amounts.minus(charged))
    }

    fn only_counted(&self, amounts: Amounts) -> Amounts {
        amounts.iter().filter(|(r, _)| self.counted[*r as usize]).fold(Amounts::NONE, |sum, (r, n)| sum.with(r, n))
    }
}

/// A tenant's meter as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Id of the plan whose limits were put in.
    pub plan: String,
    /// Which state of the tenant's entitlement that plan was put in for; a later one has a larger number.
    pub plan_version: u64,
    /// When the entitlement is to be looked at again.
    pub plan_until: Option<Millis>,
    /// The month the allowances are for.
    pub period: Period,
    /// The month's allowances: those that it began with, and what a change of plan added.
    pub given: Allowances,
    /// What was unlimited for a part of the month: of this the meter knows the rest of the month alone.
    pub partial: [bool; Resource::ALL.len()],
    /// What is left of them, holds taken off.
    pub left: Allowances,
    /// Micro-credits left, holds taken off.
    pub credits: u64,
    /// When the first of them that expire do.
    pub credits_expire_at: Option<Millis>,
    /// See [`Rate`].
    pub ready_at: Millis,
    /// The plan's rate.
    pub rate: Rate,
    /// How many requests may be in flight.
    pub max_holds: u64,
    /// The requests in flight.
    pub holds: BTreeMap<RequestId, Hold>,
    /// Whether this is all of it.
    pub shards: Shards,
}

/// What one request asks of the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Of each resource, the most that the request can use.
    pub amounts: Amounts,
    /// The most that it can cost, in micro-credits.
    pub credits: u64,
}

/// Why a request is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The plan does not include what the request needs, however much is left.
    NotIncluded(Box<Shortfall>),
    /// The month's allowance does not cover the request.
    QuotaExceeded {
        /// Which allowance.
        resource: Resource,
        /// The month's allowance.
        limit: u64,
        /// What is left of it.
        left: u64,
        /// When the next period begins.
        resets_at: Millis,
    },
    /// The credits do not cover the price.
    OutOfCredits {
        /// Micro-credits left.
        left: u64,
        /// Micro-credits the request may cost.
        needed: u64,
    },
    /// As many requests are in flight as the plan allows.
    TooManyInFlight {
        /// How many the plan allows.
        limit: u64,
    },
    /// Faster than the plan's rate.
    RateLimited {
        /// Requests per minute.
        limit: u64,
        /// Milliseconds until the request conforms.
        retry_after: Millis,
    },
    /// The month's budget of a key, a member or a model does not cover the request.
    BudgetExceeded {
        /// Which budget.
        of: Box<BudgetId>,
        /// Which part of it.
        what: Budgeted,
        /// The month's budget.
        limit: u64,
        /// What is left of it.
        left: u64,
        /// When the next period begins.
        resets_at: Millis,
    },
    /// Faster than the rate of a key, a member or a model.
    BudgetRateLimited {
        /// Which budget.
        of: Box<BudgetId>,
        /// Requests per minute.
        limit: u64,
        /// Milliseconds until the request conforms.
        retry_after: Millis,
    },
}

/// How a counted resource stands in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The period's allowance.
    pub limit: u64,
    /// What was charged.
    pub used: u64,
    /// What requests in flight hold.
    pub held: u64,
    /// What is left for further requests.
    pub left: u64,
}

impl Level {
    /// `used` in percent of `limit`, to one decimal; nothing of nothing is used up.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.limit == 0 { 100.0 } else { (self.used as f64 * 1000.0 / self.limit as f64).round() / 10.0 }
    }
}

impl Meter {
    /// A new tenant's meter: the plan's allowances, no credits, no history.
    #[must_use]
    pub fn new(plan: &Plan, period: Period) -> Self {
        Self {
            plan: plan.id.clone(),
            plan_version: 0,
            plan_until: None,
            period,
            given: plan.allowances(),
            partial: [false; Resource::ALL.len()],
            left: plan.allowances(),
            credits: 0,
            credits_expire_at: None,
            ready_at: 0,
            rate: plan.rate(),
            max_holds: plan.limits.in_flight,
            holds: BTreeMap::new(),
            shards: Shards::default(),
        }
    }

    /// What stands between `demand` and admission, the reason that waiting helps least first.
    #[must_use]
    pub fn refusal(&self, demand: &Demand, now: Millis) -> Option<Refusal> {
        for (resource, left) in self.left.limited() {
            if demand.amounts.get(resource) > left {
                let limit = self.given.get(resource).or(left);
                return Some(Refusal::QuotaExceeded { resource, limit, left, resets_at: self.period.end() });
            }
        }
        if demand.credits > self.credits {
            return Some(Refusal::OutOfCredits { left: self.credits, needed: demand.credits });
        }
        if self.holds.len() as u64 >= self.max_holds {
            return Some(Refusal::TooManyInFlight { limit: self.max_holds });
        }
        (self.ready_at > now && self.rate.interval > 0)
            .then(|| Refusal::RateLimited { limit: self.rate.limit(), retry_after: self.ready_at - now })
    }

    /// Everything that requests in flight hold of this period's allowances.
    #[must_use]
    pub fn held(&self) -> Amounts {
        self.holds
            .values()
            .filter(|hold| hold.period == self.period)
            .fold(Amounts::NONE, |sum, hold| sum.plus(&hold.taken()))
    }

    /// How a resource stands; `None` for one that is unlimited, which nothing counts down.
    #[must_use]
    pub fn level(&self, resource: Resource) -> Option<Level> {
        let (Limit::Of(limit), Limit::Of(left)) = (self.given.get(resource), self.left.get(resource)) else {
            return None;
        };
        let held = self.held().get(resource);
        Some(Level { limit, used: limit.saturating_sub(left).saturating_sub(held), held, left })
    }

    /// Micro-credits that requests in flight hold.
    #[must_use]
    pub fn credits_held(&self) -> u64 {
        self.holds.values().fold(0, |sum, hold| sum.saturating_add(hold.credits))
    }

    /// What was charged in this period: allowance − left − holds. `None` for a resource that is unlimited, or was for a
    /// part of the month.
    #[must_use]
    pub fn charged(&self, resource: Resource) -> Option<u64> {
        if self.partial[resource as usize] {
            return None;
        }
        match (self.given.get(resource), self.left.get(resource)) {
            (Limit::Of(given), Limit::Of(left)) => {
                Some(given.saturating_sub(left).saturating_sub(self.held().get(resource)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: 6_000, burst: 54_000 };

    #[test]
    fn percents_have_one_decimal_and_nothing_of_nothing_is_used_up() {
        let percent = |used, limit| Level { limit, used, held: 0, left: limit - used }.percent();
        assert_eq!((percent(0, 0), percent(1, 3), percent(2, 2)), (100.0, 33.3, 100.0));
    }

    #[test]
    fn a_quiet_tenant_may_send_its_burst_at_once_and_then_one_per_interval() {
        let now = 1_800_000_000_000;
        let mut ready_at = 0;
        let mut admitted = 0;
        while ready_at <= now {
            assert_eq!(RATE.remaining(ready_at, now), 10 - admitted);
            ready_at = RATE.advance(ready_at, now);
            admitted += 1;
        }
        assert_eq!(admitted, 10);
        assert_eq!(RATE.remaining(ready_at, now), 0);
        assert_eq!(ready_at - now, 6_000);
        assert_eq!(RATE.remaining(ready_at, now + 6_000), 1);
    }

    #[test]
    fn a_rate_is_told_as_it_was_set_and_never_higher() {
        for set in (1..=245).chain([300, 600, 6_000, 60_000]) {
            assert_eq!(Rate::per_minute(set, 1).limit(), set);
        }
        assert_eq!(Rate::per_minute(45_000, 1).limit(), 30_000, "every 2 ms is what is kept");
        assert_eq!(Rate { interval: 0, burst: 0 }.limit(), 0);
    }

    #[test]
    fn an_unlimited_resource_is_held_for_the_record_but_gives_nothing_back() {
        let hold = Hold {
            amounts: Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 100),
            counted: [false, true, true, true],
            credits: 0,
            period: Period::of(0),
            expires_at: 10,
            budgets: vec![],
            shard: 0,
        };
        assert_eq!(hold.taken(), Amounts::NONE.with(Resource::LlmTokens, 100));
        let charged = Amounts::NONE.with(Resource::LlmTokens, 30);
        assert_eq!(hold.refund(&charged), Amounts::NONE.with(Resource::LlmTokens, 70));
        assert!(!hold.is_expired(9_999));
        assert!(hold.is_expired(10_000));
    }
}
