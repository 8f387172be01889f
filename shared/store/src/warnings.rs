//! Limits of the month that are nearly used up, or used up: found by the sweep, which reads the meter anyway. What was told
//! of stands on the meter, or in the item that counts a budget, and is written with its row of the audit log.

use aws_sdk_dynamodb::types::TransactWriteItem;
use tenantry_domain::{
    Millis, Period,
    budget::BudgetId,
    metering::Meter,
    sharding::Shards,
    warnings::{Reached, Told},
};

use crate::{
    NewAudit, Store, TenantScope,
    budgets::read_budget,
    db::{CONFLICT_TRIES, Range, Transacted, back_off, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, Reader, s},
    keys,
    meter::{MOST, read_meter, read_spent},
};

/// On the meter and in the items of budgets.
const WARNED: &str = "warned";

/// On the meter: when a call last took from a budget.
pub(crate) const BUDGETED_AT: &str = "budgeted_at";

/// Budgets are looked at for so long after the last call that took from one: three sweeps, and longer than calls last. A
/// tenant that has none, or is quiet, costs nothing.
const LOOKED_AT_FOR: Millis = 15 * 60_000;

/// A limit of the month of which a threshold was reached, and nobody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitWarning {
    /// Which budget; the plan's allowance when none.
    pub of: Option<BudgetId>,
    /// The month.
    pub period: Period,
    /// What was reached.
    pub reached: Reached,
}

/// Whether there may be something to tell of, as far as the meter says.
pub(crate) fn is_due(item: &Item, meter: &Meter, now: Millis) -> Result<bool> {
    Ok(meter.period == Period::of(now) && (budgets_in_use(item, meter, now)? || !of_plan(item, meter)?.is_empty()))
}

/// Of a meter in shards nobody asks which of them was taken from: it is in use.
fn budgets_in_use(item: &Item, meter: &Meter, now: Millis) -> Result<bool> {
    let taken: Option<Millis> = Reader(item).optional_number(BUDGETED_AT)?;
    Ok(meter.shards != Shards::default() || taken.is_some_and(|at| now - at < LOOKED_AT_FOR))
}

fn of_plan(item: &Item, meter: &Meter) -> Result<Vec<Reached>> {
    Ok(told(item)?.due(meter.period, meter.levels()))
}

fn told(item: &Item) -> Result<Told> {
    Ok(Reader(item).optional_text(WARNED)?.map(Told::parse).unwrap_or_default())
}

impl Store {
    /// The thresholds that were reached in the current month and nobody was told of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn limit_warnings(&self, scope: &TenantScope) -> Result<Vec<LimitWarning>> {
        let Some(stored) = self.get(&keys::meter(scope), true).await? else { return Ok(vec![]) };
        let (mut meter, now) = (read_meter(&stored)?, self.now());
        if meter.shards != Shards::default() {
            meter = self.meter(scope).await?;
        }
        let period = meter.period;
        if period != Period::of(now) {
            // A month that is over, or that another's clock has begun early.
            return Ok(vec![]);
        }
        let warning = |of: Option<BudgetId>| move |reached| LimitWarning { of: of.clone(), period, reached };
        let mut warnings: Vec<_> = of_plan(&stored, &meter)?.into_iter().map(warning(None)).collect();
        if budgets_in_use(&stored, &meter, now)? {
            let (pk, from) = (keys::tenant(scope), keys::budgets_from(period));
            let to = prefix_end(&from);
            let range = Range { consistent: true, ..Range::between(&pk, &from, &to) };
            for item in self.all(range).await? {
                let reader = Reader(&item);
                let id = keys::budget_id(reader.text(keys::SK)?).ok_or_else(|| reader.corrupt("no budget's key"))?;
                let most = item.get(MOST).and_then(|most| read_budget(most.as_m().ok()?)).unwrap_or_default();
                // What is held may come back.
                let spent = read_spent(&item)?.settled(meter.holds.values(), &id, period);
                let due = told(&item)?.due(period, most.levels(&spent));
                warnings.extend(due.into_iter().map(warning(Some(id))));
            }
        }
        Ok(warnings)
    }

    /// Notes that people were told, with the row of the audit log that says so. `false` when somebody else did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_limit_warning(
        &self,
        scope: &TenantScope,
        warning: &LimitWarning,
        audit: &NewAudit<'_>,
    ) -> Result<bool> {
        let LimitWarning { of, period, reached } = warning;
        let key = match of {
            Some(id) => keys::budget(scope, id, *period),
            None => keys::meter(scope),
        };
        for attempt in 0..CONFLICT_TRIES {
            let Some(stored) = self.get(&key, true).await? else { return Ok(false) };
            let told = told(&stored)?;
            let next = told.with(*period, reached);
            if next == told {
                return Ok(false);
            }
            let update = self.update(&key).update_expression(format!("SET {WARNED} = :next"));
            let update = match stored.get(WARNED) {
                Some(seen) => update
                    .condition_expression(format!("{WARNED} = :seen"))
                    .expression_attribute_values(":seen", seen.clone()),
                None => update.condition_expression(format!("attribute_exists(pk) AND attribute_not_exists({WARNED})")),
            };
            let update = update.expression_attribute_values(":next", s(next.to_string()));
            let update = TransactWriteItem::builder().update(build(update.build())?).build();
            match self.transact_apart(vec![update, self.audit_write(scope, audit)?]).await? {
                Transacted::Done => return Ok(true),
                Transacted::Refused(_) => back_off(attempt).await,
            }
        }
        Err(StoreError::Contention)
    }
}
