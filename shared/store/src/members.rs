//! Members of an organization. A membership is two rows, one from each side, written together; the organization
//! counts its members and owners, and the counts are conditions of the same transactions. So a plan's limit holds,
//! and there is always an owner, however many people change things at the same moment.
//!
//! Who changes a member is checked in the transaction too: their role is what it is at that moment, not what a token
//! or an earlier read says.

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, builders::UpdateBuilder,
};
use tenantry_domain::{Millis, UserId, budget::Budgets, plans::Limit, roles::Role};

use crate::{
    AuditActor, NewAudit, Page, Store, TenantScope,
    budgets::{BUDGET, LIMITS_MEMBERS, budgets_value, read_budgets},
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, Reader, n, s},
    keys::{self, Key},
    organizations::{DELETES_AT, membership_items},
};

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub user: UserId,
    /// Their role.
    pub role: Role,
    /// What they may use.
    pub budgets: Budgets,
    /// When they joined.
    pub joined_at: Millis,
}

/// How a change of members ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It was made.
    Done,
    /// Who wants it is not in the role any more that allows it.
    ActorChanged,
    /// The member is gone, or in another role than the one that was seen.
    MemberChanged,
    /// It would leave the organization without an owner.
    LastOwner,
    /// The organization is gone, or on its way out.
    Gone,
}

/// A change of one member by another, or by themselves.
#[derive(Debug, Clone, Copy)]
pub struct OfMember<'a> {
    /// Who wants it.
    pub actor: &'a UserId,
    /// The role that allows it.
    pub actor_role: Role,
    /// Whom it is about.
    pub user: &'a UserId,
    /// Their role until now.
    pub role: Role,
}

impl OfMember<'_> {
    fn by_themselves(&self) -> bool {
        self.actor == self.user
    }
}

