//! API keys: two rows each, one in the tenant's list and one under the secret's hash; and a third under the hash of
//! the secret before, while that one is still good after a rotation. What decides about a key stands in all of them and
//! is changed in one transaction.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use tenantry_domain::{
    KeyId, Millis, UserId,
    budget::Budgets,
    plans::Limit,
    roles::{KeyScopes, Role},
    secret::{ApiKeySecret, TEST_PREFIX},
    usage::UsageEvent,
};

use crate::{
    NewAudit, Page, Store, TenantScope,
    budgets::{BUDGET, budgets_value, read_budgets},
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys,
    organizations::DELETES_AT,
    table::TTL,
    version::{Changed, Precondition, VERSION, Version},
};

/// How long an authenticated key is believed without a look at the table, in milliseconds: also how
/// long a revoked key still works in a process that did not revoke it.
pub(crate) const CACHE_FOR: Millis = 30_000;

/// How many keys are remembered.
const CACHE_CAPACITY: usize = 10_000;

/// A use of a key is noted when the last note is this old: it costs a write.
const USE_NOTED_EVERY: Millis = 3_600_000;

/// How often a change is tried while others change the same key.
const TRIES: usize = 5;

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
    /// What it may be used for.
    pub scopes: KeyScopes,
    /// From when it is not good any more.
    pub expires_at: Option<Millis>,
    /// Not good, until somebody switches it on again.
    pub disabled: bool,
    /// Until when the secret before the last rotation is good; in a look-up by that secret, until when this one is.
    pub previous_until: Option<Millis>,
    /// A time of its last use that is at most about an hour too early. Not known in a look-up by the secret.
    pub last_used_at: Option<Millis>,
    /// Its own limits.
    pub budgets: Budgets,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: Millis,
    /// Which state this is.
    pub version: Version,
}

impl ApiKey {
    /// Whether it is for test mode.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.prefix.starts_with(TEST_PREFIX)
    }
}

/// A key to be created.
pub struct NewApiKey<'a> {
    /// Its public name.
    pub id: &'a KeyId,
    /// Name for people.
    pub name: &'a str,
    /// The secret, of which only the hash is stored.
    pub secret: &'a ApiKeySecret,
    /// What it may be used for.
    pub scopes: KeyScopes,
    /// From when it is not good any more.
    pub expires_at: Option<Millis>,
    /// Its own limits.
    pub budgets: Budgets,
    /// Who makes it.
    pub created_by: &'a UserId,
}

/// What is changed about a key; what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct ApiKeyChange {
    /// The new name.
    pub name: Option<String>,
    /// The new scopes.
    pub scopes: Option<KeyScopes>,
    /// The new end, or none any more.
    pub expires_at: Option<Option<Millis>>,
    /// Whether it is switched off.
    pub disabled: Option<bool>,
    /// The new limits, all of them.
    pub budgets: Option<Budgets>,
}

/// A key as a look-up by a secret found it, and until when that secret is good.
#[derive(Clone)]
struct Found {
    key: ApiKey,
    read_at: Millis,
}

impl Found {
    /// Ends are kept to the millisecond, however long ago the row was read.
    fn is_good(&self, now: Millis) -> bool {
        let past = |end: Option<Millis>| end.is_some_and(|end| end <= now);
        !self.key.disabled && !past(self.key.expires_at) && !past(self.key.previous_until)
    }
}

#[derive(Default)]
pub(crate) struct KeyCache {
    found: Mutex<HashMap<String, Found>>,
    /// When the use of a key was last noted by this process.
    noted: Mutex<HashMap<KeyId, Millis>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyCache {
    fn forget<'a>(&self, hashes: impl IntoIterator<Item = &'a str>) {
        let mut found = lock(&self.found);
        for hash in hashes {
            found.remove(hash);
        }
    }
}

/// A key's row in the list, with the hashes that lead to its other rows.
struct Listed {
    key: ApiKey,
    hash: String,
    /// The hash of the secret before, whether that one is still good or not.
    previous: Option<String>,
}

impl Listed {
    /// The rows by secret that count at `now`.
    fn lookups(&self, now: Millis) -> impl Iterator<Item = &str> {
        let previous = self.previous.as_deref().filter(|_| self.key.previous_until.is_some_and(|end| end > now));
        [self.hash.as_str()].into_iter().chain(previous)
    }

    fn hashes(&self) -> impl Iterator<Item = &str> {
        [self.hash.as_str()].into_iter().chain(self.previous.as_deref())
    }
}

