//! The devices that somebody signed in from: so that a new one is told to the owner, and a known one is not
//! locked out by strangers who guess at the password.

use aws_sdk_dynamodb::types::ReturnValue;
use tenantry_domain::{Millis, UserId, secret::sha256_hex};

use crate::{
    AuditActor, Device, NewAudit, Origin, Session, Store, TenantScope,
    db::{Range, prefix_end},
    error::{Result, StoreError},
    item::n,
    keys,
    table::TTL,
};

/// How long a device is remembered that is not used: 400 days.
const REMEMBERED: Millis = 400 * 24 * 60 * 60 * 1000;

/// What there is to say of the device of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The account was used from it before.
    Before,
    /// It is the first that the account was ever used from.
    First,
    /// It was never seen, and others were.
    Never,
}

impl Device {
    /// What it is recognized by: the id that the client gave it, or else the program.
    fn mark(&self) -> String {
        match &self.id {
            Some(id) => mark_of(id),
            None => sha256_hex(format!("program\n{}", self.user_agent.as_deref().unwrap_or_default()).as_bytes()),
        }
    }
}

fn mark_of(device_id: &str) -> String {
    sha256_hex(format!("id\n{device_id}").as_bytes())
}

impl Store {
    /// Whether somebody signed in to the account from the device that calls itself `device_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_device_of(&self, user: &UserId, device_id: &str) -> Result<bool> {
        Ok(self.get(&keys::device(user, &mark_of(device_id)), true).await?.is_some())
    }

    /// Remembers the device of a session that begins, and whether it is new; a new one is written to the
    /// audit log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remember_device(&self, session: &Session, origin: &Origin) -> Result<Seen> {
        let (user, now) = (&session.user, self.now());
        let update = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::device(user, &session.device.mark()).attributes()))
            .update_expression("SET first_seen = if_not_exists(first_seen, :now), last_seen = :now, #ttl = :ttl")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":now", n(now))
            .expression_attribute_values(":ttl", n((now + REMEMBERED).div_euclid(1000)))
            .return_values(ReturnValue::AllOld);
        let before = update.send().await.map_err(StoreError::from_sdk)?.attributes;
        if before.is_some_and(|before| before.contains_key("first_seen")) {
            return Ok(Seen::Before);
        }
        let (pk, to) = (keys::user_partition(user), prefix_end(keys::DEVICE_PREFIX));
        let range = Range { limit: 2, consistent: true, ..Range::between(&pk, keys::DEVICE_PREFIX, &to) };
        let (devices, _) = self.page(range).await?;
        if devices.len() < 2 {
            return Ok(Seen::First);
        }
        let row = NewAudit {
            action: "device.added",
            actor: AuditActor::User(user.clone()),
            target: Some(session.id.as_str()),
            changes: vec![],
            origin,
        };
        self.record_audit(&TenantScope::of_session(session), &row).await?;
        Ok(Seen::Never)
    }
}