impl Store {
    /// The members, in the order in which they registered.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn members(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<Member>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::MEMBER_PREFIX));
        let between = Range::between(&pk, keys::MEMBER_PREFIX, &to);
        let (items, next) = self.page_ahead(Range { cursor, limit: limit.into(), consistent: true, ..between }).await?;
        Ok(Page { items: items.iter().map(read_member).collect::<Result<_>>()?, next })
    }

    /// One member.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn member(&self, scope: &TenantScope, user: &UserId) -> Result<Option<Member>> {
        self.get(&keys::member(scope, user), true).await?.map(|item| read_member(&item)).transpose()
    }

    /// Gives a member another role, or the same, and other limits: from those that were seen to new ones.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn change_member(
        &self,
        scope: &TenantScope,
        of: OfMember<'_>,
        role: Role,
        limits: Option<(&Budgets, &Budgets)>,
        audit: &NewAudit<'_>,
    ) -> Result<MemberChange> {
        let owners = i32::from(role == Role::Owner) - i32::from(of.role == Role::Owner);
        let mut writes = vec![match limits {
            Some(_) => self.count_with_limits(scope, owners)?,
            None => self.count_members(scope, 0, owners, Limit::Unlimited)?,
        }];
        writes.push(match limits {
            Some((old, new)) => self.limits_write(&keys::member(scope, of.user), (of.role, old), (role, new))?,
            None => self.role_write(&keys::member(scope, of.user), of.role, role)?,
        });
        writes.push(self.role_write(&keys::user_org(of.user, scope.org()), of.role, role)?);
        if !of.by_themselves() {
            writes.push(self.role_check(scope, of.actor, of.actor_role)?);
        }
        writes.push(self.audit_write(scope, audit)?);
        let changed = self.member_changed(scope, of, owners, writes).await?;
        self.budget_cache.forget_organization(scope.org());
        self.budget_cache.forget_member(scope.org(), of.user);
        Ok(changed)
    }

    /// Makes a member the owner, and the owner who wants it an admin.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn transfer_ownership(
        &self,
        scope: &TenantScope,
        of: OfMember<'_>,
        audit: &NewAudit<'_>,
    ) -> Result<MemberChange> {
        let mut writes = vec![self.count_members(scope, 0, 0, Limit::Unlimited)?];
        for (user, old, new) in [(of.user, of.role, Role::Owner), (of.actor, Role::Owner, Role::Admin)] {
            writes.push(self.role_write(&keys::member(scope, user), old, new)?);
            writes.push(self.role_write(&keys::user_org(user, scope.org()), old, new)?);
        }
        writes.push(self.audit_write(scope, audit)?);
        match self.transact(writes).await? {
            Transacted::Done => Ok(MemberChange::Done),
            Transacted::Refused(failed) => Ok(match failed[..] {
                [true, ..] => MemberChange::Gone,
                [_, false, false, ..] => MemberChange::ActorChanged,
                _ => MemberChange::MemberChanged,
            }),
        }
    }

    /// Takes a member out, and ends their sessions there. What they made stays: it is the organization's.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn remove_member(
        &self,
        scope: &TenantScope,
        of: OfMember<'_>,
        audit: &NewAudit<'_>,
    ) -> Result<MemberChange> {
        let owners = -i32::from(of.role == Role::Owner);
        let mut writes = vec![self.count_members(scope, -1, owners, Limit::Unlimited)?];
        for key in [keys::member(scope, of.user), keys::user_org(of.user, scope.org())] {
            let delete = Delete::builder()
                .table_name(&*self.table)
                .set_key(Some(key.attributes()))
                .condition_expression("#role = :old")
                .expression_attribute_names("#role", "role")
                .expression_attribute_values(":old", s(of.role.name()));
            writes.push(TransactWriteItem::builder().delete(build(delete.build())?).build());
        }
        if !of.by_themselves() {
            writes.push(self.role_check(scope, of.actor, of.actor_role)?);
        }
        writes.push(self.audit_write(scope, audit)?);
        let changed = self.member_changed(scope, of, owners, writes).await?;
        if changed == MemberChange::Done {
            self.end_sessions_in(scope, of.user).await?;
        }
        Ok(changed)
    }

    /// Ends the sessions of a person that act for this organization.
    pub(crate) async fn end_sessions_in(&self, scope: &TenantScope, user: &UserId) -> Result<()> {
        for session in self.sessions_of_any_age(user).await? {
            if session.org == *scope.org() {
                self.end_session(user, &session.id).await?;
            }
        }
        Ok(())
    }

    /// The rows and the count of a new member, to stand in a transaction; the count is its first write.
    pub(crate) fn join_writes(
        &self,
        scope: &TenantScope,
        user: &UserId,
        role: Role,
        limit: Limit,
    ) -> Result<Vec<TransactWriteItem>> {
        let mut writes = vec![self.count_members(scope, 1, i32::from(role == Role::Owner), limit)?];
        for item in membership_items(scope, user, role, self.now()) {
            let put = Put::builder().table_name(&*self.table).set_item(Some(item));
            let put = put.condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        Ok(writes)
    }

    /// The condition that `user` is in `role`, to stand in a transaction.
    pub(crate) fn role_check(&self, scope: &TenantScope, user: &UserId, role: Role) -> Result<TransactWriteItem> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::member(scope, user).attributes()))
            .condition_expression("#role = :role")
            .expression_attribute_names("#role", "role")
            .expression_attribute_values(":role", s(role.name()));
        Ok(TransactWriteItem::builder().condition_check(build(check.build())?).build())
    }

    /// The condition that `user` is at least in the role `least`, to stand in a transaction.
    pub(crate) fn least_role_check(
        &self,
        scope: &TenantScope,
        user: &UserId,
        least: Role,
    ) -> Result<TransactWriteItem> {
        let mut check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::member(scope, user).attributes()))
            .expression_attribute_names("#role", "role");
        let mut places = vec![];
        // Higher roles come first in the order of `Role`.
        for role in [Role::Owner, Role::Admin, Role::Member].into_iter().filter(|role| *role <= least) {
            places.push(format!(":{}", role.name()));
            check = check.expression_attribute_values(format!(":{}", role.name()), s(role.name()));
        }
        let check = check.condition_expression(format!("#role IN ({})", places.join(", ")));
        Ok(TransactWriteItem::builder().condition_check(build(check.build())?).build())
    }

    /// Runs `writes` with their row of the audit log, on the condition that the person whom the row names is at least
    /// in the role `least` at this very moment: what a handler saw of them before may be over by now.
    ///
    /// # Errors
    /// [`StoreError::ActorChanged`](crate::StoreError) when they are not.
    pub(crate) async fn transact_as(
        &self,
        scope: &TenantScope,
        least: Role,
        mut writes: Vec<TransactWriteItem>,
        audit: &NewAudit<'_>,
    ) -> Result<Transacted> {
        writes.push(self.audit_write(scope, audit)?);
        let AuditActor::User(user) = &audit.actor else { return self.transact(writes).await };
        writes.push(self.least_role_check(scope, user, least)?);
        match self.transact(writes).await? {
            Transacted::Refused(failed) if failed.last() == Some(&true) => Err(StoreError::ActorChanged),
            other => Ok(other),
        }
    }

    /// [`role_write`](Self::role_write) of a member's row with its limits.
    fn limits_write(&self, key: &Key, old: (Role, &Budgets), new: (Role, &Budgets)) -> Result<TransactWriteItem> {
        let mut update = self
            .update(key)
            .expression_attribute_names("#role", "role")
            .expression_attribute_names("#budget", BUDGET)
            .expression_attribute_values(":old", s(old.0.name()))
            .expression_attribute_values(":new", s(new.0.name()));
        let seen = match budgets_value(old.1) {
            Some(seen) => {
                update = update.expression_attribute_values(":seen", seen);
                "#budget = :seen"
            }
            None => "attribute_not_exists(#budget)",
        };
        let change = match budgets_value(new.1) {
            Some(budget) => {
                update = update.expression_attribute_values(":budget", budget);
                "SET #role = :new, #budget = :budget"
            }
            None => "SET #role = :new REMOVE #budget",
        };
        let update = update.update_expression(change).condition_expression(format!("#role = :old AND {seen}"));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    /// [`count_members`](Self::count_members) of a change of limits: from now on they are looked for.
    fn count_with_limits(&self, scope: &TenantScope, owners: i32) -> Result<TransactWriteItem> {
        let update = self.count(scope, 0, owners, Limit::Unlimited);
        let counts = update.get_update_expression().clone().unwrap_or_default();
        let update = update
            .update_expression(format!("{counts}, {LIMITS_MEMBERS} = :limits"))
            .expression_attribute_values(":limits", AttributeValue::Bool(true));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    fn role_write(&self, key: &Key, old: Role, new: Role) -> Result<TransactWriteItem> {
        let update = self
            .update(key)
            .update_expression("SET #role = :new")
            .condition_expression("#role = :old")
            .expression_attribute_names("#role", "role")
            .expression_attribute_values(":old", s(old.name()))
            .expression_attribute_values(":new", s(new.name()));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    /// Counts members and owners on the organization, as long as it lives, has room, and keeps an owner.
    fn count_members(&self, scope: &TenantScope, members: i32, owners: i32, limit: Limit) -> Result<TransactWriteItem> {
        let update = self.count(scope, members, owners, limit);
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    fn count(&self, scope: &TenantScope, members: i32, owners: i32, limit: Limit) -> UpdateBuilder {
        let mut condition = format!("attribute_exists(pk) AND attribute_not_exists({DELETES_AT})");
        // Organizations from before there were counts have one member, their owner.
        let mut update = self
            .update(&keys::organization(scope))
            .update_expression(
                "SET members = if_not_exists(members, :one) + :members, owners = if_not_exists(owners, :one) + :owners",
            )
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":members", n(members))
            .expression_attribute_values(":owners", n(owners));
        if owners < 0 {
            condition.push_str(" AND owners > :one");
        }
        if let (Limit::Of(limit), true) = (limit, members > 0) {
            let uncounted = if limit > 1 { " OR attribute_not_exists(members)" } else { "" };
            condition.push_str(&format!(" AND (members < :limit{uncounted})"));
            update = update.expression_attribute_values(":limit", n(limit));
        }
        update.condition_expression(condition)
    }

    /// Runs a change whose writes are the count, the member's two rows, and then the check of who wants it.
    async fn member_changed(
        &self,
        scope: &TenantScope,
        of: OfMember<'_>,
        owners: i32,
        writes: Vec<TransactWriteItem>,
    ) -> Result<MemberChange> {
        let Transacted::Refused(failed) = self.transact(writes).await? else { return Ok(MemberChange::Done) };
        let failed = |place: usize| failed.get(place).copied().unwrap_or(false);
        if failed(1) || failed(2) {
            return Ok(MemberChange::MemberChanged);
        }
        if !of.by_themselves() && failed(3) {
            return Ok(MemberChange::ActorChanged);
        }
        // The count has two reasons to fail; an organization that does not live is the simpler one.
        let lives = self.get(&keys::organization(scope), true).await?.is_some_and(|org| !org.contains_key(DELETES_AT));
        Ok(if lives && owners < 0 { MemberChange::LastOwner } else { MemberChange::Gone })
    }
}

pub(crate) fn read_member(item: &Item) -> Result<Member> {
    let reader = Reader(item);
    Ok(Member {
        user: reader.parsed("user")?,
        role: Role::parse(reader.text("role")?).ok_or_else(|| reader.corrupt("unknown role"))?,
        budgets: read_budgets(item)?,
        joined_at: reader.optional_number("created_at")?.unwrap_or(0),
    })
}
