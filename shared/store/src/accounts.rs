//! What proves to be its owner's changes on an account: its password, and that its address is confirmed.
//!
//! Each password begins an epoch of the account. A session belongs to the epoch that it began in and is
//! refused in any later one, so a new password ends all sessions in the very write that sets it, those
//! included that begin at the same moment with the old one.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use tenantry_domain::{SessionId, UserId, one_time::OneTimeToken};

use crate::{
    AuditActor, Changed, NewAudit, Origin, Precondition, Session, Store, TenantScope, User,
    db::{Transacted, build},
    error::Result,
    item::{n, s},
    keys,
    users::read_user,
};

/// Set on accounts that may not be used any more.
const NOT_DISABLED: &str = "attribute_exists(pk) AND (attribute_not_exists(disabled) OR disabled = :false)";

/// The fields of a person that they change themselves. The outer `None` leaves a field as it is, the inner
/// one empties it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileChanges {
    /// Name for people.
    pub full_name: Option<Option<String>>,
    /// Where a picture is.
    pub avatar_url: Option<Option<String>>,
    /// Number in the form of E.164.
    pub phone: Option<Option<String>>,
    /// Language of mails.
    pub preferred_language: Option<Option<String>>,
    /// Light, dark, or as the system is.
    pub theme_preference: Option<Option<String>>,
}

impl Store {
    /// Changes the person's profile, in the version that is meant. Returns the person as they are then.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn change_profile(
        &self,
        user: &UserId,
        changes: &ProfileChanges,
        expected: &Precondition,
    ) -> Result<Changed<User>> {
        let fields = [
            ("full_name", &changes.full_name),
            ("avatar_url", &changes.avatar_url),
            ("phone", &changes.phone),
            ("preferred_language", &changes.preferred_language),
            ("theme_preference", &changes.theme_preference),
        ];
        let given = fields.into_iter().filter_map(|(name, change)| Some((name, change.as_ref()?)));
        let changes: Vec<_> = given.map(|(name, value)| (name, value.as_deref().map(s))).collect();
        let key = keys::user(user);
        let update = self.versioned_update(&key, expected, &changes);
        let write = TransactWriteItem::builder().update(build(update.build())?).build();
        if let Transacted::Refused(_) = self.transact(vec![write]).await? {
            return self.why_refused(&key, expected).await?.try_map(|item| read_user(&item));
        }
        Ok(self.user(user).await?.map_or(Changed::Missing, Changed::Done))
    }

    /// Redeems a token that proves that the person's address is theirs. `false` when it is not good (any more).
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn confirm_address(&self, user: &UserId, token: &OneTimeToken, origin: &Origin) -> Result<bool> {
        let confirm = self
            .update(&keys::user(user))
            .update_expression(
                "SET email_verified_at = if_not_exists(email_verified_at, :now), \
                 version = if_not_exists(version, :one) + :one",
            )
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":now", n(self.now()))
            .expression_attribute_values(":one", n(1));
        let mut writes =
            vec![self.redeem_write(user, token)?, TransactWriteItem::builder().update(build(confirm.build())?).build()];
        writes.extend(self.account_audit(user, "email.verified", origin).await?);
        Ok(matches!(self.transact(writes).await?, Transacted::Done))
    }

    /// Redeems a token that lets the person choose a new password, and ends all their sessions. The token came
    /// by mail, so it confirms the address as well. `false` when it is not good (any more).
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn reset_password(
        &self,
        user: &UserId,
        token: &OneTimeToken,
        password_hash: &str,
        origin: &Origin,
    ) -> Result<bool> {
        let set = self
            .update(&keys::user(user))
            .update_expression(
                "SET password_hash = :hash, epoch = if_not_exists(epoch, :none) + :one, \
                 email_verified_at = if_not_exists(email_verified_at, :now), \
                 version = if_not_exists(version, :one) + :one",
            )
            .condition_expression(NOT_DISABLED)
            .expression_attribute_values(":hash", s(password_hash))
            .expression_attribute_values(":none", n(0))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":now", n(self.now()))
            .expression_attribute_values(":false", AttributeValue::Bool(false));
        let mut writes =
            vec![self.redeem_write(user, token)?, TransactWriteItem::builder().update(build(set.build())?).build()];
        writes.extend(self.account_audit(user, "password.reset", origin).await?);
        Ok(matches!(self.transact(writes).await?, Transacted::Done))
    }

    /// Sets another password and ends all sessions but `own`. `false` when the account has another password
    /// than it had in `user` by now, may not be used any more, or the session has ended.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn change_password(
        &self,
        user: &User,
        own: &Session,
        password_hash: &str,
        origin: &Origin,
    ) -> Result<bool> {
        let epoch = user.epoch + 1;
        let set = self
            .update(&keys::user(&user.id))
            .update_expression("SET password_hash = :hash, epoch = :epoch")
            // Every hash has a salt of its own, so this is the password, and the epoch, that was read.
            .condition_expression(format!("password_hash = :old AND {NOT_DISABLED}"))
            .expression_attribute_values(":hash", s(password_hash))
            .expression_attribute_values(":old", s(&user.password_hash))
            .expression_attribute_values(":epoch", n(epoch))
            .expression_attribute_values(":false", AttributeValue::Bool(false));
        let keep = self
            .update(&keys::session(&own.user, &own.id))
            .update_expression("SET epoch = :epoch")
            .condition_expression("attribute_exists(pk) AND expires_at > :now")
            .expression_attribute_values(":epoch", n(epoch))
            .expression_attribute_values(":now", n(self.now()));
        let row = NewAudit {
            action: "password.changed",
            actor: AuditActor::User(user.id.clone()),
            target: Some(user.id.as_str()),
            changes: vec![],
            origin,
        };
        let writes = vec![
            TransactWriteItem::builder().update(build(set.build())?).build(),
            TransactWriteItem::builder().update(build(keep.build())?).build(),
            self.audit_write(&TenantScope::of_session(own), &row)?,
        ];
        Ok(matches!(self.transact(writes).await?, Transacted::Done))
    }

    /// Deletes the person's sessions of earlier passwords. They are refused already; this is so that lists do
    /// not show them.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn sweep_sessions(&self, user: &UserId, keep: Option<&SessionId>) -> Result<()> {
        for session in self.sessions(user).await? {
            if keep != Some(&session.id) {
                self.end_session(user, &session.id).await?;
            }
        }
        Ok(())
    }

    /// The row for what somebody did without a session, in the log of the organization they have belonged to
    /// for longest.
    async fn account_audit(
        &self,
        user: &UserId,
        action: &'static str,
        origin: &Origin,
    ) -> Result<Option<TransactWriteItem>> {
        let oldest = self.organizations_of(user, 1, None).await?.items.into_iter().next();
        let Some(member) = oldest else { return Ok(None) };
        let row = NewAudit {
            action,
            actor: AuditActor::User(user.clone()),
            target: Some(user.as_str()),
            changes: vec![],
            origin,
        };
        self.audit_write(member.scope(), &row).map(Some)
    }
}
