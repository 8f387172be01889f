//! Erasure: what is left of a deleted organization when its grace is over, which is nothing.
//!
//! Rows elsewhere that name the organization go before the row that leads to them, then the tenant's own partition,
//! then the organization, and its entry in the register last. So an erasure that was cut off is found by the next walk
//! over the register and goes on where it was; doing it twice, or at the same time as itself, is harmless.

use aws_sdk_dynamodb::types::{Delete, TransactWriteItem};
use tenantry_domain::UserId;

use crate::{
    Store, TenantScope, TimeIsUp,
    db::{Range, Transacted, build},
    error::Result,
    item::{Item, Reader, n},
    keys::{self, Key},
    meter::failed_condition,
    organizations::{DELETES_AT, ERASING},
};

/// Rows that are deleted in one transaction; DynamoDB takes 100 writes.
const AT_ONCE: i32 = 90;

/// How far an erasure got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// The organization lives, or its grace is not over.
    NotDue,
    /// Nothing is left of it.
    All,
    /// There was not enough time; going on is the same call again.
    Unfinished,
}

impl Store {
    /// Erases the tenant, if its organization was deleted and its grace is over.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); a part may have been erased, and the next call goes on.
    pub async fn erase_if_due(&self, scope: &TenantScope, time_is_up: TimeIsUp<'_>) -> Result<Erased> {
        if !self.begin_erasure_if_due(scope).await? {
            return Ok(Erased::NotDue);
        }
        let organization = keys::organization(scope);
        let pk = keys::tenant(scope);
        loop {
            // Always from the start: what was deleted is gone.
            let range = Range { limit: AT_ONCE, consistent: true, ..Range::between(&pk, " ", "\u{7f}") };
            let (items, next) = self.page(range).await?;
            let rest: Vec<_> = items.into_iter().filter(|item| !is_at(item, &organization)).collect();
            for item in &rest {
                self.erase_elsewhere(scope, item).await?;
            }
            self.erase_rows(rest.iter().map(key_of)).await?;
            if next.is_none() {
                break;
            }
            if time_is_up() {
                return Ok(Erased::Unfinished);
            }
        }
        self.erase_rows([Ok(organization)]).await?;
        self.erase_rows([Ok(keys::registered(scope.org()))]).await?;
        tracing::info!(org = %scope.org(), "a deleted organization was erased");
        Ok(Erased::All)
    }

    /// Whether the tenant is to be erased now. If so, nobody can bring it back from here on; what has to be done elsewhere
    /// before its data go can be done now.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn begin_erasure_if_due(&self, scope: &TenantScope) -> Result<bool> {
        let organization = keys::organization(scope);
        let mut stored = self.get(&organization, false).await?;
        if stored.is_none() {
            // The register may show a tenant of this very moment before a stale read shows its organization.
            stored = self.get(&organization, true).await?;
        }
        // Without the organization an erasure was cut off before its last step.
        let Some(stored) = stored else { return Ok(true) };
        let due = Reader(&stored).optional_number::<i64>(DELETES_AT)?.is_some_and(|at| at <= self.now());
        Ok(due && self.begin_erasure(&organization).await?)
    }

    /// From here on nobody can bring it back. `false` when somebody did.
    async fn begin_erasure(&self, organization: &Key) -> Result<bool> {
        let mark = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(organization.attributes()))
            .update_expression(format!("SET {ERASING} = :now"))
            .condition_expression(format!("{DELETES_AT} <= :now"))
            .expression_attribute_values(":now", n(self.now()));
        match mark.send().await {
            Ok(_) => Ok(true),
            Err(error) => failed_condition(error).map(|_| false),
        }
    }

    /// Rows in other partitions that a row of the tenant leads to.
    async fn erase_elsewhere(&self, scope: &TenantScope, item: &Item) -> Result<()> {
        let reader = Reader(item);
        let sort_key = reader.text(keys::SK)?;
        if sort_key.starts_with(keys::API_KEY_PREFIX) {
            let hashes = [reader.optional_text("hash")?, reader.optional_text("previous_hash")?];
            let lookups: Vec<_> = hashes.into_iter().flatten().map(|hash| Ok(keys::api_key_lookup(hash))).collect();
            return self.erase_rows(lookups).await;
        }
        if sort_key == keys::METER {
            for number in 1..crate::meter::read_meter(item)?.shards.made {
                let pk = keys::meter_partition(scope, number);
                self.erase_partition(&pk).await?;
            }
            return Ok(());
        }
        if let (keys::ACCOUNT, Some(customer)) = (sort_key, reader.optional_text("customer")?) {
            return self.erase_rows([Ok(keys::customer(customer))]).await;
        }
        if sort_key.starts_with(keys::ORDER_PREFIX) {
            let order = crate::orders::read_order(item)?;
            return self
                .erase_rows([Ok(keys::order_owner(&order.id)), Ok(keys::order_due(&order.id, order.expires_at))])
                .await;
        }
        if sort_key.starts_with(keys::MEMBER_PREFIX) {
            let user: UserId = reader.parsed("user")?;
            self.end_sessions_in(scope, &user).await?;
            return self.erase_rows([Ok(keys::user_org(&user, scope.org()))]).await;
        }
        Ok(())
    }

    /// A shard of the meter: itself, and a row for every month.
    async fn erase_partition(&self, pk: &str) -> Result<()> {
        loop {
            let range = Range { limit: AT_ONCE, consistent: true, ..Range::between(pk, " ", "\u{7f}") };
            let (items, next) = self.page(range).await?;
            self.erase_rows(items.iter().map(key_of)).await?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn erase_rows(&self, rows: impl IntoIterator<Item = Result<Key>>) -> Result<()> {
        let mut writes = vec![];
        for key in rows {
            let delete = Delete::builder().table_name(&*self.table).set_key(Some(key?.attributes()));
            writes.push(TransactWriteItem::builder().delete(build(delete.build())?).build());
        }
        if writes.is_empty() {
            return Ok(());
        }
        match self.transact(writes).await? {
            // There are no conditions.
            Transacted::Done | Transacted::Refused(_) => Ok(()),
        }
    }
}

fn key_of(item: &Item) -> Result<Key> {
    let reader = Reader(item);
    Ok(Key { pk: reader.text(keys::PK)?.to_owned(), sk: reader.text(keys::SK)?.to_owned() })
}

fn is_at(item: &Item, key: &Key) -> bool {
    item.get(keys::SK).and_then(|sk| sk.as_s().ok()) == Some(&key.sk)
}
