//! The meter: one conditional write to get in, one to get out. The rules are in `domain::metering`.

mod guesses;
mod item;

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use tenantry_domain::{
    Amounts, Millis, Period, RequestId,
    metering::{Demand, Hold, Meter, Refusal},
    plans::Limit,
};

pub(crate) use guesses::Guesses;
pub(crate) use item::{closing as read_closing, meter as read_meter, new_meter};

use crate::{
    Store, TenantScope,
    db::{CONFLICT_TRIES, Transacted, back_off, build},
    error::{Result, StoreError},
    item::{Item, NewItem, n, s},
    keys,
};

/// How often a reserve or settlement starts over when each time somebody else changed the meter in
/// between. Two tries cover a wrong first guess; the rest is for many callers at the turn of a month.
const TRIES: u32 = CONFLICT_TRIES + 2;

/// An admitted request: what it holds until [`Store::settle`].
#[derive(Debug, Clone)]
pub struct Reservation {
    scope: TenantScope,
    request: RequestId,
    hold: Hold,
    meter: Meter,
}

impl Reservation {
    /// The tenant.
    #[must_use]
    pub const fn scope(&self) -> &TenantScope {
        &self.scope
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> &RequestId {
        &self.request
    }

    /// What is held.
    #[must_use]
    pub const fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The meter right after the reservation, for rate-limit headers.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// The meter's answer to a demand.
#[derive(Debug, Clone)]
pub enum Admission {
    /// The request may go on; it holds what it asked for.
    Admitted(Box<Reservation>),
    /// It may not, and nothing was taken.
    Refused(Refusal),
}

/// What a settlement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The hold is gone and the difference is back.
    Settled,
    /// The hold was settled before: by a retry of the same write, or because it had expired.
    AlreadySettled,
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
        for attempt in 0..TRIES {
            let now = self.now();
            let guess =
                self.guesses.get(scope.org()).unwrap_or_else(|| Meter::new(self.plans.first(), Period::of(now)));
            let hold = new_hold(&guess, demand, now, hold_for);
            let admitted = |meter, hold| {
                let (scope, request) = (scope.clone(), request.clone());
                Ok(Admission::Admitted(Box::new(Reservation { scope, request, hold, meter })))
            };
            let old = match self.try_reserve(scope, request, &guess, &hold, now).await {
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
            if let Some(hold) = old.holds.get(request).copied() {
                // The SDK repeated a write that had been applied but whose answer was lost.
                return admitted(old, hold);
            }
            if old.period < Period::of(now) {
                self.roll_over(scope, &old).await?;
                continue;
            }
            let Some(refusal) = old.refusal(demand, now) else {
                continue; // Only the guess was wrong; the next try knows better.
            };
            // What has expired may be all that stands in the way.
            if self.settle_some_expired(scope, &old, now).await == 0 {
                return Ok(Admission::Refused(refusal));
            }
        }
        Err(StoreError::Contention)
    }

    /// One conditional write. `Ok(Err(meter))` is a failed condition with the meter that failed it.
    async fn try_reserve(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        guess: &Meter,
        hold: &Hold,
        now: Millis,
    ) -> Result<std::result::Result<Meter, Meter>> {
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

        let answer = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::meter(scope).attributes()))
            .update_expression(format!("SET {}", set.join(", ")))
            .condition_expression(condition.join(" AND "))
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(output) => item::meter(output.attributes().unwrap_or(&Item::new())).map(Ok),
            Err(error) => match failed_condition(error)? {
                Some(old) => item::meter(&old).map(Err),
                None => Err(no_meter(scope)),
            },
        }
    }

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
        let meter = self.meter(scope).await?;
        if let Some(hold) = meter.holds.get(request) {
            self.settle_hold(scope, request, hold, &Amounts::NONE, 0).await?;
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
        let mut hold = *hold;
        let credits_back = hold.credits.saturating_sub(credits);
        for attempt in 0..TRIES {
            let refund = hold.refund(charged);
            let mut change = Change::new(request, credits_back);
            change.condition.push("#period = :period".into());
            change.names.insert("#period".into(), "period".into());
            change.values.insert(":period".into(), s(hold.period.to_string()));
            change.give_back(&refund);
            let answer = self
                .db
                .update_item()
                .table_name(&*self.table)
                .set_key(Some(keys::meter(scope).attributes()))
                .update_expression(change.update())
                .condition_expression(change.condition.join(" AND "))
                .set_expression_attribute_names(Some(change.names))
                .set_expression_attribute_values(Some(change.values))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
                .await;
            let old = match answer {
                Ok(_) => return Ok(SettleOutcome::Settled),
                Err(error) => match failed_condition(error) {
                    Ok(Some(old)) => item::meter(&old)?,
                    Ok(None) => return Ok(SettleOutcome::AlreadySettled),
                    Err(StoreError::Contention) => {
                        back_off(attempt).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            if !old.holds.contains_key(request) {
                return Ok(SettleOutcome::AlreadySettled);
            }
            if old.period != hold.period {
                return self.settle_closed(scope, request, &hold, &refund, credits_back).await;
            }
            // A change of plan made a resource unlimited meanwhile: there is nothing to give it back to.
            for resource in tenantry_domain::Resource::ALL {
                hold.counted[resource as usize] &= old.left.get(resource) != Limit::Unlimited;
            }
        }
        Err(StoreError::Contention)
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
    ) -> Result<SettleOutcome> {
        let change = Change::new(request, credits_back);
        let meter = self
            .update(&keys::meter(scope))
            .update_expression(change.update())
            .condition_expression(change.condition.join(" AND "))
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values((!change.values.is_empty()).then_some(change.values));
        let mut writes = vec![TransactWriteItem::builder().update(build(meter.build())?).build()];
        if *refund != Amounts::NONE {
            let mut change = Change::empty();
            change.give_back(refund);
            let closing = self
                .update(&keys::closing(scope, hold.period))
                .update_expression(change.update())
                .condition_expression(change.condition.join(" AND "))
                .set_expression_attribute_names(Some(change.names))
                .set_expression_attribute_values(Some(change.values));
            writes.push(TransactWriteItem::builder().update(build(closing.build())?).build());
        }
        match self.transact(writes).await? {
            Transacted::Done => Ok(SettleOutcome::Settled),
            // The first write fails only when the hold is gone.
            Transacted::Refused(reasons) if reasons[0] => Ok(SettleOutcome::AlreadySettled),
            Transacted::Refused(_) => Err(StoreError::Corrupt {
                key: format!("{:?}", keys::closing(scope, hold.period)),
                what: "a period was closed without its closing row".into(),
            }),
        }
    }

    /// Begins the current period: the plan's allowances afresh, and a closing row for the period that
    /// ended. Both happen once, however often and by how many this is tried.
    pub(crate) async fn roll_over(&self, scope: &TenantScope, old: &Meter) -> Result<()> {
        let now = self.now();
        let plan = self.plans.get(&old.plan);
        let fresh = Meter::new(plan, Period::of(now));
        let (period, left) = (item::PERIOD, item::LEFT);
        let update = self
            .update(&keys::meter(scope))
            .update_expression(
                "SET #period = :new, #plan = :plan, #left = :fresh, given = :given, #interval = :interval, \
                 #burst = :burst, max_holds = :max_holds",
            )
            // The closing row repeats what is left, so nothing may have been settled since it was read.
            .condition_expression("#period = :old AND #left = :left")
            .set_expression_attribute_names(Some(names(&["#period", "#plan", "#left", "#interval", "#burst"])))
            .expression_attribute_values(":new", s(fresh.period.to_string()))
            // A plan that is gone is replaced by the first, in name too.
            .expression_attribute_values(":plan", s(&fresh.plan))
            .expression_attribute_values(":fresh", item::left_value(&fresh.left))
            .expression_attribute_values(":given", item::given_value(&fresh.given))
            .expression_attribute_values(":interval", n(fresh.rate.interval))
            .expression_attribute_values(":burst", n(fresh.rate.burst))
            .expression_attribute_values(":max_holds", n(fresh.max_holds))
            .expression_attribute_values(":old", s(old.period.to_string()))
            .expression_attribute_values(":left", item::left_value(&old.left));
        let closing = NewItem::at(&keys::closing(scope, old.period))
            .text("org", scope.org().as_str())
            .text(period, old.period.to_string())
            .text("plan", &old.plan)
            .set("given", item::given_value(&old.given))
            .set(left, item::left_value(&old.left))
            .number("credits", old.credits)
            .number("closed_at", now);
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(closing.build()))
            .condition_expression("attribute_not_exists(pk)");
        self.transact_apart(vec![
            TransactWriteItem::builder().update(build(update.build())?).build(),
            TransactWriteItem::builder().put(build(put.build())?).build(),
        ])
        .await?;
        // Done, or somebody else did it or settled meanwhile: the caller looks again either way.
        Ok(())
    }

    /// The tenant's meter as it stands, rolled over if its period has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn meter(&self, scope: &TenantScope) -> Result<Meter> {
        for _ in 0..TRIES {
            let stored = self.get(&keys::meter(scope), true).await?.ok_or_else(|| no_meter(scope))?;
            let meter = item::meter(&stored)?;
            if meter.period >= Period::of(self.now()) {
                return Ok(meter);
            }
            self.roll_over(scope, &meter).await?;
        }
        Err(StoreError::Contention)
    }

    /// The meter as `period` ended, `None` when the tenant did nothing after it or did not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn closed_meter(&self, scope: &TenantScope, period: Period) -> Result<Option<Meter>> {
        let stored = self.get(&keys::closing(scope, period), true).await?;
        stored.map(|item| item::closing(&item)).transpose()
    }
}

fn new_hold(guess: &Meter, demand: &Demand, now: Millis, hold_for: Millis) -> Hold {
    let mut counted = [false; tenantry_domain::Resource::ALL.len()];
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

/// `#name` → `name`: several of the meter's words are reserved in DynamoDB's expressions.
pub(crate) fn names(placeholders: &[&str]) -> HashMap<String, String> {
    placeholders.iter().map(|name| ((*name).to_owned(), name[1..].to_owned())).collect()
}

fn no_meter(scope: &TenantScope) -> StoreError {
    StoreError::Corrupt { key: format!("{:?}", keys::meter(scope)), what: "the tenant has no meter".into() }
}

/// The item that failed an update's condition (`None` when there was none), or the real error.
pub(crate) fn failed_condition(error: aws_sdk_dynamodb::error::SdkError<UpdateItemError>) -> Result<Option<Item>> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Ok(failed.item().cloned()),
        _ => Err(StoreError::from_sdk(error)),
    }
}
