//! What was used of a key's budget: one item per key and month, so no month ever has to be rolled over. The limits are
//! not in it: they stand in the key's own rows, and are compared with by whoever authenticated the key.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use tenantry_domain::{
    Amounts, KeyId, Millis, Period, Resource,
    budget::{Budget, Spent},
    metering::{Demand, Hold},
};

use crate::{
    Store, TenantScope,
    db::build,
    error::Result,
    item::{Reader, n, s},
    keys,
    table::TTL,
};

/// How long the item of a month is kept after the month's end, in seconds.
const KEPT_FOR: i64 = 90 * 24 * 3600;

/// The budget of a key, and what was used of it.
#[derive(Debug, Clone)]
pub struct WithinBudget {
    /// The limits.
    pub budget: Budget,
    /// What was used of them, this request included.
    pub spent: Spent,
}

/// What a reservation is tried with.
pub(super) struct Within<'a> {
    pub(super) key: &'a KeyId,
    pub(super) budget: &'a Budget,
    pub(super) spent: Spent,
}

impl Within<'_> {
    pub(super) fn after(&self, demand: &Demand, now: Millis) -> WithinBudget {
        let Spent { amounts, credits, ready_at } = self.spent;
        let spent = Spent {
            amounts: amounts.plus(&demand.amounts),
            credits: credits.saturating_add(demand.credits),
            ready_at: self.budget.rate().advance(ready_at, now),
        };
        WithinBudget { budget: self.budget.clone(), spent }
    }
}

impl Store {
    /// What was used of a key's budget in `period`.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn spent(&self, scope: &TenantScope, key: &KeyId, period: Period) -> Result<Spent> {
        let Some(stored) = self.get(&keys::budget(scope, key, period), true).await? else {
            return Ok(Spent::default());
        };
        let reader = Reader(&stored);
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

    /// The part of a reservation that takes what is held out of a budget. Its condition fails when that, or the rate, is
    /// more than is left. Everything is counted, limited or not: a limit may come later.
    pub(super) fn take_from_budget(
        &self,
        scope: &TenantScope,
        within: &Within<'_>,
        hold: &Hold,
        now: Millis,
    ) -> Result<TransactWriteItem> {
        let Within { key, budget, spent } = within;
        let period = hold.period;
        let mut set = vec!["org = :org".to_owned(), "#ttl = :ttl".to_owned()];
        let mut condition = vec![];
        let mut values = HashMap::from([
            (":org".to_owned(), s(scope.org().as_str())),
            (":ttl".to_owned(), n(period.end().div_euclid(1000) + KEPT_FOR)),
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
            .update(&keys::budget(scope, key, period))
            .update_expression(format!("SET {}", set.join(", ")))
            .set_condition_expression((!condition.is_empty()).then(|| condition.join(" AND ")))
            .expression_attribute_names("#ttl", TTL)
            .set_expression_attribute_values(Some(values));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    /// The part of a settlement that gives back to a budget; `None` when there is nothing to give back.
    pub(super) fn give_back_to_budget(
        &self,
        scope: &TenantScope,
        key: &KeyId,
        period: Period,
        amounts: &Amounts,
        credits: u64,
    ) -> Result<Option<TransactWriteItem>> {
        let (mut set, mut values) = (vec![], HashMap::<String, AttributeValue>::new());
        let resources = amounts.iter().map(|(resource, amount)| (resource.name(), amount));
        for (name, amount) in resources.chain([("credits", credits)]).filter(|(_, amount)| *amount > 0) {
            set.push(format!("{name} = {name} - :{name}"));
            values.insert(format!(":{name}"), n(amount));
        }
        if set.is_empty() {
            return Ok(None);
        }
        let update = self
            .update(&keys::budget(scope, key, period))
            .update_expression(format!("SET {}", set.join(", ")))
            .condition_expression("attribute_exists(pk)")
            .set_expression_attribute_values(Some(values));
        Ok(Some(TransactWriteItem::builder().update(build(update.build())?).build()))
    }
}