impl Store {
    /// Creates a key, unless the tenant has `limit` already or is being deleted: then `None`, and nothing was written.
    ///
    /// # Errors
    /// [`StoreError`]; `ActorChanged` when the person of the audit row does not manage keys any more.
    pub async fn create_api_key(
        &self,
        scope: &TenantScope,
        new: &NewApiKey<'_>,
        limit: Limit,
        audit: Option<&NewAudit<'_>>,
    ) -> Result<Option<ApiKey>> {
        let hash = new.secret.hash();
        let key = ApiKey {
            id: new.id.clone(),
            scope: scope.clone(),
            name: new.name.to_owned(),
            prefix: new.secret.prefix().to_owned(),
            last4: new.secret.last4().to_owned(),
            scopes: new.scopes,
            expires_at: new.expires_at,
            disabled: false,
            previous_until: None,
            last_used_at: None,
            budgets: new.budgets.clone(),
            created_by: new.created_by.clone(),
            created_at: self.now(),
            version: Version::FIRST,
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
        let lives = format!("attribute_exists(pk) AND attribute_not_exists({DELETES_AT})");
        count = match limit {
            Limit::Of(limit) => count
                .condition_expression(format!("{lives} AND #keys < :limit"))
                .expression_attribute_values(":limit", n(limit)),
            Limit::Unlimited => count.condition_expression(lives),
        };
        writes.push(TransactWriteItem::builder().update(build(count.build())?).build());
        let transacted = match audit {
            Some(audit) => self.transact_as(scope, Role::Admin, writes, audit).await?,
            None => self.transact(writes).await?,
        };
        match transacted {
            Transacted::Done => Ok(Some(key)),
            Transacted::Refused(_) => Ok(None),
        }
    }

    /// The key that this secret belongs to, if it is good now; from memory when it was asked for within half a minute.
    /// A key of an organization that is being deleted is not good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key_by_secret(&self, secret: &ApiKeySecret) -> Result<Option<ApiKey>> {
        let hash = secret.hash();
        let now = self.now();
        if let Some(found) = lock(&self.key_cache.found).get(&hash)
            && (0..CACHE_FOR).contains(&(now - found.read_at))
        {
            return Ok(found.is_good(now).then(|| found.key.clone()));
        }
        let Some(stored) = self.get(&keys::api_key_lookup(&hash), false).await? else {
            self.key_cache.forget([hash.as_str()]);
            return Ok(None);
        };
        let key = read_key(&stored)?;
        // Half a read unit each half a minute, so that a deletion counts for all keys in its one write.
        let organization = self.get(&keys::organization(&key.scope), false).await?;
        let Some(organization) = organization.filter(|organization| !organization.contains_key(DELETES_AT)) else {
            self.key_cache.forget([hash.as_str()]);
            return Ok(None);
        };
        // Never older than the key: who has the key in memory needs no other look for budgets.
        self.budget_cache.learn(key.scope.org(), &organization, now)?;
        let found = Found { key, read_at: now };
        let good = found.is_good(now).then(|| found.key.clone());
        let mut cache = lock(&self.key_cache.found);
        if cache.len() >= CACHE_CAPACITY {
            cache.clear();
        }
        cache.insert(hash, found);
        Ok(good)
    }

