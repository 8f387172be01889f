//! Sessions of tenant users: like those of people, in the partition of their tenant, so that they go with it.
//!
//! A session remembers a digest of the password that it began with. It is over when the tenant user is gone or
//! disabled, has another password, or the name belongs to somebody else by now; whoever refreshes compares.

use tenantry_domain::{Millis, SessionId, TenantUserId, Username, secret::sha256_hex};

use crate::{
    AuditActor, Device, NewAudit, Origin, Store, TenantScope, TenantUser,
    error::{Result, StoreError},
    item::{Item, NewItem, Reader},
    keys,
    sessions::Turn,
    table::TTL,
};

/// A session of a tenant user as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSession {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user: TenantUserId,
    /// The name they signed in with.
    pub username: Username,
    /// Counter of the current refresh token.
    pub counter: u64,
    /// When it ends, whatever is done with it.
    pub expires_at: Millis,
    /// When it began.
    pub created_at: Millis,
    /// Where it began.
    pub device: Device,
    password: String,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one is made per refresh, and read at once")]
pub enum TenantRotation {
    /// Here is the session, with the counter that the new token carries.
    Current(TenantSession),
    /// An old token came back; the session has been ended and an audit row written.
    Replayed,
    /// There is no such session (any more).
    Gone,
}

impl TenantSession {
    /// A session that begins at `now`.
    #[must_use]
    pub fn begin(user: &TenantUser, device: Device, now: Millis, lasts: Millis) -> Self {
        Self {
            id: SessionId::new(),
            user: user.id.clone(),
            username: user.username.clone(),
            counter: 0,
            expires_at: now + lasts,
            created_at: now,
            device,
            password: digest(user),
        }
    }

    /// Whether it is a session of `user` as they are now.
    #[must_use]
    pub fn belongs_to(&self, user: &TenantUser) -> bool {
        self.user == user.id && !user.disabled && self.password == digest(user)
    }
}

/// The hash has a salt of its own, so this is another one with every password.
fn digest(user: &TenantUser) -> String {
    sha256_hex(user.password_hash.as_deref().unwrap_or_default().as_bytes())
}

impl Store {
    /// Writes a new session of a tenant user, and ends the oldest when there are more than
    /// [`MOST_SESSIONS`](crate::MOST_SESSIONS).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_tenant_session(&self, scope: &TenantScope, session: &TenantSession) -> Result<()> {
        let item = NewItem::at(&keys::tenant_session(scope, &session.user, &session.id))
            .text("org", scope.org().as_str())
            .text("session", session.id.as_str())
            .text("tenant_user", session.user.as_str())
            .text("username", session.username.as_str())
            .text("password", &session.password)
            .number("counter", session.counter)
            .number("expires_at", session.expires_at)
            .number(TTL, session.expires_at.div_euclid(1000))
            .number("created_at", session.created_at);
        let item = session.device.written_to(item);
        // No condition, for the reason of `create_session`.
        let put = self.db.put_item().table_name(&*self.table).set_item(Some(item.build()));
        put.send().await.map_err(StoreError::from_sdk)?;
        self.trim(&keys::tenant(scope), &keys::tenant_sessions_of(&session.user)).await
    }

    /// Rotates the refresh token of a tenant user's session, by the rules of `rotate_session`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_tenant_session(
        &self,
        scope: &TenantScope,
        user: &TenantUserId,
        id: &SessionId,
        presented: u64,
        origin: &Origin,
    ) -> Result<TenantRotation> {
        let key = keys::tenant_session(scope, user, id);
        match self.turn(&key, presented).await? {
            Turn::Current(item) => read_tenant_session(&item).map(TenantRotation::Current),
            Turn::Gone => Ok(TenantRotation::Gone),
            Turn::Replayed(_) => {
                let row = NewAudit {
                    action: "session.replayed",
                    actor: AuditActor::TenantUser(user.clone()),
                    target: Some(id.as_str()),
                    changes: vec![],
                    origin,
                };
                let ended = self.end_row(&key, self.audit_write(scope, &row)?).await?;
                Ok(if ended { TenantRotation::Replayed } else { TenantRotation::Gone })
            }
        }
    }

    /// Ends a session of a tenant user. Ending one that is gone is fine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_tenant_session(&self, scope: &TenantScope, user: &TenantUserId, id: &SessionId) -> Result<()> {
        let delete = self.db.delete_item().table_name(&*self.table);
        let key = keys::tenant_session(scope, user, id).attributes();
        delete.set_key(Some(key)).send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }
}

fn read_tenant_session(item: &Item) -> Result<TenantSession> {
    let reader = Reader(item);
    Ok(TenantSession {
        id: reader.parsed("session")?,
        user: reader.parsed("tenant_user")?,
        username: reader.parsed("username")?,
        counter: reader.number("counter")?,
        expires_at: reader.number("expires_at")?,
        created_at: reader.number("created_at")?,
        device: Device::read(&reader)?,
        password: reader.text("password")?.to_owned(),
    })
}
