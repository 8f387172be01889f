//! What was used of budgets: one item per budget and month, so no month ever has to be rolled over. The limits are those
//! that stand with their owners (`budgets.rs`), and are compared with by whoever authenticated the caller; the item
//! repeats the ones that it was last held against, for those who warn.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use futures_util::future::try_join_all;
use tenantry_domain::{
    Amounts, Millis, Period, Resource,
    budget::{Budget, BudgetId, Ceiling, Spent},
    metering::{Demand, Hold, Refusal},
};

use crate::{
    Store, TenantScope,
    budgets::map_of,
    db::build,
    error::Result,
    item::{Item, Reader, n, s},
    keys,
    table::TTL,
};

/// How long the item of a month is kept after the month's end, in seconds.
const KEPT_FOR: i64 = 90 * 24 * 3600;

/// What the item was last held against.
pub(crate) const MOST: &str = "most";

/// A budget that a call falls under, and what was used of it.
#[derive(Debug, Clone)]
pub struct WithinBudget {
    /// The limits.
    pub budget: Budget,
    /// What was used of them, this request included if it was admitted.
    pub spent: Spent,
}

/// What a reservation is tried with.
pub(super) struct Within<'a> {
    ceiling: &'a Ceiling,
    spent: Spent,
}

impl Within<'_> {
    pub(super) fn after(&self, demand: &Demand, now: Millis) -> WithinBudget {
        let Spent { amounts, credits, ready_at } = self.spent;
        let budget = self.ceiling.budget.clone();
        let spent = Spent {
            amounts: amounts.plus(&demand.amounts),
            credits: credits.saturating_add(demand.credits),
            ready_at: budget.rate().advance(ready_at, now),
        };
        WithinBudget { budget, spent }
    }

    pub(super) fn before(&self) -> WithinBudget {
        WithinBudget { budget: self.ceiling.budget.clone(), spent: self.spent }
    }
}

