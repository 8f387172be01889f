//! Organizations and who belongs to them.

use tenantry_domain::{Millis, OrgId, UserId, roles::Role};

use crate::{
    Page, Store, TenantScope,
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

/// An organization as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOf {
    /// The organization.
    pub organization: Organization,
    /// The member's role in it.
    pub role: Role,
    scope: TenantScope,
}

impl MemberOf {
    /// The organization's scope, which the membership row proves the member's right to.
    #[must_use]
    pub const fn scope(&self) -> &TenantScope {
        &self.scope
    }
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

    /// `org` as its member `user` sees it. `None` when the user does not belong to it, which is also the
    /// answer for one that never existed.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn organization_of(&self, user: &UserId, org: &OrgId) -> Result<Option<MemberOf>> {
        match self.membership(user, org).await? {
            Some(membership) => self.as_member(membership).await,
            None => Ok(None),
        }
    }

    /// The organizations that `user` belongs to, oldest first.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn organizations_of(&self, user: &UserId, limit: u16, cursor: Option<&str>) -> Result<Page<MemberOf>> {
        let (pk, to) = (keys::user_partition(user), prefix_end(keys::USER_ORG_PREFIX));
        let between = Range::between(&pk, keys::USER_ORG_PREFIX, &to);
        let (items, next) = self.page_ahead(Range { cursor, limit: limit.into(), consistent: true, ..between }).await?;
        let mut organizations = vec![];
        for item in &items {
            // A membership whose organization is being deleted is not shown.
            organizations.extend(self.as_member(read_membership(item)?).await?);
        }
        Ok(Page { items: organizations, next })
    }

    async fn as_member(&self, membership: Membership) -> Result<Option<MemberOf>> {
        let scope = TenantScope::of_membership(&membership);
        // Consistent: right after registering, an answer without the organization would be wrong.
        let stored = self.get(&keys::organization(&scope), true).await?;
        let organization = stored.map(|item| read_organization(&item)).transpose()?;
        Ok(organization.map(|organization| MemberOf { organization, role: membership.role, scope }))
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
