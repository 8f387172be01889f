//! One conditional write to get in; a transaction where budgets are asked as well.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata as _, SdkError},
    operation::update_item::UpdateItemError,
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use tenantry_domain::{
    Amounts, Feature, Millis, Period, RequestId, Resource,
    budget::Ceiling,
    metering::{Allowances, Demand, Hold, Meter, Refusal},
    plans::Limit,
    sharding,
};

use super::{
    Admission, Reservation, TRIES, WithinBudget,
    budget::{self, Within},
    failed_condition, included, item, names, no_meter,
    shards::{self, Found},
};
use crate::{
    Store, TenantScope,
    db::{Transacted, back_off, build},
    error::{Result, StoreError},
    item::{Item, n, s},
    keys,
    warnings::BUDGETED_AT,
};

/// What a reservation has to keep to beside the meter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// The budgets that the request falls under.
    pub budgets: &'a [Ceiling],
    /// What the plan must include.
    pub feature: Option<&'a Feature>,
}

/// A demand that was not met: nothing was taken.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The meter as it stood, for rate-limit headers.
    pub meter: Meter,
    /// The budgets as they stood.
    pub within: Vec<WithinBudget>,
}

impl Store {
    /// Takes `demand` out of the tenant's meter, all or nothing, and holds it for `hold_for`
    /// milliseconds. Rolls the period over and settles expired holds on the way, when needed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was admitted then, though a hold may have been taken that will expire.
    pub async fn reserve(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        demand: &Demand,
        hold_for: Millis,
    ) -> Result<Admission> {
        self.reserve_within(scope, Terms::default(), request, demand, hold_for).await
    }

    /// [`Store::admit`], for whom it is enough to know why not.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Store::reserve`].
    pub async fn reserve_within(
        &self,
        scope: &TenantScope,
        terms: Terms<'_>,
        request: &RequestId,
        demand: &Demand,
        hold_for: Millis,
    ) -> Result<Admission> {
        Ok(match self.admit(scope, terms, request, demand, hold_for).await? {
            Ok(reservation) => Admission::Admitted(reservation),
            Err(refused) => Admission::Refused(refused.refusal),
        })
    }

