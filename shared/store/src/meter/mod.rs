//! The meter: one conditional write to get in, one to get out. The rules are in `domain::metering`.

mod budget;
mod guesses;
mod included;
mod item;
mod plan;
mod reserve;
mod settle;
mod shards;

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{Put, TransactWriteItem, builders::UpdateBuilder},
};
use tenantry_domain::{
    Period, RequestId,
    metering::{Hold, Meter, Refusal},
    sharding,
};

pub use budget::WithinBudget;
pub(crate) use budget::{MOST, read_spent};
pub(crate) use guesses::Guesses;
pub(crate) use item::{CREDITS_EXPIRE_AT, closing as read_closing, meter as read_meter, new_meter};
pub use plan::Planned;
pub use reserve::{Refused, Terms};

use crate::{
    Store, TenantScope,
    db::{CONFLICT_TRIES, build},
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
    within: Vec<WithinBudget>,
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

    /// The budgets that it was made within, for rate-limit headers.
    #[must_use]
    pub fn within(&self) -> &[WithinBudget] {
        &self.within
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
    /// Begins the current period: the plan's allowances afresh, and a closing row for the period that
    /// ended. Both happen once, however often and by how many this is tried. A further shard begins the period that the
    /// main one is in, with nothing left: it borrows.
    pub(crate) async fn roll_over(&self, scope: &TenantScope, old: &Meter) -> Result<()> {
        if old.shards.number > 0 {
            let main = self.stored_shard(scope, 0).await?;
            if main.period > old.period {
                return self.follow(scope, old, &main).await;
            }
            // First the main one; the caller looks again.
            return Box::pin(self.roll_over(scope, &main)).await;
        }
        let now = self.now();
        let plan = self.plans.get(&old.plan);
        let fresh = Meter::new(plan, Period::of(now));
        let mut set = "SET #period = :new, #plan = :plan, #left = :fresh, given = :given".to_owned();
        let mut used = names(&["#period", "#plan", "#left"]);
        let mut update = self
            .update(&keys::meter(scope))
            // A plan that is gone is replaced by the first, in name too.
            .expression_attribute_values(":plan", s(&fresh.plan))
            .expression_attribute_values(":given", item::given_value(&fresh.given));
        // What shards share out they share out anew together, in a write of its own.
        if old.shards.made == 1 {
            set.push_str(", #interval = :interval, #burst = :burst, max_holds = :max_holds");
            used.extend(names(&["#interval", "#burst"]));
            update = update
                .expression_attribute_values(":interval", n(fresh.rate.interval))
                .expression_attribute_values(":burst", n(fresh.rate.burst))
                .expression_attribute_values(":max_holds", n(fresh.max_holds));
        }
        update = update.update_expression(set + " REMOVE counted_partly").set_expression_attribute_names(Some(used));
        self.close(scope, old, &fresh, update).await
    }

    /// [`Self::roll_over`] of a further shard to the period of the main one.
    async fn follow(&self, scope: &TenantScope, old: &Meter, main: &Meter) -> Result<()> {
        let nothing =
            Meter { left: item::nothing_of(&main.left), given: item::nothing_of(&main.given), ..main.clone() };
        let update = self
            .update(&keys::meter_shard(scope, old.shards.number))
            .update_expression("SET #period = :new, #plan = :plan, #left = :fresh, given = :given")
            .set_expression_attribute_names(Some(names(&["#period", "#plan", "#left"])))
            .expression_attribute_values(":plan", s(&nothing.plan))
            .expression_attribute_values(":given", item::given_value(&nothing.given));
        self.close(scope, old, &nothing, update).await
    }

    /// `update` to `fresh`, if `old` still is what is stored, and the closing row of `old`.
    async fn close(&self, scope: &TenantScope, old: &Meter, fresh: &Meter, update: UpdateBuilder) -> Result<()> {
        let (period, left) = (item::PERIOD, item::LEFT);
        let mut condition = "#period = :old AND #left = :left AND #plan = :was".to_owned();
        let mut update = update;
        if old.shards.number == 0 {
            condition.push_str(" AND (attribute_not_exists(made_shards) OR made_shards = :made)");
            update = update.expression_attribute_values(":made", n(old.shards.made));
        }
        let update = update
            // The closing row repeats what is left, so nothing may have been settled since it was read.
            .condition_expression(condition)
            .expression_attribute_values(":new", s(fresh.period.to_string()))
            .expression_attribute_values(":fresh", item::left_value(&fresh.left))
            .expression_attribute_values(":old", s(old.period.to_string()))
            .expression_attribute_values(":was", s(&old.plan))
            .expression_attribute_values(":left", item::left_value(&old.left));
        let mut closing = NewItem::at(&keys::closing_shard(scope, old.shards.number, old.period))
            .text("org", scope.org().as_str())
            .text(period, old.period.to_string())
            .text("plan", &old.plan)
            .set("given", item::given_value(&old.given))
            .set(left, item::left_value(&old.left))
            .number("credits", old.credits)
            .number("closed_at", self.now());
        if let Some(partial) = item::partial_value(&old.partial) {
            closing = closing.set(item::PARTIAL, partial);
        }
        if old.shards.number > 0 {
            closing = closing.number(item::SHARD, old.shards.number);
        }
        if old.shards.made > 1 {
            closing = closing.number(item::MADE, old.shards.made);
        }
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

    /// The tenant's meter as it stands, all its shards together, rolled over if its period has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn meter(&self, scope: &TenantScope) -> Result<Meter> {
        let shards = self.shards_at_rest(scope, Some(Period::of(self.now()))).await?;
        sharding::together(&shards, self.now()).ok_or_else(|| no_meter(scope))
    }

    async fn stored_shard(&self, scope: &TenantScope, number: u8) -> Result<Meter> {
        let key = keys::meter_shard(scope, number);
        item::meter(&self.get(&key, true).await?.ok_or_else(|| no_meter(scope))?)
    }

    /// The meter as `period` ended, `None` when the tenant did nothing after it or did not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn closed_meter(&self, scope: &TenantScope, period: Period) -> Result<Option<Meter>> {
        let Some(stored) = self.get(&keys::closing(scope, period), true).await? else { return Ok(None) };
        let main = item::closing(&stored)?;
        if main.shards.made == 1 {
            return Ok(Some(main));
        }
        // Those of the others that lag behind are closed on the way.
        self.meter_shards(scope, Some(period.next())).await?;
        let mut all = vec![main];
        for number in 1..all[0].shards.made {
            // One that slept through the whole period had nothing of it.
            if let Some(stored) = self.get(&keys::closing_shard(scope, number, period), true).await? {
                all.push(item::closing(&stored)?);
            }
        }
        Ok(sharding::together(&all, self.now()))
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
