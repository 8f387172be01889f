//! Invitations: one per address and organization. The token names the row that it opens, and the row has its hash; so
//! a token that fits is the proof of the right to look into this one organization.

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};
use tenantry_domain::{Email, InviteId, Millis, UserId, one_time::OneTimeToken, plans::Limit, roles::Role};

use crate::{
    NewAudit, Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys,
    one_time::REDEEMABLE,
    organizations::DELETES_AT,
    table::TTL,
};

/// How often an invitation is tried while others invite the same address.
const TRIES: usize = 5;

/// An invitation as stored. The token is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The invitation.
    pub id: InviteId,
    /// Who is invited.
    pub email: Email,
    /// What they will be.
    pub role: Role,
    /// Who invited them.
    pub invited_by: UserId,
    /// When.
    pub created_at: Millis,
    /// Until when it may be accepted.
    pub expires_at: Millis,
}

/// How an invitation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invited {
    /// It was made; an earlier one to the same address is worthless.
    Done,
    /// Who invites is not in the role any more that allows it.
    ActorChanged,
    /// The organization is gone, or on its way out.
    Gone,
}

/// How an invitation was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The person belongs to the organization now.
    Done(Role),
    /// The person belonged to it before. The invitation is as it was.
    Already,
    /// The plan includes no more members. The invitation is as it was.
    Full,
    /// It is not good any more: accepted, revoked, replaced or expired meanwhile, or who made it may not invite to
    /// this role any more.
    Unknown,
}

