//! What a tenant wants when its credits run out. What the sweep has to know of it stands on the meter, which it reads
//! anyway; both are written in one transaction.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{
    credit_watch::{CreditWatch, TopUp},
    metering::Meter,
    orders::{NewOrder, Order},
};

use crate::{
    NewAudit, Store, TenantScope,
    db::{CONFLICT_TRIES, Transacted, back_off, build},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n},
    keys,
};

/// From how many credits on there is nothing to do.
const QUIET_FROM: &str = "quiet_from";
/// From how many on there is again.
const QUIET_TO: &str = "quiet_to";

impl Store {
    /// What the tenant wants; nothing, in version 0, when it never said.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn credit_watch(&self, scope: &TenantScope) -> Result<CreditWatch> {
        let stored = self.get(&keys::credit_watch(scope), true).await?;
        stored.map_or_else(|| Ok(CreditWatch::default()), |item| read_watch(&item))
    }

    /// Writes `watch` over the state of its version, and the row of the audit log that says so if somebody wants it.
    /// `None` when that is not the state any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_credit_watch(
        &self,
        scope: &TenantScope,
        watch: CreditWatch,
        audit: Option<&NewAudit<'_>>,
    ) -> Result<Option<CreditWatch>> {
        // The mark of what is watched stands on it.
        self.meter(scope).await?;
        for attempt in 0..CONFLICT_TRIES {
            let (next, mut writes) = self.watch_writes(scope, watch.clone())?;
            let done = match audit {
                Some(audit) => {
                    writes.push(self.audit_write(scope, audit)?);
                    self.transact(writes).await?
                }
                None => self.transact_apart(writes).await?,
            };
            match done {
                Transacted::Done => return Ok(Some(next)),
                Transacted::Refused(reasons) if reasons.first() == Some(&true) => return Ok(None),
                Transacted::Refused(_) => back_off(attempt).await,
            }
        }
        Err(StoreError::Contention)
    }

    /// Writes `watch`, which has the order `new` under way, and makes that order, to be paid with the saved payment method
    /// `method`: all of it or nothing, so whoever is at it at the same time makes no second one. `None` when the state is
    /// another one by now, or somebody has deleted the organization.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_top_up(
        &self,
        scope: &TenantScope,
        watch: CreditWatch,
        new: &NewOrder,
        method: &str,
        audit: &NewAudit<'_>,
    ) -> Result<Option<Order>> {
        let order = Order { vendor_id: Some(method.to_owned()), ..self.new_order(new) };
        for attempt in 0..CONFLICT_TRIES {
            let (_, mut writes) = self.watch_writes(scope, watch.clone())?;
            writes.extend(self.order_creation(scope, &order, audit)?);
            writes.push(self.organization_lives(scope)?);
            match self.transact_apart(writes).await? {
                Transacted::Done => return Ok(Some(order)),
                Transacted::Refused(reasons) if reasons.first() == Some(&true) || reasons.last() == Some(&true) => {
                    return Ok(None);
                }
                Transacted::Refused(_) => back_off(attempt).await,
            }
        }
        Err(StoreError::Contention)
    }

    /// The row over its version before, first, and the mark on the meter.
    fn watch_writes(&self, scope: &TenantScope, watch: CreditWatch) -> Result<(CreditWatch, Vec<TransactWriteItem>)> {
        let seen = watch.version;
        let next = CreditWatch { version: seen + 1, ..watch };
        let put = Put::builder().table_name(&*self.table).set_item(Some(watch_item(scope, &next)));
        let put = match seen {
            0 => put.condition_expression("attribute_not_exists(pk)"),
            _ => put.condition_expression("version = :seen").expression_attribute_values(":seen", n(seen)),
        };
        let (from, to) = next.quiet();
        let (mut set, mut remove) = (vec![], vec![]);
        let mut mark = self.update(&keys::meter(scope)).condition_expression("attribute_exists(pk)");
        for (name, value) in [(QUIET_FROM, from), (QUIET_TO, to)] {
            match value {
                Some(value) => {
                    set.push(format!("{name} = :{name}"));
                    mark = mark.expression_attribute_values(format!(":{name}"), n(value));
                }
                None => remove.push(name),
            }
        }
        let clause = |word: &str, parts: &[String]| {
            if parts.is_empty() { String::new() } else { format!("{word} {} ", parts.join(", ")) }
        };
        let remove: Vec<_> = remove.into_iter().map(ToOwned::to_owned).collect();
        let mark = mark.update_expression(clause("SET", &set) + &clause("REMOVE", &remove));
        let writes = vec![
            TransactWriteItem::builder().put(build(put.build())?).build(),
            TransactWriteItem::builder().update(build(mark.build())?).build(),
        ];
        Ok((next, writes))
    }
}

/// Whether the watch has something to do, as far as the meter says. What requests in flight hold may come back.
pub(crate) fn is_due(item: &Item, meter: &Meter) -> Result<bool> {
    let reader = Reader(item);
    let (from, to): (Option<u64>, Option<u64>) =
        (reader.optional_number(QUIET_FROM)?, reader.optional_number(QUIET_TO)?);
    let credits = meter.credits.saturating_add(meter.credits_held());
    Ok(from.is_some_and(|from| credits < from) || to.is_some_and(|to| credits >= to))
}

fn watch_item(scope: &TenantScope, watch: &CreditWatch) -> Item {
    let mut item = NewItem::at(&keys::credit_watch(scope))
        .text("org", scope.org().as_str())
        .number("spent", watch.spent)
        .optional("month", watch.month.map(|month| month.to_string()))
        .optional("order", watch.order.as_ref().map(|order| order.as_str().to_owned()))
        .number("version", watch.version);
    for (name, value) in [("notify_below", watch.notify_below), ("failed_at", watch.failed_at.map(i64::unsigned_abs))] {
        if let Some(value) = value {
            item = item.number(name, value);
        }
    }
    for (name, value) in [("notified", watch.notified), ("enabled", watch.on().is_some())] {
        if value {
            item = item.set(name, AttributeValue::Bool(true));
        }
    }
    if let Some(TopUp { below, package, monthly_cap, set_by, .. }) = &watch.top_up {
        item = item
            .number("below", below)
            .text("package", package)
            .number("monthly_cap", monthly_cap)
            .text("set_by", set_by.as_str());
    }
    item.build()
}

fn read_watch(item: &Item) -> Result<CreditWatch> {
    let reader = Reader(item);
    let top_up = match reader.optional_text("package")? {
        None => None,
        Some(package) => Some(TopUp {
            enabled: reader.flag("enabled"),
            below: reader.number("below")?,
            package: package.to_owned(),
            monthly_cap: reader.number("monthly_cap")?,
            set_by: reader.parsed("set_by")?,
        }),
    };
    Ok(CreditWatch {
        notify_below: reader.optional_number("notify_below")?,
        top_up,
        notified: reader.flag("notified"),
        month: reader.optional_parsed("month")?,
        spent: reader.number("spent")?,
        order: reader.optional_parsed("order")?,
        failed_at: reader.optional_number("failed_at")?,
        version: reader.number("version")?,
    })
}
