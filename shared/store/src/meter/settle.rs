//! One conditional write to get out.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use tenantry_domain::{
    Amounts, RequestId, Resource,
    metering::{Hold, Meter},
    plans::Limit,
};

use super::{Reservation, SettleOutcome, TRIES, failed_condition, item, names};
use crate::{
    Store, TenantScope,
    db::{Transacted, back_off, build},
    error::{Result, StoreError},
    item::{n, s},
    keys,
};

impl Store {
    /// Ends a reservation: removes the hold and gives back what of it was not `charged`. Charging
    /// more than was held is not possible; the caller records an excess as overrun.
    ///
    /// # Errors
    /// [`StoreError`]; the hold stays then, and expires.
    pub async fn settle(&self, reservation: &Reservation, charged: &Amounts, credits: u64) -> Result<SettleOutcome> {
        self.settle_hold(&reservation.scope, &reservation.request, &reservation.hold, charged, credits).await
    }

    /// Gives everything back to a request that was not told whether it was admitted, and will not go on.
    ///
    /// # Errors
    /// [`StoreError`]; a hold that there is expires.
    pub async fn release(&self, scope: &TenantScope, request: &RequestId) -> Result<()> {
        for shard in self.meter_shards(scope, None).await? {
            if let Some(hold) = shard.holds.get(request) {
                self.settle_hold(scope, request, hold, &Amounts::NONE, 0).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn settle_hold(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        hold: &Hold,
        charged: &Amounts,
        credits: u64,
    ) -> Result<SettleOutcome> {
        let mut hold = hold.clone();
        let credits_back = hold.credits.saturating_sub(credits);
        let budgets = self.give_back_to_budgets(scope, &hold, &hold.amounts.minus(charged), credits_back)?;
        for attempt in 0..TRIES {
            let refund = hold.refund(charged);
            let mut change = Change::new(request, credits_back);
            change.condition.push("#period = :period".into());
            change.names.insert("#period".into(), "period".into());
            change.values.insert(":period".into(), s(hold.period.to_string()));
            change.give_back(&refund);
            let old = match self.try_settle(scope, hold.shard, change, budgets.clone()).await {
                Ok(Ok(())) => return Ok(SettleOutcome::Settled),
                Ok(Err(Some(old))) => old,
                Ok(Err(None)) => return Ok(SettleOutcome::AlreadySettled),
                Err(StoreError::Contention) => {
                    back_off(attempt).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !old.holds.contains_key(request) {
                return Ok(SettleOutcome::AlreadySettled);
            }
            if old.period != hold.period {
                return self.settle_closed(scope, request, &hold, &refund, credits_back, budgets).await;
            }
            // A change of plan made a resource unlimited meanwhile: there is nothing to give it back to.
            for resource in Resource::ALL {
                hold.counted[resource as usize] &= old.left.get(resource) != Limit::Unlimited;
            }
        }
        Err(StoreError::Contention)
    }

    /// One conditional write. `Ok(Err(…))` is a failed condition with the meter that failed it, if there is one.
    async fn try_settle(
        &self,
        scope: &TenantScope,
        shard: u8,
        change: Change,
        budgets: Vec<TransactWriteItem>,
    ) -> Result<std::result::Result<(), Option<Meter>>> {
        let key = keys::meter_shard(scope, shard);
        let (update, condition) = (change.update(), change.condition.join(" AND "));
        if !budgets.is_empty() {
            let meter = self
                .update(&key)
                .update_expression(update)
                .condition_expression(condition)
                .set_expression_attribute_names(Some(change.names))
                .set_expression_attribute_values(Some(change.values));
            let meter = TransactWriteItem::builder().update(build(meter.build())?).build();
            return match self.transact_apart([vec![meter], budgets].concat()).await? {
                Transacted::Done => Ok(Ok(())),
                Transacted::Refused(reasons) if reasons[0] => {
                    let stored = self.get(&key, true).await?;
                    Ok(Err(stored.map(|stored| item::meter(&stored)).transpose()?))
                }
                Transacted::Refused(_) => Err(StoreError::Corrupt {
                    key: format!("{key:?}"),
                    what: "a hold names a budget that has no item".into(),
                }),
            };
        }
        let answer = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values(Some(change.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(failed_condition(error)?.map(|old| item::meter(&old)).transpose()?)),
        }
    }

    /// Settles a hold whose period is over: the allowances go back to the closing row of that period,
    /// so that its books stay right, and to no later one. Credits have no period.
    async fn settle_closed(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        hold: &Hold,
        refund: &Amounts,
        credits_back: u64,
        budgets: Vec<TransactWriteItem>,
    ) -> Result<SettleOutcome> {
        let change = Change::new(request, credits_back);
        let meter = self
            .update(&keys::meter_shard(scope, hold.shard))
            .update_expression(change.update())
            .condition_expression(change.condition.join(" AND "))
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values((!change.values.is_empty()).then_some(change.values));
        let mut writes = vec![TransactWriteItem::builder().update(build(meter.build())?).build()];
        if *refund != Amounts::NONE {
            let mut change = Change::empty();
            change.give_back(refund);
            let closing = self
                .update(&keys::closing_shard(scope, hold.shard, hold.period))
                .update_expression(change.update())
                .condition_expression(change.condition.join(" AND "))
                .set_expression_attribute_names(Some(change.names))
                .set_expression_attribute_values(Some(change.values));
            writes.push(TransactWriteItem::builder().update(build(closing.build())?).build());
        }
        writes.extend(budgets.clone());
        match self.transact(writes).await? {
            Transacted::Done => return Ok(SettleOutcome::Settled),
            // The first write fails only when the hold is gone.
            Transacted::Refused(reasons) if reasons[0] => return Ok(SettleOutcome::AlreadySettled),
            Transacted::Refused(_) => {}
        }
        let key = keys::closing_shard(scope, hold.shard, hold.period);
        let closing = self.get(&key, true).await?.map(|closing| item::closing(&closing)).transpose()?;
        let takes = |r: &Resource| closing.as_ref().is_none_or(|closing| closing.left.get(*r) != Limit::Unlimited);
        let counted = refund.iter().filter(|(r, _)| takes(r)).fold(Amounts::NONE, |sum, (r, n)| sum.with(r, n));
        if counted != *refund {
            // A change of plan made a resource unlimited before the period ended.
            return Box::pin(self.settle_closed(scope, request, hold, &counted, credits_back, budgets)).await;
        }
        Err(StoreError::Corrupt {
            key: format!("{key:?}"),
            what: "a period was closed without its closing row, or a budget has no item".into(),
        })
    }
}

/// The pieces of an update that removes a hold or gives something back.
struct Change {
    set: Vec<String>,
    remove: &'static str,
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Change {
    fn empty() -> Self {
        Self { set: vec![], remove: "", condition: vec![], names: HashMap::new(), values: HashMap::new() }
    }

    fn new(request: &RequestId, credits_back: u64) -> Self {
        let mut change = Self { remove: "REMOVE #holds.#request", ..Self::empty() };
        change.condition.push("attribute_exists(#holds.#request)".into());
        change.names = names(&["#holds"]);
        change.names.insert("#request".into(), request.short().into());
        if credits_back > 0 {
            change.set.push("credits = credits + :credits".into());
            change.values.insert(":credits".into(), n(credits_back));
        }
        change
    }

    fn give_back(&mut self, refund: &Amounts) {
        for (resource, amount) in refund.iter().filter(|(_, amount)| *amount > 0) {
            let name = resource.name();
            self.set.push(format!("#left.{name} = #left.{name} + :{name}"));
            self.condition.push(format!("attribute_exists(#left.{name})"));
            self.values.insert(format!(":{name}"), n(amount));
            self.names.insert("#left".into(), item::LEFT.into());
        }
    }

    fn update(&self) -> String {
        let set = if self.set.is_empty() { String::new() } else { format!(" SET {}", self.set.join(", ")) };
        format!("{}{set}", self.remove).trim_start().to_owned()
    }
}
