//! API keys: two rows each, one in the tenant's list and one under the secret's hash.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};
use tenantry_domain::{KeyId, Millis, UserId, plans::Limit, secret::ApiKeySecret};

use crate::{
    Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::Result,
    item::{Item, NewItem, Reader, n},
    keys,
};

/// How long an authenticated key is believed without a look at the table, in milliseconds: also how
/// long a revoked key still works in a process that did not revoke it.
const CACHE_FOR: Millis = 30_000;

/// How many keys are remembered.
const CACHE_CAPACITY: usize = 10_000;

/// An API key as stored. The secret is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's public name.
    pub id: KeyId,
    /// The tenant it acts for.
    pub scope: TenantScope,
    /// Name for people.
    pub name: String,
    /// First characters of the secret.
    pub prefix: String,
    /// Last four characters of the secret.
    pub last4: String,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: Millis,
}

/// A key to be created.
pub struct NewApiKey<'a> {
    /// Its public name.
    pub id: &'a KeyId,
    /// Name for people.
    pub name: &'a str,
    /// The secret, of which only the hash is stored.
    pub secret: &'a ApiKeySecret,
    /// Who makes it.
    pub created_by: &'a UserId,
}

#[derive(Default)]
pub(crate) struct KeyCache(Mutex<HashMap<String, (ApiKey, Millis)>>);

impl KeyCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (ApiKey, Millis)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Creates a key, unless the tenant has `limit` already: then `None`, and nothing was written.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn create_api_key(
        &self,
        scope: &TenantScope,
        new: &NewApiKey<'_>,
        limit: Limit,
    ) -> Result<Option<ApiKey>> {
        let hash = new.secret.hash();
        let key = ApiKey {
            id: new.id.clone(),
            scope: scope.clone(),
            name: new.name.to_owned(),
            prefix: new.secret.prefix().to_owned(),
            last4: new.secret.last4().to_owned(),
            created_by: new.created_by.clone(),
            created_at: self.now(),
        };
        let mut writes = vec![];
        for at in [keys::api_key(scope, new.id), keys::api_key_lookup(&hash)] {
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(key_item(&at, &key, &hash)))
                .condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        let mut count = self
            .update(&keys::organization(scope))
            .update_expression("SET #keys = #keys + :one")
            .expression_attribute_names("#keys", "keys")
            .expression_attribute_values(":one", n(1));
        count = match limit {
            Limit::Of(limit) => {
                count.condition_expression("#keys < :limit").expression_attribute_values(":limit", n(limit))
            }
            Limit::Unlimited => count.condition_expression("attribute_exists(pk)"),
        };
        writes.push(TransactWriteItem::builder().update(build(count.build())?).build());
        match self.transact(writes).await? {
            Transacted::Done => Ok(Some(key)),
            Transacted::Refused(_) => Ok(None),
        }
    }

    /// The key that this secret belongs to; from memory when it was asked for within half a minute.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn api_key_by_secret(&self, secret: &ApiKeySecret) -> Result<Option<ApiKey>> {
        let hash = secret.hash();
        let now = self.now();
        if let Some((key, read_at)) = self.key_cache.lock().get(&hash)
            && (0..CACHE_FOR).contains(&(now - read_at))
        {
            return Ok(Some(key.clone()));
        }
        let Some(stored) = self.get(&keys::api_key_lookup(&hash), false).await? else {
            self.key_cache.lock().remove(&hash);
            return Ok(None);
        };
        let key = read_key(&stored)?;
        let mut cache = self.key_cache.lock();
        if cache.len() >= CACHE_CAPACITY {
            cache.clear();
        }
        cache.insert(hash, (key.clone(), now));
        Ok(Some(key))
    }

    /// The tenant's keys, oldest first.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn api_keys(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<ApiKey>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::API_KEY_PREFIX));
        let range =
            Range { cursor, limit: limit.into(), consistent: true, ..Range::between(&pk, keys::API_KEY_PREFIX, &to) };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_key).collect::<Result<_>>()?, next })
    }

    /// Revokes a key of this tenant. `false` when it has no such key.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn revoke_api_key(&self, scope: &TenantScope, id: &KeyId) -> Result<bool> {
        let listed = keys::api_key(scope, id);
        let Some(stored) = self.get(&listed, true).await? else { return Ok(false) };
        let hash = Reader(&stored).text("hash")?.to_owned();
        let mut writes = vec![];
        for key in [&listed, &keys::api_key_lookup(&hash)] {
            let delete = Delete::builder()
                .table_name(&*self.table)
                .set_key(Some(key.attributes()))
                .condition_expression("attribute_exists(pk)");
            writes.push(TransactWriteItem::builder().delete(build(delete.build())?).build());
        }
        let count = self
            .update(&keys::organization(scope))
            .update_expression("SET #keys = #keys - :one")
            .expression_attribute_names("#keys", "keys")
            .expression_attribute_values(":one", n(1));
        writes.push(TransactWriteItem::builder().update(build(count.build())?).build());
        let done = matches!(self.transact(writes).await?, Transacted::Done);
        self.key_cache.lock().remove(&hash);
        Ok(done)
    }
}

fn key_item(at: &keys::Key, key: &ApiKey, hash: &str) -> Item {
    NewItem::at(at)
        .text("org", key.scope.org().as_str())
        .text("api_key", key.id.as_str())
        .text("name", &key.name)
        .text("prefix", &key.prefix)
        .text("last4", &key.last4)
        .text("hash", hash)
        .text("created_by", key.created_by.as_str())
        .number("created_at", key.created_at)
        .build()
}

fn read_key(item: &Item) -> Result<ApiKey> {
    let reader = Reader(item);
    Ok(ApiKey {
        id: reader.parsed("api_key")?,
        scope: TenantScope::of_key(reader.parsed("org")?),
        name: reader.text("name")?.to_owned(),
        prefix: reader.text("prefix")?.to_owned(),
        last4: reader.text("last4")?.to_owned(),
        created_by: reader.parsed("created_by")?,
        created_at: reader.number("created_at")?,
    })
}
