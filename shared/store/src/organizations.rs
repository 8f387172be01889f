//! Organizations, and how a person sees those they belong to.
//!
//! One that its owner has deleted is marked first, and erased when its grace is over (`erasure.rs`). While it is
//! marked it is gone for all but who may bring it back: its keys are unknown, its members' sessions end at their
//! next refresh, and nothing is added to it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{ConditionCheck, Put, TransactWriteItem};
use tenantry_domain::{Millis, OrgId, Period, UserId, budget::Budget, metering::Meter, plans::Plan, roles::Role};

use crate::{
    NewAudit, Page, Store, TenantScope,
    budgets::{MODEL_BUDGETS, models_value, read_model_budgets},
    db::{Range, Transacted, build, prefix_end},
    error::Result,
    item::{Item, NewItem, Reader, n, s},
    keys,
    meter::new_meter,
    version::{Changed, Precondition, VERSION, Version},
};

/// Set from the deletion by the owner on: when the erasure begins.
pub(crate) const DELETES_AT: &str = "deletes_at";

/// Set when the erasure has begun.
pub(crate) const ERASING: &str = "erasing";

/// Most organizations that one person may create beside their first: each has a plan of its own, and the first
/// plan is free.
const MOST_CREATED: u32 = 20;

/// An organization as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// The tenant.
    pub id: OrgId,
    /// Name for people.
    pub name: String,
    /// Where the tenant's own customers get help.
    pub support_email: Option<String>,
    /// What its invitations are written in, `en` or `zh`.
    pub default_language: Option<String>,
    /// When it was created.
    pub created_at: Millis,
    /// When it will be erased, once its owner has deleted it.
    pub deletes_at: Option<Millis>,
    /// What may be used of single models, by their ids.
    pub model_budgets: BTreeMap<String, Budget>,
    /// How many belong to it.
    pub members: u64,
    /// Which state this is.
    pub version: Version,
}

/// What is changed about an organization; what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct OrganizationChange {
    /// The new name.
    pub name: Option<String>,
    /// The new address, or none any more.
    pub support_email: Option<Option<String>>,
    /// The new language, or none any more.
    pub default_language: Option<Option<String>>,
    /// The new budgets of models, all of them.
    pub model_budgets: Option<BTreeMap<String, Budget>>,
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

    /// `org` as its member `user` sees it, also while it is being deleted: for those who may bring it back.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn organization_of_in_any_state(&self, user: &UserId, org: &OrgId) -> Result<Option<MemberOf>> {
        match self.membership(user, org).await? {
            Some(membership) => self.as_member_in_any_state(membership).await,
            None => Ok(None),
        }
    }

    /// The organizations that `user` belongs to, oldest first, without those that are being deleted.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn organizations_of(&self, user: &UserId, limit: u16, cursor: Option<&str>) -> Result<Page<MemberOf>> {
        let mut page = self.organizations_of_in_any_state(user, limit, cursor).await?;
        page.items.retain(|member| member.organization.deletes_at.is_none());
        // An empty page would look like belonging to none.
        while let (true, Some(next)) = (page.items.is_empty(), page.next.as_deref()) {
            page = self.organizations_of_in_any_state(user, limit, Some(next)).await?;
            page.items.retain(|member| member.organization.deletes_at.is_none());
        }
        Ok(page)
    }

    /// The organizations that `user` belongs to, oldest first, with those that are being deleted.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn organizations_of_in_any_state(
        &self,
        user: &UserId,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<MemberOf>> {
        let (pk, to) = (keys::user_partition(user), prefix_end(keys::USER_ORG_PREFIX));
        let between = Range::between(&pk, keys::USER_ORG_PREFIX, &to);
        let (items, next) = self.page_ahead(Range { cursor, limit: limit.into(), consistent: true, ..between }).await?;
        let mut organizations = vec![];
        for item in &items {
            // A membership whose organization is being erased is not shown.
            organizations.extend(self.as_member_in_any_state(read_membership(item)?).await?);
        }
        Ok(Page { items: organizations, next })
    }

    async fn as_member(&self, membership: Membership) -> Result<Option<MemberOf>> {
        let member = self.as_member_in_any_state(membership).await?;
        Ok(member.filter(|member| member.organization.deletes_at.is_none()))
    }

    async fn as_member_in_any_state(&self, membership: Membership) -> Result<Option<MemberOf>> {
        let scope = TenantScope::of_membership(&membership);
        // Consistent: right after registering, an answer without the organization would be wrong.
        let stored = self.get(&keys::organization(&scope), true).await?;
        let organization = stored.map(|item| read_organization(&item)).transpose()?;
        Ok(organization.map(|organization| MemberOf { organization, role: membership.role, scope }))
    }

    /// Creates a further organization of `owner`, its meter full. `None` when they have created as many as one
    /// person may, or may not sign in any more; then nothing was written.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn create_organization(
        &self,
        owner: &UserId,
        org: &OrgId,
        name: &str,
        plan: &Plan,
        audit: &NewAudit<'_>,
    ) -> Result<Option<MemberOf>> {
        let now = self.now();
        let scope = TenantScope::new_tenant(org);
        let count = self
            .update(&keys::user(owner))
            .update_expression("ADD created_organizations :one")
            .condition_expression(
                "attribute_exists(pk) AND (attribute_not_exists(disabled) OR disabled = :false) AND \
                 (attribute_not_exists(created_organizations) OR created_organizations < :limit)",
            )
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":limit", n(MOST_CREATED))
            .expression_attribute_values(":false", aws_sdk_dynamodb::types::AttributeValue::Bool(false));
        let mut writes = vec![TransactWriteItem::builder().update(build(count.build())?).build()];
        for item in new_organization(&scope, name, plan, owner, now) {
            let put = Put::builder().table_name(&*self.table).set_item(Some(item));
            let put = put.condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        writes.push(self.audit_write(&scope, audit)?);
        match self.transact(writes).await? {
            Transacted::Done => self.organization_of(owner, org).await,
            Transacted::Refused(_) => Ok(None),
        }
    }

    /// Changes name or settings, unless it is being deleted.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn change_organization(
        &self,
        scope: &TenantScope,
        change: &OrganizationChange,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<Organization>> {
        let mut changes = vec![];
        changes.extend(change.name.as_deref().map(|name| ("name", Some(s(name)))));
        for (name, value) in [("support_email", &change.support_email), ("default_language", &change.default_language)]
        {
            changes.extend(value.as_ref().map(|value| (name, value.as_deref().map(s))));
        }
        changes.extend(change.model_budgets.as_ref().map(|models| (MODEL_BUDGETS, models_value(models))));
        let condition = format!("{} AND attribute_not_exists({DELETES_AT})", expected.condition());
        let update = self.versioned_update(&keys::organization(scope), expected, &changes);
        let update = update.condition_expression(condition);
        let changed = self.organization_changed(scope, update, expected, Role::Admin, audit).await?;
        self.budget_cache.forget_organization(scope.org());
        Ok(changed)
    }

    /// Marks the organization, to be erased at `at`. One that is marked keeps its time.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn delete_organization(
        &self,
        scope: &TenantScope,
        at: Millis,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<Organization>> {
        let condition = format!("{} AND attribute_not_exists({DELETES_AT})", expected.condition());
        let update = self.versioned_update(&keys::organization(scope), expected, &[(DELETES_AT, Some(n(at)))]);
        self.organization_changed(scope, update.condition_expression(condition), expected, Role::Owner, audit).await
    }

    /// Takes the mark off, unless the erasure has begun or may begin.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn restore_organization(
        &self,
        scope: &TenantScope,
        expected: &Precondition,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<Organization>> {
        let condition = format!("{} AND {DELETES_AT} > :now AND attribute_not_exists({ERASING})", expected.condition());
        let update = self
            .versioned_update(&keys::organization(scope), expected, &[(DELETES_AT, None)])
            .expression_attribute_values(":now", n(self.now()));
        self.organization_changed(scope, update.condition_expression(condition), expected, Role::Owner, audit).await
    }

    async fn organization_changed(
        &self,
        scope: &TenantScope,
        update: aws_sdk_dynamodb::types::builders::UpdateBuilder,
        expected: &Precondition,
        least: Role,
        audit: &NewAudit<'_>,
    ) -> Result<Changed<Organization>> {
        let key = keys::organization(scope);
        let update = TransactWriteItem::builder().update(build(update.build())?).build();
        match self.transact_as(scope, least, vec![update], audit).await? {
            Transacted::Done => {
                let stored = self.get(&key, true).await?;
                stored.map_or(Ok(Changed::Missing), |item| read_organization(&item).map(Changed::Done))
            }
            Transacted::Refused(_) => self.why_changed_refused(&key, expected).await,
        }
    }

    /// The condition that the organization is there and is not being deleted, to stand in a transaction.
    pub(crate) fn organization_lives(&self, scope: &TenantScope) -> Result<TransactWriteItem> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::organization(scope).attributes()))
            .condition_expression(format!("attribute_exists(pk) AND attribute_not_exists({DELETES_AT})"));
        Ok(TransactWriteItem::builder().condition_check(build(check.build())?).build())
    }
}

