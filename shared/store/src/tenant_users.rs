//! Tenant users: the end customers of a tenant, by a name that is unique inside it. The name is the key, so
//! of two who take one name at once, one gets it.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{Millis, TenantUserId, Username, roles::Role};

use crate::{
    NewAudit, Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::Result,
    item::{Item, NewItem, Reader, s},
    keys,
    version::{Changed, Precondition, VERSION, Version},
};

/// A tenant user as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantUser {
    /// The person; unlike the name it is never given again.
    pub id: TenantUserId,
    /// The name they sign in with.
    pub username: Username,
    /// Argon2id in PHC string format; none for one who cannot sign in with a password.
    pub password_hash: Option<String>,
    /// Name for people.
    pub display_name: Option<String>,
    /// What the tenant keeps there: a JSON object as text.
    pub metadata: Option<String>,
    /// May not sign in any more.
    pub disabled: bool,
    /// When they were created.
    pub created_at: Millis,
    /// Which state this is.
    pub version: Version,
}

/// What a tenant changes about one of its users; what is `None` stays as it is.
#[derive(Default)]
pub struct TenantUserChange {
    /// The new hash, or none any more.
    pub password_hash: Option<Option<String>>,
    /// The new name for people, or none any more.
    pub display_name: Option<Option<String>>,
    /// The new JSON object, or none any more.
    pub metadata: Option<Option<String>>,
    /// Whether they may sign in.
    pub disabled: Option<bool>,
}

impl Store {
    /// Creates a tenant user. `false` when the name is taken; then nothing was written.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn create_tenant_user(
        &self,
        scope: &TenantScope,
        user: &TenantUser,
        audit: &NewAudit<'_>,
    ) -> Result<bool> {
        let item = NewItem::at(&keys::tenant_user(scope, &user.username))
            .text("org", scope.org().as_str())
            .text("tenant_user", user.id.as_str())
            .text("username", user.username.as_str())
            .optional("password_hash", user.password_hash.as_deref())
            .optional("display_name", user.display_name.as_deref())
            .optional("metadata", user.metadata.as_deref())
            .set("disabled", AttributeValue::Bool(user.disabled))
            .number("created_at", user.created_at)
            .number(VERSION, user.version.number());
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(item.build()))
            .condition_expression("attribute_not_exists(pk)");
        let put = TransactWriteItem::builder().put(build(put.build())?).build();
        // None is created in an organization that is on its way out: the erasure would not wait for it.
        let writes = vec![put, self.organization_lives(scope)?];
        Ok(matches!(self.transact_as(scope, Role::Admin, writes, audit).await?, Transacted::Done))
    }

    /// The tenant user of this name.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn tenant_user(&self, scope: &TenantScope, username: &Username) -> Result<Option<TenantUser>> {
        self.get(&keys::tenant_user(scope, username), true).await?.map(|item| read_tenant_user(&item)).transpose()
    }

    /// The tenant's users by name.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn tenant_users(
        &self,
        scope: &TenantScope,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<TenantUser>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::TENANT_USER_PREFIX));
        let between = Range::between(&pk, keys::TENANT_USER_PREFIX, &to);
        let (items, next) = self.page_ahead(Range { cursor, limit: limit.into(), consistent: true, ..between }).await?;
        Ok(Page { items: items.iter().map(read_tenant_user).collect::<Result<_>>()?, next })
    }

    /// Changes a tenant user.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn change_tenant_user(
        &self,
        scope: &TenantScope,
        username: &Username,
        change: &TenantUserChange,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<TenantUser>> {
        let key = keys::tenant_user(scope, username);
        let mut changes = vec![];
        for (name, value) in [
            ("password_hash", &change.password_hash),
            ("display_name", &change.display_name),
            ("metadata", &change.metadata),
        ] {
            changes.extend(value.as_ref().map(|value| (name, value.as_deref().map(s))));
        }
        changes.extend(change.disabled.map(|disabled| ("disabled", Some(AttributeValue::Bool(disabled)))));
        let update = self.versioned_update(&key, expected, &changes);
        let update = TransactWriteItem::builder().update(build(update.build())?).build();
        match self.transact_as(scope, Role::Admin, vec![update], audit).await? {
            Transacted::Done => {
                let stored = self.get(&key, true).await?;
                // Deleted by somebody else right after.
                stored.map_or(Ok(Changed::Missing), |item| read_tenant_user(&item).map(Changed::Done))
            }
            Transacted::Refused(_) => Ok(self.why_changed_refused(&key, expected).await?),
        }
    }

    /// Deletes a tenant user. The name may be taken again, by somebody with another id.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn delete_tenant_user(
        &self,
        scope: &TenantScope,
        username: &Username,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<()>> {
        let key = keys::tenant_user(scope, username);
        let delete = self.versioned_delete(&key, expected);
        let delete = TransactWriteItem::builder().delete(build(delete.build())?).build();
        match self.transact_as(scope, Role::Admin, vec![delete], audit).await? {
            Transacted::Done => Ok(Changed::Done(())),
            Transacted::Refused(_) => self.why_changed_refused(&key, expected).await,
        }
    }
}

pub(crate) fn read_tenant_user(item: &Item) -> Result<TenantUser> {
    let reader = Reader(item);
    let text = |name| reader.optional_text(name).map(|text| text.map(ToOwned::to_owned));
    Ok(TenantUser {
        id: reader.parsed("tenant_user")?,
        username: reader.parsed("username")?,
        password_hash: text("password_hash")?,
        display_name: text("display_name")?,
        metadata: text("metadata")?,
        disabled: reader.flag("disabled"),
        created_at: reader.number("created_at")?,
        version: Version::read(&reader)?,
    })
}
