//! Records of resources that a tenant counts itself: in the same rows as the platform's own records, by the same
//! transaction of record and roll-up, and so exact in the same way.
//!
//! A key of the client's makes a record happen once: a row of the same transaction holds it, and says which record it
//! became. So there is no state in between that a crash could leave.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{Millis, RequestId, usage::UsageEvent};

use crate::{
    Store, TenantScope,
    db::{Transacted, build},
    error::{Result, StoreError},
    item::{NewItem, Reader, n},
    keys,
    table::TTL,
};

/// Own resources of a tenant in a month. Each is a roll-up row a day, for every key and member, which every report reads.
pub const MOST_RESOURCES: usize = 100;

/// For how long a key is remembered, at least: DynamoDB removes the row some time after.
const REMEMBERED: Millis = 32 * 24 * 60 * 60 * 1000;

/// What makes a record happen once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordKey {
    /// Hash of caller and key.
    pub id: String,
    /// What tells this record from another one under the same key.
    pub fingerprint: String,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnRecorded {
    /// It was made, as this.
    Now(Box<UsageEvent>),
    /// It had been made before, as this.
    Before(Box<UsageEvent>),
    /// The key stands for another record.
    Reused,
    /// The tenant has [`MOST_RESOURCES`] others this month.
    TooMany,
}

impl Store {
    /// Writes the record of `event` and adds it to the roll-ups, once for a `key`. The event's id is new.
    ///
    /// # Errors
    /// [`StoreError`]; it may have been written, and with the same key trying again is safe.
    pub async fn record_own_usage(
        &self,
        scope: &TenantScope,
        event: UsageEvent,
        key: Option<&RecordKey>,
    ) -> Result<OwnRecorded> {
        let mut writes = self.usage_writes(scope, &[&event])?;
        if let Some(key) = key {
            writes.insert(0, self.remember(scope, &event, key)?);
        }
        let may_be_new = !self.is_own_resource(scope, &event).await?;
        if may_be_new {
            writes.push(self.name_resource(scope, &event)?);
        }
        match self.transact_apart(writes).await? {
            Transacted::Done => {
                self.note_key_uses(scope, std::slice::from_ref(&event)).await;
                Ok(OwnRecorded::Now(Box::new(event)))
            }
            Transacted::Refused(refused) => match (key, refused.first(), refused.last()) {
                // When the key is gone again, its time was up this very moment.
                (Some(key), Some(true), _) => self.own_usage_recorded(scope, key).await?.ok_or(StoreError::Contention),
                (_, _, Some(true)) if may_be_new => Ok(OwnRecorded::TooMany),
                // Nobody else has its id: an earlier try of the same write was applied, and its answer lost.
                _ => Ok(OwnRecorded::Now(Box::new(event))),
            },
        }
    }

    /// What became of the record that was made with `key`: as this, or as another one. None when none was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_usage_recorded(&self, scope: &TenantScope, key: &RecordKey) -> Result<Option<OwnRecorded>> {
        let Some(row) = self.get(&keys::recorded(scope, &key.id), true).await? else { return Ok(None) };
        let reader = Reader(&row);
        if reader.text("fingerprint")? != key.fingerprint {
            return Ok(Some(OwnRecorded::Reused));
        }
        let (period, id) = (reader.parsed("period")?, reader.parsed::<RequestId>("record")?);
        let record = self.usage_record(scope, period, &id).await?;
        let record = record.ok_or_else(|| reader.corrupt("has lost its record"))?;
        Ok(Some(OwnRecorded::Before(Box::new(record))))
    }

    /// Whether the tenant has recorded this resource in this month. A stale read may say no; a yes is for good.
    async fn is_own_resource(&self, scope: &TenantScope, event: &UsageEvent) -> Result<bool> {
        let known = self.get(&keys::own_resources(scope, event.period()), false).await?;
        let names = known.as_ref().and_then(|row| row.get("names")).and_then(|names| names.as_ss().ok());
        Ok(names.is_some_and(|names| names.contains(&event.model)))
    }

    fn name_resource(&self, scope: &TenantScope, event: &UsageEvent) -> Result<TransactWriteItem> {
        let update = self
            .update(&keys::own_resources(scope, event.period()))
            .update_expression("ADD #names :names")
            .condition_expression("attribute_not_exists(pk) OR contains(#names, :name) OR size(#names) < :most")
            .expression_attribute_names("#names", "names")
            .expression_attribute_values(":names", AttributeValue::Ss(vec![event.model.clone()]))
            .expression_attribute_values(":name", AttributeValue::S(event.model.clone()))
            .expression_attribute_values(":most", n(MOST_RESOURCES));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    fn remember(&self, scope: &TenantScope, event: &UsageEvent, key: &RecordKey) -> Result<TransactWriteItem> {
        let row = NewItem::at(&keys::recorded(scope, &key.id))
            .text("fingerprint", &key.fingerprint)
            .text("record", event.id.as_str())
            .text("period", event.period().to_string())
            .number(TTL, (self.now() + REMEMBERED).div_euclid(1000));
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(row.build()))
            .condition_expression("attribute_not_exists(pk)");
        Ok(TransactWriteItem::builder().put(build(put.build())?).build())
    }
}