/// The items of a new organization: itself, its owner's membership from both sides, its meter, and its entry in
/// the register.
pub(crate) fn new_organization(scope: &TenantScope, name: &str, plan: &Plan, owner: &UserId, now: Millis) -> [Item; 5] {
    let organization = NewItem::at(&keys::organization(scope))
        .text("org", scope.org().as_str())
        .text("name", name)
        .number("keys", 0)
        .number("members", 1)
        .number("owners", 1)
        .number("created_at", now)
        .number(VERSION, Version::FIRST.number());
    let [member, membership] = membership_items(scope, owner, Role::Owner, now);
    [
        organization.build(),
        member,
        membership,
        new_meter(scope, &Meter::new(plan, Period::of(now))),
        NewItem::at(&keys::registered(scope.org())).text("org", scope.org().as_str()).build(),
    ]
}

/// A membership from both sides.
pub(crate) fn membership_items(scope: &TenantScope, user: &UserId, role: Role, now: Millis) -> [Item; 2] {
    [keys::member(scope, user), keys::user_org(user, scope.org())].map(|key| {
        NewItem::at(&key)
            .text("org", scope.org().as_str())
            .text("user", user.as_str())
            .text("role", role.name())
            .number("created_at", now)
            .build()
    })
}

pub(crate) fn read_organization(item: &Item) -> Result<Organization> {
    let reader = Reader(item);
    let text = |name| reader.optional_text(name).map(|text| text.map(ToOwned::to_owned));
    Ok(Organization {
        id: reader.parsed("org")?,
        name: reader.text("name")?.to_owned(),
        support_email: text("support_email")?,
        default_language: text("default_language")?,
        created_at: reader.number("created_at")?,
        deletes_at: reader.optional_number(DELETES_AT)?,
        // Written before there was a count: the owner alone.
        members: reader.optional_number("members")?.unwrap_or(1),
        model_budgets: read_model_budgets(item)?,
        version: Version::read(&reader)?,
    })
}

fn read_membership(item: &Item) -> Result<Membership> {
    let reader = Reader(item);
    let role = Role::parse(reader.text("role")?).ok_or_else(|| reader.corrupt("unknown role"))?;
    Ok(Membership { org: reader.parsed("org")?, role })
}
