//! Budgets: limits of their own that an API key, a member and a model have within their tenant's. The tenant's meter and
//! every budget that a call falls under are asked in one transaction, all or nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    ids::{KeyId, UserId},
    metering::{Amounts, Demand, Hold, Rate, Refusal, Resource},
    time::{Millis, Period},
};

/// What may be used in a month, and how fast. What is not limited here is limited by the plan alone.
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

/// All budgets of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Budgets {
    /// For everything together.
    #[serde(flatten)]
    pub whole: Budget,
    /// For single models, by their ids, beside that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Budget>,
}

/// Whose a budget is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The organization, which has budgets of models alone: the plan limits the whole.
    Organization,
    /// A member, in a session and with every API key that they made.
    Member(UserId),
    /// An API key.
    ApiKey(KeyId),
}

impl Owner {
    /// The kind of owner in answers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Member(_) => "member",
            Self::ApiKey(_) => "api_key",
        }
    }
}

/// Which budget it is: each is counted in an item of its own per month.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetId {
    /// Whose.
    pub owner: Owner,
    /// Of which model; of all together when none.
    pub model: Option<String>,
}

/// A budget that a call falls under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// Which.
    pub id: BudgetId,
    /// Its limits.
    pub budget: Budget,
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

impl Spent {
    /// Without what `holds` have taken out of the budget `id` in `period`, and may yet give back.
    #[must_use]
    pub fn settled<'a>(mut self, holds: impl Iterator<Item = &'a Hold>, id: &BudgetId, period: Period) -> Self {
        for hold in holds.filter(|hold| hold.period == period && hold.budgets.contains(id)) {
            self.amounts = self.amounts.minus(&hold.amounts);
            self.credits = self.credits.saturating_sub(hold.credits);
        }
        self
    }
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The request rate. A quiet caller saves up the requests of a minute.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.requests_per_minute.map_or(Rate { interval: 0, burst: 0 }, |n| Rate::per_minute(n, n))
    }

    /// Everything that is limited by the month, with its limit and what of it was used.
    pub fn limited(&self, spent: &Spent) -> impl Iterator<Item = (Budgeted, u64, u64)> {
        let spent = *spent;
        let resources = self.limits.iter();
        let resources = resources.map(move |(r, limit)| (Budgeted::Resource(*r), *limit, spent.amounts.get(*r)));
        resources.chain(self.credits.map(|limit| (Budgeted::Credits, limit, spent.credits)))
    }
}

impl Budgets {
    /// Whether they limit nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.models.values().all(Budget::is_empty)
    }

    /// Those that a call of `model` by `owner` falls under.
    pub fn ceilings(&self, owner: &Owner, model: &str) -> impl Iterator<Item = Ceiling> {
        let of_model = self.models.get(model).map(|budget| (Some(model.to_owned()), budget));
        let all = [(None, &self.whole)].into_iter().chain(of_model).filter(|(_, budget)| !budget.is_empty());
        all.map(|(model, budget)| Ceiling { id: BudgetId { owner: owner.clone(), model }, budget: budget.clone() })
    }
}

impl Ceiling {
    /// What stands between `demand` and admission, the reason that waiting helps least first.
    #[must_use]
    pub fn refusal(&self, spent: &Spent, demand: &Demand, period: Period, now: Millis) -> Option<Refusal> {
        let of = || Box::new(self.id.clone());
        for (what, limit, used) in self.budget.limited(spent) {
            let wanted = match what {
                Budgeted::Resource(resource) => demand.amounts.get(resource),
                Budgeted::Credits => demand.credits,
            };
            let left = limit.saturating_sub(used);
            if wanted > left {
                return Some(Refusal::BudgetExceeded { of: of(), what, limit, left, resets_at: period.end() });
            }
        }
        let rate = self.budget.rate();
        (spent.ready_at > now && rate.interval > 0).then(|| Refusal::BudgetRateLimited {
            of: of(),
            limit: rate.limit(),
            retry_after: spent.ready_at - now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    fn ceiling(budget: Budget) -> Ceiling {
        Ceiling { id: BudgetId { owner: Owner::Organization, model: None }, budget }
    }

    #[test]
    fn a_call_falls_under_the_budget_of_its_model_and_under_that_of_all() {
        let one = |n| Budget { credits: Some(n), ..Budget::default() };
        let models = [("a".to_owned(), one(2)), ("b".to_owned(), one(3)), ("c".to_owned(), Budget::default())];
        let budgets = Budgets { whole: one(1), models: models.into() };
        let of =
            |model| -> Vec<_> { budgets.ceilings(&Owner::Organization, model).map(|c| c.budget.credits).collect() };
        assert_eq!((of("a"), of("c"), of("d")), (vec![Some(1), Some(2)], vec![Some(1)], vec![Some(1)]));
        assert!(Budgets { whole: Budget::default(), ..budgets }.ceilings(&Owner::Organization, "d").next().is_none());
    }

    #[test]
    fn what_is_used_up_is_refused_before_what_is_too_fast() {
        let budget = ceiling(Budget {
            limits: BTreeMap::from([(Resource::LlmTokens, 100)]),
            credits: Some(10),
            requests_per_minute: Some(1),
        });
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
        assert!(matches!(ask(10, 0), Some(Refusal::BudgetRateLimited { retry_after: 1, limit: 1, .. })));
    }

    #[test]
    fn a_budget_that_was_lowered_below_what_was_used_has_nothing_left() {
        let budget = ceiling(Budget { credits: Some(1), ..Budget::default() });
        let spent = Spent { credits: 5, ..Spent::default() };
        let nothing = Demand { amounts: Amounts::NONE, credits: 0 };
        assert_eq!(budget.refusal(&spent, &nothing, Period::of(NOW), NOW), None);
        let refusal = budget.refusal(&spent, &Demand { credits: 1, ..nothing }, Period::of(NOW), NOW);
        assert!(matches!(refusal, Some(Refusal::BudgetExceeded { left: 0, limit: 1, .. })));
    }
}
