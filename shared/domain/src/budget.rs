//! Budgets: limits of its own that an API key has within its tenant's. The tenant's meter and the budget are asked in one
//! transaction, all or nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    metering::{Amounts, Demand, Rate, Refusal, Resource},
    time::{Millis, Period},
};

/// What an API key may use in a month, and how fast. What is not limited here is limited by the plan alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// The most of each resource per UTC calendar month.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Resource, u64>,
    /// The most micro-credits per UTC calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credits: Option<u64>,
    /// The most requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
}

/// What was used of a budget in one month, requests in flight included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Of each resource.
    pub amounts: Amounts,
    /// Micro-credits.
    pub credits: u64,
    /// See [`Rate`].
    pub ready_at: Millis,
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budgeted {
    /// A resource.
    Resource(Resource),
    /// Micro-credits.
    Credits,
}

impl Budgeted {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resource(resource) => resource.name(),
            Self::Credits => "credits",
        }
    }
}

impl Budget {
    /// Whether it limits nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The request rate. A quiet key saves up the requests of a minute.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.requests_per_minute.map_or(Rate { interval: 0, burst: 0 }, |n| Rate::per_minute(n, n))
    }

    /// Everything that is limited, with what of it `spent` and `demand` say.
    fn limited(&self, spent: &Spent, demand: &Demand) -> impl Iterator<Item = (Budgeted, u64, u64, u64)> {
        let (spent, demand) = (*spent, *demand);
        let resources = self.limits.iter().map(move |(resource, limit)| {
            (Budgeted::Resource(*resource), *limit, spent.amounts.get(*resource), demand.amounts.get(*resource))
        });
        let credits = self.credits.map(|limit| (Budgeted::Credits, limit, spent.credits, demand.credits));
        resources.chain(credits)
    }

    /// What stands between `demand` and admission, the reason that waiting helps least first.
    #[must_use]
    pub fn refusal(&self, spent: &Spent, demand: &Demand, period: Period, now: Millis) -> Option<Refusal> {
        for (what, limit, used, wanted) in self.limited(spent, demand) {
            let left = limit.saturating_sub(used);
            if wanted > left {
                return Some(Refusal::BudgetExceeded { what, limit, left, resets_at: period.end() });
            }
        }
        (spent.ready_at > now && self.rate().interval > 0)
            .then(|| Refusal::KeyRateLimited { retry_after: spent.ready_at - now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    #[test]
    fn what_is_used_up_is_refused_before_what_is_too_fast() {
        let budget = Budget {
            limits: BTreeMap::from([(Resource::LlmTokens, 100)]),
            credits: Some(10),
            requests_per_minute: Some(1),
        };
        let spent = Spent { amounts: Amounts::NONE.with(Resource::LlmTokens, 90), credits: 10, ready_at: NOW + 1 };
        let ask = |tokens, credits| {
            let demand = Demand { amounts: Amounts::NONE.with(Resource::LlmTokens, tokens), credits };
            budget.refusal(&spent, &demand, Period::of(NOW), NOW)
        };
        assert!(matches!(
            ask(11, 1),
            Some(Refusal::BudgetExceeded { what: Budgeted::Resource(Resource::LlmTokens), left: 10, .. })
        ));
        assert!(matches!(ask(10, 1), Some(Refusal::BudgetExceeded { what: Budgeted::Credits, left: 0, .. })));
        assert_eq!(ask(10, 0), Some(Refusal::KeyRateLimited { retry_after: 1 }));
    }

    #[test]
    fn a_budget_that_was_lowered_below_what_was_used_has_nothing_left() {
        let budget = Budget { credits: Some(1), ..Budget::default() };
        let spent = Spent { credits: 5, ..Spent::default() };
        let nothing = Demand { amounts: Amounts::NONE, credits: 0 };
        assert_eq!(budget.refusal(&spent, &nothing, Period::of(NOW), NOW), None);
        let refusal = budget.refusal(&spent, &Demand { credits: 1, ..nothing }, Period::of(NOW), NOW);
        assert!(matches!(refusal, Some(Refusal::BudgetExceeded { left: 0, limit: 1, .. })));
    }
}