    /// [`Store::reserve`] of the meter and of budgets, all or none, if the plan includes the feature at that moment.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Store::reserve`]. After [`StoreError::Unavailable`] whoever goes on does so with another
    /// request: a write whose answer did not come may still arrive, and if it did so when its hold had been settled by a
    /// repeated one, it would hold a second time what is then charged twice. For the same reason nothing is repeated in here that
    /// may have been done.
    pub async fn admit(
        &self,
        scope: &TenantScope,
        terms: Terms<'_>,
        request: &RequestId,
        demand: &Demand,
        hold_for: Millis,
    ) -> Result<std::result::Result<Box<Reservation>, Box<Refused>>> {
        // One shard after the other: from one to the next only when it is certain that this one does not hold the request.
        let mut shard = shards::first_of(request, self.guesses.active(scope.org()));
        let mut is_first_look = true;
        let mut attempts = 0..TRIES;
        while let Some(attempt) = attempts.next() {
            let now = self.now();
            let guess = self.guesses.get(scope.org(), shard);
            let guess = guess.unwrap_or_else(|| Meter::new(self.plans.first(), Period::of(now)));
            let hold = new_hold(&guess, shard, demand, terms.budgets, now, hold_for);
            let within = self.within(scope, terms.budgets, hold.period).await?;
            let whole =
                |meter: Meter| sharding::together(&self.guesses.with_others(scope.org(), &meter), now).unwrap_or(meter);
            let admitted = |meter: Meter, hold| {
                let (scope, request) = (scope.clone(), request.clone());
                let within = within.iter().map(|within| within.after(demand, now)).collect();
                Ok(Ok(Box::new(Reservation { scope, request, hold, meter: whole(meter), within })))
            };
            let refused = |refusal, meter| {
                let within = within.iter().map(Within::before).collect();
                Ok(Err(Box::new(Refused { refusal, meter, within })))
            };
            let refused_by_budget = budget::refusal(&within, demand, hold.period, now);
            let tried = match &refused_by_budget {
                None => {
                    let feature = terms.feature;
                    let attempt = Attempt { guess: &guess, hold: &hold, within: &within, feature, now };
                    self.try_reserve(scope, request, shard, attempt).await
                }
                Some(_) => self.stored_shard(scope, shard).await.map(Err),
            };
            let old = match tried {
                Ok(Ok(meter)) => {
                    self.guesses.learn(scope.org(), &meter);
                    self.settle_some_expired(scope, &meter, now).await;
                    return admitted(meter, hold);
                }
                Ok(Err(old)) => old,
                Err(StoreError::Contention) => {
                    back_off(attempt).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.guesses.learn(scope.org(), &old);
            if let Some(hold) = old.holds.get(request).cloned() {
                // Whoever asks twice under one id holds once.
                return admitted(old, hold);
            }
            if let Some(shortfall) = terms.feature.and_then(|feature| self.plans.without(&old.plan, feature)) {
                return refused(Refusal::NotIncluded(Box::new(shortfall)), whole(old));
            }
            if old.period < Period::of(now) {
                self.roll_over(scope, &old).await?;
                continue;
            }
            if std::mem::take(&mut is_first_look) && old.shards.number == 0 && old.shards.active > 1 {
                // A process that has just met the tenant asked the main shard, because it knew of no other.
                shard = shards::first_of(request, old.shards.active);
                if shard > 0 {
                    continue;
                }
            }
            // A budget of another month than the meter's by now says nothing.
            let by_budget = refused_by_budget.filter(|_| old.period == hold.period);
            let is_budgets = by_budget.is_some();
            let Some(refusal) = by_budget.or_else(|| old.refusal(demand, now)) else {
                continue; // Only the guess was wrong; the next try knows better.
            };
            // What has expired may be all that stands in the way.
            if self.settle_some_expired(scope, &old, now).await > 0 {
                continue;
            }
            if is_budgets || old.shards.made == 1 && old.shards.number == 0 {
                return refused(refusal, whole(old));
            }
            // Others borrow and take at the same time, so there is more to go wrong.
            attempts.end = TRIES * 3;
            match self.find_way(scope, request, shard, demand).await {
                Ok(Found::At(other)) => shard = other,
                Ok(Found::Held(meter, hold)) => return admitted(*meter, hold),
                Ok(Found::Refused(refusal)) => return refused(refusal, whole(old)),
                Err(StoreError::Contention) => back_off(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contention)
    }

    /// One conditional write. `Ok(Err(meter))` is a failed condition with the meter that failed it.
    async fn try_reserve(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        shard: u8,
        attempt: Attempt<'_>,
    ) -> Result<std::result::Result<Meter, Meter>> {
        let Attempt { guess, hold, within, feature, now } = attempt;
        let mut set = vec!["#holds.#request = :hold".to_owned()];
        let mut condition = vec![
            "#period = :period".to_owned(),
            "attribute_not_exists(#holds.#request)".to_owned(),
            "size(#holds) < max_holds".to_owned(),
        ];
        let mut names = names(&["#holds", "#period"]);
        names.insert("#request".into(), request.short().into());
        let mut values = HashMap::from([
            (":hold".to_owned(), item::hold_value(hold)),
            (":period".to_owned(), s(hold.period.to_string())),
        ]);

        if shard == 0 {
            // Who does not know of the other shards is told before it holds anything here.
            condition.push(format!("(attribute_not_exists({active}) OR {active} = :active)", active = item::ACTIVE));
            values.insert(":active".to_owned(), n(guess.shards.active));
        }
        names.insert("#interval".into(), "interval".into());
        if guess.rate.interval == 0 {
            condition.push("#interval = :zero".into());
            values.insert(":zero".into(), n(0));
        } else {
            // GCRA without max(): a quiet tenant starts again from the floor, a busy one goes on from
            // where it is. The condition on the burst keeps a stale guess from choosing wrongly.
            let floor = guess.rate.floor(now);
            condition.push("#burst = :burst AND #interval > :zero".into());
            if guess.ready_at < floor {
                condition.push("ready_at < :floor".into());
                set.push("ready_at = :floor + #interval".into());
            } else {
                condition.push("ready_at BETWEEN :floor AND :now".into());
                set.push("ready_at = ready_at + #interval".into());
                values.insert(":now".into(), n(now));
            }
            names.insert("#burst".into(), "burst".into());
            values.insert(":burst".into(), n(guess.rate.burst));
            values.insert(":floor".into(), n(floor));
            values.insert(":zero".into(), n(0));
        }

        names.insert("#left".into(), "left".into());
        for (resource, amount) in hold.amounts.iter().filter(|(_, amount)| *amount > 0) {
            let name = resource.name();
            if hold.counted[resource as usize] {
                set.push(format!("#left.{name} = #left.{name} - :{name}"));
                condition.push(format!("#left.{name} >= :{name}"));
                values.insert(format!(":{name}"), n(amount));
            } else {
                condition.push(format!("attribute_not_exists(#left.{name})"));
            }
        }
        if hold.amounts == Amounts::NONE {
            names.remove("#left");
        }
        if hold.credits > 0 {
            set.push("credits = credits - :credits".into());
            condition.push("credits >= :credits".into());
            values.insert(":credits".into(), n(hold.credits));
        }

        if let Some(feature) = feature {
            included::demand(&self.plans, feature, &mut condition, &mut names, &mut values);
        }

        let condition = condition.join(" AND ");
        if !within.is_empty() {
            // For the sweep, which looks at budgets while they are in use.
            set.push(format!("{BUDGETED_AT} = :budgeted_at"));
            values.insert(":budgeted_at".into(), n(now));
            let update = format!("SET {}", set.join(", "));
            let meter = self
                .update(&keys::meter_shard(scope, shard))
                .update_expression(update)
                .condition_expression(condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values));
            let mut writes = vec![TransactWriteItem::builder().update(build(meter.build())?).build()];
            writes.extend(self.take_from_budgets(scope, within, hold, now)?);
            return match self.transact_apart(writes).await? {
                Transacted::Done => Ok(Ok(match self.stored_shard(scope, shard).await {
                    Ok(meter) => meter,
                    // It is held, whether or not somebody can be told exactly what is left.
                    Err(error) => {
                        tracing::warn!(%request, %error, "what is left after a reservation is a guess");
                        after(guess, request, hold, now)
                    }
                })),
                Transacted::Refused(reasons) if reasons[0] => self.stored_shard(scope, shard).await.map(Err),
                // Another call was quicker to take from a budget.
                Transacted::Refused(_) => Err(StoreError::Contention),
            };
        }
        let answer = self
            .once
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::meter_shard(scope, shard).attributes()))
            .update_expression(format!("SET {}", set.join(", ")))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(output) => item::meter(output.attributes().unwrap_or(&Item::new())).map(Ok),
            Err(error) if is_throttled(&error) => Err(StoreError::Contention),
            Err(error) => match failed_condition(error)? {
                Some(old) => item::meter(&old).map(Err),
                None => Err(no_meter(scope)),
            },
        }
    }
}