/// What stands between `demand` and admission: of several budgets the one that waiting helps least, or that has least
/// left.
pub(super) fn refusal(within: &[Within<'_>], demand: &Demand, period: Period, now: Millis) -> Option<Refusal> {
    let refusals = within.iter().filter_map(|w| w.ceiling.refusal(&w.spent, demand, period, now));
    refusals.min_by_key(|refusal| match refusal {
        Refusal::BudgetExceeded { left, .. } => (0, *left),
        Refusal::BudgetRateLimited { retry_after, .. } => (1, u64::MAX - retry_after.unsigned_abs()),
        _ => (2, 0),
    })
}

impl Store {
    /// What was used of a budget in `period`.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn spent(&self, scope: &TenantScope, id: &BudgetId, period: Period) -> Result<Spent> {
        let stored = self.get(&keys::budget(scope, id, period), true).await?;
        stored.map_or_else(|| Ok(Spent::default()), |stored| read_spent(&stored))
    }

    /// The ceilings with what was used of each.
    pub(super) async fn within<'a>(
        &self,
        scope: &TenantScope,
        ceilings: &'a [Ceiling],
        period: Period,
    ) -> Result<Vec<Within<'a>>> {
        let each = ceilings
            .iter()
            .map(async |ceiling| Ok(Within { ceiling, spent: self.spent(scope, &ceiling.id, period).await? }));
        try_join_all(each).await
    }

    /// The part of a reservation that takes what is held out of the budgets. A condition fails when that, or a rate, is
    /// more than is left. Everything is counted, limited or not: a limit may come later.
    pub(super) fn take_from_budgets(
        &self,
        scope: &TenantScope,
        within: &[Within<'_>],
        hold: &Hold,
        now: Millis,
    ) -> Result<Vec<TransactWriteItem>> {
        within.iter().map(|within| self.take_from_budget(scope, within, hold, now)).collect()
    }

    fn take_from_budget(
        &self,
        scope: &TenantScope,
        within: &Within<'_>,
        hold: &Hold,
        now: Millis,
    ) -> Result<TransactWriteItem> {
        let Within { ceiling: Ceiling { id, budget }, spent } = within;
        let period = hold.period;
        let mut set = vec!["org = :org".to_owned(), "#ttl = :ttl".to_owned(), format!("{MOST} = :most")];
        let mut condition = vec![];
        let mut values = HashMap::from([
            (":org".to_owned(), s(scope.org().as_str())),
            (":ttl".to_owned(), n(period.end().div_euclid(1000) + KEPT_FOR)),
            (":most".to_owned(), AttributeValue::M(map_of(budget))),
        ]);
        let credits = ("credits", hold.credits, budget.credits);
        let resources = hold.amounts.iter().map(|(r, amount)| (r.name(), amount, budget.limits.get(&r).copied()));
        for (name, amount, limit) in resources.chain([credits]).filter(|(_, amount, _)| *amount > 0) {
            set.push(format!("{name} = if_not_exists({name}, :zero) + :{name}"));
            values.insert(format!(":{name}"), n(amount));
            values.insert(":zero".into(), n(0));
            if let Some(limit) = limit {
                // The caller has compared the amount alone with the limit; a wrong zero here would admit nothing more.
                condition.push(format!("(attribute_not_exists({name}) OR {name} <= :most_{name})"));
                values.insert(format!(":most_{name}"), n(limit.saturating_sub(amount)));
            }
        }
        let rate = budget.rate();
        if rate.interval > 0 {
            let floor = rate.floor(now);
            values.insert(":floor".into(), n(floor));
            values.insert(":interval".into(), n(rate.interval));
            if spent.ready_at < floor {
                condition.push("(attribute_not_exists(ready_at) OR ready_at < :floor)".into());
                set.push("ready_at = :floor + :interval".into());
            } else {
                condition.push("ready_at BETWEEN :floor AND :now".into());
                set.push("ready_at = ready_at + :interval".into());
                values.insert(":now".into(), n(now));
            }
        }
        let update = self
            .update(&keys::budget(scope, id, period))
            .update_expression(format!("SET {}", set.join(", ")))
            .set_condition_expression((!condition.is_empty()).then(|| condition.join(" AND ")))
            .expression_attribute_names("#ttl", TTL)
            .set_expression_attribute_values(Some(values));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    /// The part of a settlement that gives back to the budgets of a hold; empty when there is nothing to give back.
    pub(super) fn give_back_to_budgets(
        &self,
        scope: &TenantScope,
        hold: &Hold,
        amounts: &Amounts,
        credits: u64,
    ) -> Result<Vec<TransactWriteItem>> {
        let (mut set, mut values) = (vec![], HashMap::<String, AttributeValue>::new());
        let resources = amounts.iter().map(|(resource, amount)| (resource.name(), amount));
        for (name, amount) in resources.chain([("credits", credits)]).filter(|(_, amount)| *amount > 0) {
            set.push(format!("{name} = {name} - :{name}"));
            values.insert(format!(":{name}"), n(amount));
        }
        if set.is_empty() {
            return Ok(vec![]);
        }
        let write = |id| {
            let update = self
                .update(&keys::budget(scope, id, hold.period))
                .update_expression(format!("SET {}", set.join(", ")))
                .condition_expression("attribute_exists(pk)")
                .set_expression_attribute_values(Some(values.clone()));
            Ok(TransactWriteItem::builder().update(build(update.build())?).build())
        };
        hold.budgets.iter().map(write).collect()
    }
}

pub(crate) fn read_spent(item: &Item) -> Result<Spent> {
    let reader = Reader(item);
    let mut spent = Spent {
        credits: reader.optional_number("credits")?.unwrap_or(0),
        ready_at: reader.optional_number("ready_at")?.unwrap_or(0),
        ..Spent::default()
    };
    for resource in Resource::ALL {
        let used = reader.optional_number(resource.name())?.unwrap_or(0);
        spent.amounts = spent.amounts.with(resource, used);
    }
    Ok(spent)
}