    /// The tenant's keys, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_keys(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<ApiKey>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::API_KEY_PREFIX));
        let range =
            Range { cursor, limit: limit.into(), consistent: true, ..Range::between(&pk, keys::API_KEY_PREFIX, &to) };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_key).collect::<Result<_>>()?, next })
    }

    /// One key of the tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key(&self, scope: &TenantScope, id: &KeyId) -> Result<Option<ApiKey>> {
        Ok(self.listed_key(scope, id).await?.map(|listed| listed.key))
    }

    /// Changes a key, for all its secrets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_api_key(
        &self,
        scope: &TenantScope,
        id: &KeyId,
        change: &ApiKeyChange,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<ApiKey>> {
        let mut changes = vec![];
        changes.extend(change.name.as_deref().map(|name| ("name", Some(s(name)))));
        changes.extend(change.scopes.map(|scopes| ("scopes", Some(s(scopes.words())))));
        changes.extend(change.expires_at.map(|expires_at| ("expires_at", expires_at.map(n))));
        changes.extend(change.budgets.as_ref().map(|budgets| (BUDGET, budgets_value(budgets))));
        changes.extend(change.disabled.map(|disabled| ("disabled", Some(AttributeValue::Bool(disabled)))));
        for _ in 0..TRIES {
            let Some(listed) = self.listed_key(scope, id).await? else { return Ok(Changed::Missing) };
            let mut writes = vec![];
            let row = self.same_secret(&listed, &keys::api_key(scope, id), expected, &changes);
            writes.push(TransactWriteItem::builder().update(build(row.build())?).build());
            for hash in listed.lookups(self.now()) {
                let row = self.versioned_update(&keys::api_key_lookup(hash), &Precondition::Any, &changes);
                writes.push(TransactWriteItem::builder().update(build(row.build())?).build());
            }
            if matches!(self.transact_as(scope, Role::Admin, writes, audit).await?, Transacted::Done) {
                self.key_cache.forget(listed.hashes());
                return self.changed_key(scope, id).await;
            }
            if !expected.holds(listed.key.version) {
                return Ok(Changed::Stale);
            }
        }
        Err(StoreError::Contention)
    }

    /// Gives a key a new secret. The one it has stays good until `previous_until`, or not at all; one before that
    /// ends now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_api_key(
        &self,
        scope: &TenantScope,
        id: &KeyId,
        secret: &ApiKeySecret,
        previous_until: Option<Millis>,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<ApiKey>> {
        let hash = secret.hash();
        for _ in 0..TRIES {
            let Some(listed) = self.listed_key(scope, id).await? else { return Ok(Changed::Missing) };
            let changes = [
                ("hash", Some(s(&hash))),
                ("prefix", Some(s(secret.prefix()))),
                ("last4", Some(s(secret.last4()))),
                ("previous_hash", previous_until.map(|_| s(&listed.hash))),
                ("previous_until", previous_until.map(n)),
            ];
            let row = self.same_secret(&listed, &keys::api_key(scope, id), expected, &changes);
            let mut writes = vec![TransactWriteItem::builder().update(build(row.build())?).build()];
            let renewed = ApiKey {
                prefix: secret.prefix().to_owned(),
                last4: secret.last4().to_owned(),
                previous_until: None,
                ..listed.key.clone()
            };
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(key_item(&keys::api_key_lookup(&hash), &renewed, &hash)))
                .condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
            if let Some(until) = previous_until {
                let ends = [("previous_until", Some(n(until))), (TTL, Some(n(until.div_euclid(1000) + DAY_SECONDS)))];
                let row = self.versioned_update(&keys::api_key_lookup(&listed.hash), &Precondition::Any, &ends);
                writes.push(TransactWriteItem::builder().update(build(row.build())?).build());
            } else {
                writes.push(self.forget_lookup(&listed.hash)?);
            }
            if let Some(previous) = &listed.previous {
                writes.push(self.forget_lookup(previous)?);
            }
            if matches!(self.transact_as(scope, Role::Admin, writes, audit).await?, Transacted::Done) {
                self.key_cache.forget(listed.hashes());
                return self.changed_key(scope, id).await;
            }
            if !expected.holds(listed.key.version) {
                return Ok(Changed::Stale);
            }
        }
        Err(StoreError::Contention)
    }

    /// Revokes a key of this tenant, with all its secrets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_api_key(
        &self,
        scope: &TenantScope,
        id: &KeyId,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<()>> {
        let key = keys::api_key(scope, id);
        for _ in 0..TRIES {
            let Some(listed) = self.listed_key(scope, id).await? else { return Ok(Changed::Missing) };
            let row = self
                .versioned_delete(&key, expected)
                .condition_expression(format!("{} AND #hash = :hash", expected.condition()))
                .expression_attribute_names("#hash", "hash")
                .expression_attribute_values(":hash", s(&listed.hash));
            let mut writes = vec![TransactWriteItem::builder().delete(build(row.build())?).build()];
            for hash in listed.hashes() {
                writes.push(self.forget_lookup(hash)?);
            }
            let count = self
                .update(&keys::organization(scope))
                .update_expression("SET #keys = #keys - :one")
                .expression_attribute_names("#keys", "keys")
                .expression_attribute_values(":one", n(1));
            writes.push(TransactWriteItem::builder().update(build(count.build())?).build());
            let done = matches!(self.transact_as(scope, Role::Admin, writes, audit).await?, Transacted::Done);
            self.key_cache.forget(listed.hashes());
            if done {
                return Ok(Changed::Done(()));
            }
            if !expected.holds(listed.key.version) {
                return Ok(Changed::Stale);
            }
        }
        Err(StoreError::Contention)
    }

    /// Notes when keys were last used, at most once in an hour for each key and process: the usage events say it
    /// anyway, so no call waits for it.
    pub(crate) async fn note_key_uses(&self, scope: &TenantScope, events: &[UsageEvent]) {
        let mut uses: HashMap<&KeyId, Millis> = HashMap::new();
        for event in events {
            if let Some(key) = &event.key {
                let at = uses.entry(key).or_insert(event.at);
                *at = event.at.max(*at);
            }
        }
        for (key, at) in uses {
            {
                let mut noted = lock(&self.key_cache.noted);
                if noted.get(key).is_some_and(|before| at - before < USE_NOTED_EVERY) {
                    continue;
                }
                if noted.len() >= CACHE_CAPACITY {
                    noted.clear();
                }
                noted.insert(key.clone(), at);
            }
            let note = self
                .db
                .update_item()
                .table_name(&*self.table)
                .set_key(Some(keys::api_key(scope, key).attributes()))
                .update_expression("SET last_used_at = :at")
                .condition_expression(
                    "attribute_exists(pk) AND (attribute_not_exists(last_used_at) OR last_used_at < :at)",
                )
                .expression_attribute_values(":at", n(at));
            // A failed condition: revoked meanwhile, or noted by another process. And no note is worth a batch that is
            // delivered again.
            if let Err(error) = note.send().await
                && let Err(error) = crate::meter::failed_condition(error)
            {
                tracing::warn!(%key, %error, "the use of a key was not noted");
            }
        }
    }

    async fn listed_key(&self, scope: &TenantScope, id: &KeyId) -> Result<Option<Listed>> {
        let Some(stored) = self.get(&keys::api_key(scope, id), true).await? else { return Ok(None) };
        let reader = Reader(&stored);
        let (hash, previous) = (reader.text("hash")?.to_owned(), reader.optional_text("previous_hash")?);
        Ok(Some(Listed { key: read_key(&stored)?, hash, previous: previous.map(ToOwned::to_owned) }))
    }

    async fn changed_key(&self, scope: &TenantScope, id: &KeyId) -> Result<Changed<ApiKey>> {
        // None: revoked by somebody else right after.
        Ok(self.listed_key(scope, id).await?.map_or(Changed::Missing, |listed| Changed::Done(listed.key)))
    }

    /// The change of a key's row in the list, on the condition that its secrets are those that were seen.
    fn same_secret(
        &self,
        listed: &Listed,
        key: &keys::Key,
        expected: &Precondition,
        changes: &[(&str, Option<AttributeValue>)],
    ) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
        self.versioned_update(key, expected, changes)
            .condition_expression(format!("{} AND #seen = :seen", expected.condition()))
            .expression_attribute_names("#seen", "hash")
            .expression_attribute_values(":seen", s(&listed.hash))
    }

    fn forget_lookup(&self, hash: &str) -> Result<TransactWriteItem> {
        let delete = Delete::builder().table_name(&*self.table);
        let delete = delete.set_key(Some(keys::api_key_lookup(hash).attributes()));
        Ok(TransactWriteItem::builder().delete(build(delete.build())?).build())
    }
}

