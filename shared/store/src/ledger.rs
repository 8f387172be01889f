//! The ledger of credits: an immutable row for every change, in one transaction with the balance. A change has a key of
//! its own, so that a payment that is told of three times is booked once.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use tenantry_domain::{
    LedgerId, Millis, Period,
    ledger::{LedgerKind, LedgerRow, lots},
    metering::Meter,
    sharding::{self, taken_from_each},
};

use crate::{
    Page, Store, TenantScope,
    db::{CONFLICT_TRIES, Range, Transacted, back_off, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n},
    keys,
    meter::CREDITS_EXPIRE_AT,
};

/// A change of credits to be booked.
#[derive(Debug, Clone, Copy)]
pub struct NewLedgerRow<'a> {
    /// Why.
    pub kind: LedgerKind,
    /// Micro-credits.
    pub amount: u64,
    /// What makes it this change and no other: the same key books once, whatever else stands here.
    pub key: &'a str,
    /// What it came from: an order, an invoice, a payment.
    pub reference: Option<&'a str>,
    /// When what it adds expires.
    pub expires_at: Option<Millis>,
}

/// How a booking ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Booked {
    /// It is in the books.
    Done(LedgerRow),
    /// It was in the books already.
    Before,
}

impl Store {
    /// Adds credits.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was booked then, or all of it, and the same call again finds out.
    pub async fn add_credits(&self, scope: &TenantScope, new: &NewLedgerRow<'_>) -> Result<Booked> {
        for attempt in 0..CONFLICT_TRIES {
            let meter = self.meter(scope).await?;
            let row = self.ledger_row(new, &meter, i64::try_from(new.amount).unwrap_or(i64::MAX), 0);
            let mut set = "SET credits = credits + :amount".to_owned();
            let mut condition = "attribute_exists(pk)".to_owned();
            let mut update = self.update(&keys::meter(scope)).expression_attribute_values(":amount", n(row.amount));
            let first = |end: &Millis| meter.credits_expire_at.is_none_or(|at| *end < at);
            if let Some(end) = new.expires_at.filter(first) {
                set.push_str(&format!(", {CREDITS_EXPIRE_AT} = :end"));
                condition = format!(
                    "{condition} AND (attribute_not_exists({CREDITS_EXPIRE_AT}) OR {CREDITS_EXPIRE_AT} > :end)"
                );
                update = update.expression_attribute_values(":end", n(end));
            }
            let update = update.update_expression(set).condition_expression(condition);
            let update = TransactWriteItem::builder().update(build(update.build())?).build();
            if let Some(booked) = self.book(scope, new, row, vec![update]).await? {
                return Ok(booked);
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// Takes credits, as many as there are: what is missing stands in the row as `short`. Nothing is owed.
    ///
    /// # Errors
    /// As for [`Store::add_credits`].
    pub async fn take_credits(&self, scope: &TenantScope, new: &NewLedgerRow<'_>) -> Result<Booked> {
        self.take(scope, new, None).await
    }

    /// The same, of those credits alone that came with `reference` before. What requests in flight hold of them counts as
    /// spent, and what these give back is theirs to keep.
    ///
    /// # Errors
    /// As for [`Store::add_credits`].
    pub async fn take_credits_of(
        &self,
        scope: &TenantScope,
        new: &NewLedgerRow<'_>,
        reference: &str,
    ) -> Result<Booked> {
        self.take(scope, new, Some(reference)).await
    }

    async fn take(&self, scope: &TenantScope, new: &NewLedgerRow<'_>, of: Option<&str>) -> Result<Booked> {
        for attempt in 0..CONFLICT_TRIES {
            let looked = match of {
                Some(_) => self.ledger_and_shards(scope, Some(Period::of(self.now()))).await?,
                None => Some((vec![], self.shards_at_rest(scope, Some(Period::of(self.now()))).await?)),
            };
            let Some((rows, shards)) = looked else {
                back_off(attempt).await;
                continue;
            };
            let Some(meter) = sharding::together(&shards, self.now()) else { continue };
            let mut there = meter.credits;
            if let Some(reference) = of {
                let lots = lots(&rows, meter.credits);
                let own = lots.iter().filter(|lot| lot.reference.as_deref() == Some(reference));
                there = own.fold(0_u64, |sum, lot| sum.saturating_add(lot.left)).min(there);
            }
            let taken = new.amount.min(there);
            let row = self.ledger_row(new, &meter, -i64::try_from(taken).unwrap_or(i64::MAX), new.amount - taken);
            // Where all goes, nothing may have come meanwhile that belongs to it as well, in any shard.
            let all = taken < new.amount && taken == meter.credits;
            let is = if all { "=" } else { ">=" };
            let mut writes = vec![];
            for (shard, taken) in shards.iter().zip(taken_from_each(shards.iter().map(|s| s.credits), taken)) {
                if taken == 0 && !all && shard.shards.number > 0 {
                    continue;
                }
                let update = self
                    .update(&keys::meter_shard(scope, shard.shards.number))
                    .update_expression("SET credits = credits - :amount")
                    .condition_expression(format!("credits {is} :amount"))
                    .expression_attribute_values(":amount", n(taken));
                writes.push(TransactWriteItem::builder().update(build(update.build())?).build());
            }
            if let Some(booked) = self.book(scope, new, row, writes).await? {
                return Ok(booked);
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    fn ledger_row(&self, new: &NewLedgerRow<'_>, meter: &Meter, amount: i64, short: u64) -> LedgerRow {
        LedgerRow {
            id: LedgerId::at(self.now()),
            at: self.now(),
            kind: new.kind,
            amount,
            short,
            before: meter.credits.saturating_add(meter.credits_held()),
            reference: new.reference.map(ToOwned::to_owned),
            expires_at: new.expires_at,
        }
    }

    /// `None` when the meter's condition failed.
    async fn book(
        &self,
        scope: &TenantScope,
        new: &NewLedgerRow<'_>,
        row: LedgerRow,
        meter: Vec<TransactWriteItem>,
    ) -> Result<Option<Booked>> {
        let key = NewItem::at(&keys::booking(scope, new.key)).text("org", scope.org().as_str());
        let mut writes = vec![];
        let key = key.text("row", row.id.as_str()).number("at", row.at);
        for item in [key.build(), row_item(scope, &row)] {
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        writes.extend(meter);
        Ok(match self.transact_apart(writes).await? {
            Transacted::Done => Some(Booked::Done(row)),
            Transacted::Refused(reasons) if reasons[0] => Some(Booked::Before),
            Transacted::Refused(_) => None,
        })
    }

    /// Whether a change with this key was booked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_booked(&self, scope: &TenantScope, key: &str) -> Result<bool> {
        Ok(self.get(&keys::booking(scope, key), true).await?.is_some())
    }

    /// The row that was booked with this key, if one was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn booked(&self, scope: &TenantScope, key: &str) -> Result<Option<LedgerRow>> {
        let Some(booking) = self.get(&keys::booking(scope, key), true).await? else { return Ok(None) };
        let reader = Reader(&booking);
        let key = keys::ledger(scope, reader.number("at")?, &reader.parsed("row")?);
        self.get(&key, true).await?.map(|item| read_row(&item)).transpose()
    }

    /// The rows, newest first.
    ///
    /// # Errors
    /// [`StoreError`]; `BadCursor` for a cursor of another list.
    pub async fn ledger(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<LedgerRow>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::LEDGER_PREFIX));
        let between = Range::between(&pk, keys::LEDGER_PREFIX, &to);
        let range = Range { cursor, limit: limit.into(), consistent: true, newest_first: true, ..between };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_row).collect::<Result<_>>()?, next })
    }

