//! The meter: one conditional write to get in, one to get out. The rules are in `domain::metering`.

mod budget;
mod guesses;
mod included;
mod item;
mod plan;
mod reserve;
mod settle;

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{Put, TransactWriteItem},
};
use tenantry_domain::{
    Period, RequestId,
    metering::{Hold, Meter, Refusal},
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
                 #burst = :burst, max_holds = :max_holds REMOVE counted_partly",
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
        let mut closing = NewItem::at(&keys::closing(scope, old.period))
            .text("org", scope.org().as_str())
            .text(period, old.period.to_string())
            .text("plan", &old.plan)
            .set("given", item::given_value(&old.given))
            .set(left, item::left_value(&old.left))
            .number("credits", old.credits)
            .number("closed_at", now);
        if let Some(partial) = item::partial_value(&old.partial) {
            closing = closing.set(item::PARTIAL, partial);
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

    /// The tenant's meter as it stands, rolled over if its period has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn meter(&self, scope: &TenantScope) -> Result<Meter> {
        for _ in 0..TRIES {
            let meter = self.stored_meter(scope).await?;
            if meter.period >= Period::of(self.now()) {
                return Ok(meter);
            }
            self.roll_over(scope, &meter).await?;
        }
        Err(StoreError::Contention)
    }

    async fn stored_meter(&self, scope: &TenantScope) -> Result<Meter> {
        item::meter(&self.get(&keys::meter(scope), true).await?.ok_or_else(|| no_meter(scope))?)
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