const DAY_SECONDS: i64 = 24 * 3600;

fn key_item(at: &keys::Key, key: &ApiKey, hash: &str) -> Item {
    let mut item = NewItem::at(at)
        .text("org", key.scope.org().as_str())
        .text("api_key", key.id.as_str())
        .text("name", &key.name)
        .text("prefix", &key.prefix)
        .text("last4", &key.last4)
        .text("hash", hash)
        .text("scopes", key.scopes.words())
        .set("disabled", AttributeValue::Bool(key.disabled))
        .text("created_by", key.created_by.as_str())
        .number("created_at", key.created_at)
        .number(VERSION, key.version.number());
    if let Some(budget) = budgets_value(&key.budgets) {
        item = item.set(BUDGET, budget);
    }
    if let Some(expires_at) = key.expires_at {
        item = item.number("expires_at", expires_at);
    }
    item.build()
}

pub(crate) fn read_key(item: &Item) -> Result<ApiKey> {
    let reader = Reader(item);
    let scopes = match reader.optional_text("scopes")? {
        // Written before there were scopes.
        None => KeyScopes::default(),
        Some(words) => KeyScopes::parse(words).ok_or_else(|| reader.corrupt("unknown scope"))?,
    };
    Ok(ApiKey {
        budgets: read_budgets(item)?,
        id: reader.parsed("api_key")?,
        scope: TenantScope::of_key(reader.parsed("org")?),
        name: reader.text("name")?.to_owned(),
        prefix: reader.text("prefix")?.to_owned(),
        last4: reader.text("last4")?.to_owned(),
        scopes,
        expires_at: reader.optional_number("expires_at")?,
        disabled: reader.flag("disabled"),
        previous_until: reader.optional_number("previous_until")?,
        last_used_at: reader.optional_number("last_used_at")?,
        created_by: reader.parsed("created_by")?,
        created_at: reader.number("created_at")?,
        version: Version::read(&reader)?,
    })
}