    /// The whole ledger, oldest first, and the balance that belongs to it, in period `least` or a later one. `None` when a row came between the two looks: by a
    /// balance of other rows, [`lots`] would take what was used for what is there, or the other way round.
    pub(crate) async fn ledger_and_shards(
        &self,
        scope: &TenantScope,
        least: Option<Period>,
    ) -> Result<Option<(Vec<LedgerRow>, Vec<Meter>)>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::LEDGER_PREFIX));
        let items = self.all(Range { consistent: true, ..Range::between(&pk, keys::LEDGER_PREFIX, &to) }).await?;
        let rows = items.iter().map(read_row).collect::<Result<Vec<_>>>()?;
        let shards = self.shards_at_rest(scope, least).await?;
        // A row and its balance are written together.
        let is_same = self.ledger(scope, 1, None).await?.items.first() == rows.last();
        Ok(is_same.then_some((rows, shards)))
    }

    /// Books the end of credits whose time is over, and notes when the next are. Returns how many micro-credits
    /// expired. What requests in flight hold counts as used, of what expires first; what they give back is theirs to keep.
    ///
    /// # Errors
    /// [`StoreError`]; a part may have been booked, and the next call goes on.
    pub async fn expire_credits(&self, scope: &TenantScope) -> Result<u64> {
        for attempt in 0..CONFLICT_TRIES {
            let Some(noted) = self.meter(scope).await?.credits_expire_at.filter(|at| *at <= self.now()) else {
                return Ok(0);
            };
            if let Some((rows, shards)) = self.ledger_and_shards(scope, Some(Period::of(self.now()))).await?
                && let Some(meter) = sharding::together(&shards, self.now())
            {
                return self.expire_lots(scope, noted, &rows, &meter).await;
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    async fn expire_lots(&self, scope: &TenantScope, noted: Millis, rows: &[LedgerRow], meter: &Meter) -> Result<u64> {
        let now = self.now();
        let mut expired = 0;
        for lot in lots(rows, meter.credits).iter().filter(|lot| lot.expires_at.is_some_and(|end| end <= now)) {
            let key = format!("expiry:{}", lot.id);
            let (kind, reference) = (LedgerKind::Expiry, lot.reference.as_deref());
            let new = NewLedgerRow { kind, amount: lot.left, key: &key, reference, expires_at: None };
            if let Booked::Done(row) = self.take_credits(scope, &new).await? {
                expired += row.amount.unsigned_abs();
            }
        }
        // Of what is held as well: it may come back.
        let all = lots(rows, meter.credits.saturating_add(meter.credits_held()));
        let next = all.iter().filter_map(|lot| lot.expires_at).filter(|end| *end > now).min();
        // Unless a grant noted something else meanwhile.
        let update = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::meter(scope).attributes()))
            .condition_expression(format!("{CREDITS_EXPIRE_AT} = :noted"))
            .expression_attribute_values(":noted", n(noted));
        let update = match next {
            Some(next) => update
                .update_expression(format!("SET {CREDITS_EXPIRE_AT} = :next"))
                .expression_attribute_values(":next", n(next)),
            None => update.update_expression(format!("REMOVE {CREDITS_EXPIRE_AT}")),
        };
        if let Err(error) = update.send().await {
            crate::meter::failed_condition(error)?;
        }
        Ok(expired)
    }
}

