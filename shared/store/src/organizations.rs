//! Organizations and who belongs to them.

use tenantry_domain::{Millis, OrgId, UserId, roles::Role};

use crate::{
    Store, TenantScope,
    db::{Range, prefix_end},
    error::Result,
    item::{Item, Reader},
    keys,
};

/// An organization as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// The tenant.
    pub id: OrgId,
    /// Name for people.
    pub name: String,
    /// When it was created.
    pub created_at: Millis,
}

/// A user's place in an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The organization.
    pub org: OrgId,
    /// The role in it.
    pub role: Role,
}

impl Store {
    /// The organization, `None` when it is gone.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn organization(&self, scope: &TenantScope) -> Result<Option<Organization>> {
        self.get(&keys::organization(scope), false).await?.map(|item| read_organization(&item)).transpose()
    }

    /// The organizations of a user, oldest first.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>> {
        let pk = keys::user_partition(user);
        let to = prefix_end(keys::USER_ORG_PREFIX);
        let range = Range { consistent: true, ..Range::between(&pk, keys::USER_ORG_PREFIX, &to) };
        self.all(range).await?.iter().map(read_membership).collect()
    }

    /// The user's place in `org`, `None` when there is none (any more).
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn membership(&self, user: &UserId, org: &OrgId) -> Result<Option<Membership>> {
        self.get(&keys::user_org(user, org), true).await?.map(|item| read_membership(&item)).transpose()
    }
}

fn read_organization(item: &Item) -> Result<Organization> {
    let reader = Reader(item);
    Ok(Organization {
        id: reader.parsed("org")?,
        name: reader.text("name")?.to_owned(),
        created_at: reader.number("created_at")?,
    })
}

fn read_membership(item: &Item) -> Result<Membership> {
    let reader = Reader(item);
    let role = Role::parse(reader.text("role")?).ok_or_else(|| reader.corrupt("unknown role"))?;
    Ok(Membership { org: reader.parsed("org")?, role })
}