/// Whether a write was refused for being too much: then it was not done.
fn is_throttled(error: &SdkError<UpdateItemError>) -> bool {
    matches!(
        error.code(),
        Some("ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded")
    )
}

/// What one write tries.
struct Attempt<'a> {
    guess: &'a Meter,
    hold: &'a Hold,
    within: &'a [Within<'a>],
    feature: Option<&'a Feature>,
    now: Millis,
}

/// The meter with the hold, as it must be at least if it was as `guess` has it.
fn after(guess: &Meter, request: &RequestId, hold: &Hold, now: Millis) -> Meter {
    let taken = hold.taken();
    let mut meter = guess.clone();
    meter.left = Allowances::from_fn(|resource| match guess.left.get(resource) {
        Limit::Of(left) => Limit::Of(left.saturating_sub(taken.get(resource))),
        Limit::Unlimited => Limit::Unlimited,
    });
    meter.credits = guess.credits.saturating_sub(hold.credits);
    meter.ready_at = guess.rate.advance(guess.ready_at, now);
    meter.holds.insert(request.clone(), hold.clone());
    meter
}

fn new_hold(guess: &Meter, shard: u8, demand: &Demand, ceilings: &[Ceiling], now: Millis, hold_for: Millis) -> Hold {
    let mut counted = [false; Resource::ALL.len()];
    for (resource, _) in guess.left.limited() {
        counted[resource as usize] = true;
    }
    Hold {
        amounts: demand.amounts,
        counted,
        credits: demand.credits,
        // A period that has begun is not left again: another instance's clock may run ahead.
        period: guess.period.max(Period::of(now)),
        expires_at: (now + hold_for).div_euclid(1000) + 1,
        budgets: ceilings.iter().map(|ceiling| ceiling.id.clone()).collect(),
        shard,
    }
}