fn row_item(scope: &TenantScope, row: &LedgerRow) -> Item {
    let mut item = NewItem::at(&keys::ledger(scope, row.at, &row.id))
        .text("org", scope.org().as_str())
        .text("id", row.id.as_str())
        .number("at", row.at)
        .text("kind", row.kind.name())
        .number("amount", row.amount)
        .number("before", row.before)
        .optional("reference", row.reference.as_deref());
    if row.short > 0 {
        item = item.number("short", row.short);
    }
    if let Some(end) = row.expires_at {
        item = item.number("expires_at", end);
    }
    item.build()
}

pub(crate) fn read_row(item: &Item) -> Result<LedgerRow> {
    let reader = Reader(item);
    let kind = reader.text("kind")?;
    let kind = LedgerKind::ALL.into_iter().find(|known| known.name() == kind);
    Ok(LedgerRow {
        id: reader.parsed("id")?,
        at: reader.number("at")?,
        kind: kind.ok_or_else(|| reader.corrupt("unknown kind"))?,
        amount: reader.number("amount")?,
        short: reader.optional_number("short")?.unwrap_or(0),
        before: reader.number("before")?,
        reference: reader.optional_text("reference")?.map(ToOwned::to_owned),
        expires_at: reader.optional_number("expires_at")?,
    })
}
