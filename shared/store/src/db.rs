//! The few shapes of request that every aggregate makes.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{AttributeValue, TransactWriteItem, Update, builders::UpdateBuilder},
};

use crate::{
    Store,
    error::{Result, StoreError},
    idempotency::Mark,
    item::{Item, s},
    keys::{Key, PK, SK},
};

/// How a transaction ended, when it was not an outage.
pub(crate) enum Transacted {
    Done,
    /// For each write in order, whether its condition failed.
    Refused(Vec<bool>),
}

/// How often a write is tried when others touch the same items at the same moment.
pub(crate) const CONFLICT_TRIES: u32 = 8;

/// Waits before try number `attempt` + 1: longer each time, and differently long for each who waits.
pub(crate) async fn back_off(attempt: u32) {
    let longest = 5 << attempt.min(6);
    let jitter = fastrand::u64(..longest);
    tokio::time::sleep(std::time::Duration::from_millis(longest / 2 + jitter / 2)).await;
}

/// Unwraps a builder, which fails only when this crate forgot a required field.
pub(crate) fn build<T>(built: std::result::Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T> {
    built.map_err(|error| StoreError::Unavailable(error.to_string()))
}

impl Store {
    pub(crate) async fn get(&self, key: &Key, consistent: bool) -> Result<Option<Item>> {
        let get = self.db.get_item().table_name(&*self.table).set_key(Some(key.attributes()));
        let output = get.consistent_read(consistent).send().await.map_err(StoreError::from_sdk)?;
        Ok(output.item)
    }

    pub(crate) fn update(&self, key: &Key) -> UpdateBuilder {
        Update::builder().table_name(&*self.table).set_key(Some(key.attributes()))
    }

    /// Runs `writes` as one transaction. The first one of a request with an `Idempotency-Key` also marks the
    /// request as carried out.
    ///
    /// # Errors
    /// Besides others [`StoreError::Superseded`], when the request is somebody else's by now.
    pub(crate) async fn transact(&self, mut writes: Vec<TransactWriteItem>) -> Result<Transacted> {
        let Some(mark) = Mark::pending() else { return self.transact_apart(writes).await };
        writes.push(mark.write(self)?);
        match self.transact_apart(writes).await? {
            Transacted::Done => {
                mark.was_set();
                Ok(Transacted::Done)
            }
            Transacted::Refused(mut reasons) => match reasons.pop() {
                Some(true) => Err(StoreError::Superseded),
                _ => Ok(Transacted::Refused(reasons)),
            },
        }
    }

    /// Runs `writes` as one transaction that is no part of the work at hand: upkeep that could happen at any
    /// other time as well. A conflict with another transaction is tried again: it says nothing about the
    /// conditions.
    pub(crate) async fn transact_apart(&self, writes: Vec<TransactWriteItem>) -> Result<Transacted> {
        for attempt in 0..CONFLICT_TRIES {
            if attempt > 0 {
                back_off(attempt).await;
            }
            let answer = self.db.transact_write_items().set_transact_items(Some(writes.clone())).send().await;
            let error = match answer {
                Ok(_) => return Ok(Transacted::Done),
                Err(error) => error,
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
            else {
                return Err(StoreError::from_sdk(error));
            };
            let codes: Vec<_> = cancelled.cancellation_reasons().iter().map(|r| r.code().unwrap_or("None")).collect();
            if codes.contains(&"ConditionalCheckFailed") {
                return Ok(Transacted::Refused(codes.iter().map(|code| *code == "ConditionalCheckFailed").collect()));
            }
            let transient = |code: &&str| {
                matches!(*code, "None" | "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded")
            };
            if codes.contains(&"ValidationError") {
                return Err(StoreError::Rejected(format!("{codes:?}")));
            }
            if !codes.iter().all(transient) {
                return Err(StoreError::from_sdk(error));
            }
        }
        Err(StoreError::Contention)
    }

    /// One page of `pk` with sort keys from `from` (inclusive, or exclusive when it is a cursor) up to
    /// `to` (exclusive), forwards or backwards.
    pub(crate) async fn page(&self, range: Range<'_>) -> Result<(Vec<Item>, Option<String>)> {
        let start = range.cursor.map(|sk| HashMap::from([(PK.to_owned(), s(range.pk)), (SK.to_owned(), s(sk))]));
        // A cursor from another list would start elsewhere; DynamoDB only checks that it is a key.
        if range.cursor.is_some_and(|sk| sk < range.from || sk >= range.to) {
            return Err(StoreError::BadCursor);
        }
        let output = self
            .db
            .query()
            .table_name(&*self.table)
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", s(range.pk))
            .expression_attribute_values(":from", s(range.from))
            .expression_attribute_values(":to", s(range.to))
            .scan_index_forward(!range.newest_first)
            .limit(range.limit)
            .set_exclusive_start_key(start)
            .consistent_read(range.consistent)
            .send()
            .await
            .map_err(StoreError::from_sdk)?;
        let next = output
            .last_evaluated_key
            .and_then(|key| key.get(SK).and_then(|sk: &AttributeValue| sk.as_s().ok()).cloned());
        Ok((output.items.unwrap_or_default(), next))
    }

    /// A page as lists show it: it looks one item ahead, so there is a cursor only where there is more.
    pub(crate) async fn page_ahead(&self, range: Range<'_>) -> Result<(Vec<Item>, Option<String>)> {
        let (mut items, mut next) = self.page(Range { limit: range.limit + 1, ..range }).await?;
        let wanted = usize::try_from(range.limit).unwrap_or(0);
        if items.len() > wanted {
            items.truncate(wanted);
            next = items.last().and_then(|item| item.get(SK)?.as_s().ok()).cloned();
        }
        // Fewer, and still a cursor: DynamoDB cut the page by size, and the cursor says where.
        Ok((items, next))
    }

    /// Every item of a range that is known to be short.
    pub(crate) async fn all(&self, range: Range<'_>) -> Result<Vec<Item>> {
        let mut items = vec![];
        let mut cursor: Option<String> = None;
        loop {
            let (more, next) = self.page(Range { cursor: cursor.as_deref(), ..range }).await?;
            items.extend(more);
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }
}

/// A stretch of one partition.
#[derive(Clone, Copy)]
pub(crate) struct Range<'a> {
    pub(crate) pk: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) cursor: Option<&'a str>,
    pub(crate) limit: i32,
    pub(crate) newest_first: bool,
    pub(crate) consistent: bool,
}

impl<'a> Range<'a> {
    pub(crate) const fn between(pk: &'a str, from: &'a str, to: &'a str) -> Self {
        Self { pk, from, to, cursor: None, limit: 100, newest_first: false, consistent: false }
    }
}

/// The end of the range of sort keys that start with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> String {
    // Sort keys are ASCII, so nothing that starts with the prefix sorts behind this.
    format!("{prefix}\u{7f}")
}