impl Store {
    /// Makes an invitation, in the place of an earlier one to the same address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_invite(
        &self,
        scope: &TenantScope,
        invite: &Invite,
        token: &OneTimeToken,
        actor_role: Role,
        audit: &NewAudit<'_>,
    ) -> Result<Invited> {
        let invited = keys::invited(scope, &invite.email);
        for _ in 0..TRIES {
            let before = self.get(&invited, true).await?;
            let before = before.map(|item| Reader(&item).parsed::<InviteId>("invite")).transpose()?;
            let mut writes =
                vec![self.organization_lives(scope)?, self.role_check(scope, &invite.invited_by, actor_role)?];
            let put = |item, condition: &str| {
                Put::builder().table_name(&*self.table).set_item(Some(item)).condition_expression(condition)
            };
            let row = put(invite_item(scope, invite, token), "attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(row.build())?).build());
            let place = NewItem::at(&invited)
                .text("org", scope.org().as_str())
                .text("invite", invite.id.as_str())
                .number(TTL, gone_at(invite));
            let place = match &before {
                Some(before) => {
                    put(place.build(), "invite = :before").expression_attribute_values(":before", s(before.as_str()))
                }
                None => put(place.build(), "attribute_not_exists(pk)"),
            };
            writes.push(TransactWriteItem::builder().put(build(place.build())?).build());
            writes.push(self.audit_write(scope, audit)?);
            if let Some(before) = &before {
                let delete = Delete::builder().table_name(&*self.table);
                let delete = delete.set_key(Some(keys::invite(scope, before).attributes()));
                writes.push(TransactWriteItem::builder().delete(build(delete.build())?).build());
            }
            match self.transact(writes).await? {
                Transacted::Done => return Ok(Invited::Done),
                Transacted::Refused(failed) if failed[0] => return Ok(Invited::Gone),
                Transacted::Refused(failed) if failed[1] => return Ok(Invited::ActorChanged),
                // Somebody invited the same address in between.
                Transacted::Refused(_) => {}
            }
        }
        Err(StoreError::Contention)
    }

    /// The invitations that may still be accepted, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadCursor`] for a cursor of another list.
    pub async fn invites(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<Invite>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::INVITE_PREFIX));
        let between = Range::between(&pk, keys::INVITE_PREFIX, &to);
        let (items, next) = self.page_ahead(Range { cursor, limit: limit.into(), consistent: true, ..between }).await?;
        let now = self.now();
        let mut items = items.iter().map(read_invite).collect::<Result<Vec<_>>>()?;
        // DynamoDB takes its time with expired rows.
        items.retain(|invite| invite.expires_at > now);
        Ok(Page { items, next })
    }

    /// Takes an invitation back. `false` when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_invite(&self, scope: &TenantScope, id: &InviteId, audit: &NewAudit<'_>) -> Result<bool> {
        let key = keys::invite(scope, id);
        let Some(stored) = self.get(&key, true).await? else { return Ok(false) };
        let invite = read_invite(&stored)?;
        if invite.expires_at <= self.now() {
            return Ok(false);
        }
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .condition_expression("attribute_exists(pk)");
        let writes = vec![
            TransactWriteItem::builder().delete(build(delete.build())?).build(),
            self.vacate_write(scope, &invite)?,
            self.audit_write(scope, audit)?,
        ];
        Ok(matches!(self.transact(writes).await?, Transacted::Done))
    }

    /// The invitation that a token opens, and the organization it leads into; for the address it was made for
    /// alone. `None` for every token that is not good, whatever is wrong with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn invite_of(&self, token: &OneTimeToken, email: &Email) -> Result<Option<(TenantScope, Invite)>> {
        let Some((org, id)) = token.invite() else { return Ok(None) };
        // Until the hash was compared this scope is a claim, and nothing but this row is looked at with it.
        let claimed = TenantScope::of_invite(org);
        let Some(stored) = self.get(&keys::invite(&claimed, &id), true).await? else { return Ok(None) };
        let invite = read_invite(&stored)?;
        let fits =
            Reader(&stored).text("hash")? == token.hash() && invite.email == *email && invite.expires_at > self.now();
        Ok(fits.then_some((claimed, invite)))
    }

    /// Makes `user`, whose address is the invitation's, a member. Of many who try at once, one succeeds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accept_invite(
        &self,
        scope: &TenantScope,
        invite: &Invite,
        token: &OneTimeToken,
        user: &UserId,
        limit: Limit,
        audit: &NewAudit<'_>,
    ) -> Result<Accepted> {
        if invite.invited_by == *user {
            // They were a member when they made it, so they are one still, or have left.
            return Ok(Accepted::Unknown);
        }
        let mut writes = self.join_writes(scope, user, invite.role, limit)?;
        let redeem = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::invite(scope, &invite.id).attributes()))
            .condition_expression(REDEEMABLE)
            .expression_attribute_names("#hash", "hash")
            .expression_attribute_values(":hash", s(token.hash()))
            .expression_attribute_values(":now", n(self.now()));
        writes.push(TransactWriteItem::builder().delete(build(redeem.build())?).build());
        writes.push(self.vacate_write(scope, invite)?);
        writes.push(self.audit_write(scope, audit)?);
        // Who was removed or demoted has no way back, or up, through what they left behind.
        let least = if invite.role == Role::Owner { Role::Owner } else { Role::Admin };
        writes.push(self.least_role_check(scope, &invite.invited_by, least)?);
        let Transacted::Refused(failed) = self.transact(writes).await? else {
            return Ok(Accepted::Done(invite.role));
        };
        if failed[3] || failed[4] || failed[6] {
            return Ok(Accepted::Unknown);
        }
        if failed[1] || failed[2] {
            return Ok(Accepted::Already);
        }
        let lives = self.get(&keys::organization(scope), true).await?.is_some_and(|org| !org.contains_key(DELETES_AT));
        Ok(if lives { Accepted::Full } else { Accepted::Unknown })
    }

    /// Gives the address's place back, if it is still this invitation's.
    fn vacate_write(&self, scope: &TenantScope, invite: &Invite) -> Result<TransactWriteItem> {
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::invited(scope, &invite.email).attributes()))
            .condition_expression("invite = :invite")
            .expression_attribute_values(":invite", s(invite.id.as_str()));
        Ok(TransactWriteItem::builder().delete(build(delete.build())?).build())
    }
}

/// An address keeps its place for a while after its invitation, so that the row cannot go before the other.
const fn gone_at(invite: &Invite) -> i64 {
    invite.expires_at.div_euclid(1000) + 24 * 3600
}

fn invite_item(scope: &TenantScope, invite: &Invite, token: &OneTimeToken) -> Item {
    NewItem::at(&keys::invite(scope, &invite.id))
        .text("org", scope.org().as_str())
        .text("invite", invite.id.as_str())
        .text("email", invite.email.as_str())
        .text("role", invite.role.name())
        .text("invited_by", invite.invited_by.as_str())
        .text("hash", token.hash())
        .number("created_at", invite.created_at)
        .number("expires_at", invite.expires_at)
        .number(TTL, invite.expires_at.div_euclid(1000))
        .build()
}

pub(crate) fn read_invite(item: &Item) -> Result<Invite> {
    let reader = Reader(item);
    Ok(Invite {
        id: reader.parsed("invite")?,
        email: reader.parsed("email")?,
        role: Role::parse(reader.text("role")?).ok_or_else(|| reader.corrupt("unknown role"))?,
        invited_by: reader.parsed("invited_by")?,
        created_at: reader.number("created_at")?,
        expires_at: reader.number("expires_at")?,
    })
}
