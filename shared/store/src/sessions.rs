//! Sessions: one row per login, one conditional update per rotation.
//!
//! A refresh token names its session and carries a counter (the token's MAC is made and checked in
//! `web`). Counter equal: rotate. One behind: the answer to the last rotation was lost, so the caller
//! gets the current token again. Further behind: the token was stolen or replayed, the session ends.

use aws_sdk_dynamodb::types::{Delete, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use tenantry_domain::{Millis, OrgId, SessionId, UserId};

use crate::{
    AuditActor, NewAudit, Origin, Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys::{self, Key},
    table::TTL,
};

/// Most sessions of one person. The oldest end when there are more.
pub const MOST_SESSIONS: i32 = 100;

/// How many sessions too many one sign-in ends: more than it begins.
const TRIMMED: i32 = 10;

/// Where a login came from, as the client and the connection tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// The client's name for the device.
    pub id: Option<String>,
    /// Name for people.
    pub name: Option<String>,
    /// Its kind in the client's words, like `phone`.
    pub kind: Option<String>,
    /// Version of the client's program.
    pub app_version: Option<String>,
    /// Address of the login.
    pub ip: Option<String>,
    /// Its user agent.
    pub user_agent: Option<String>,
}

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// The organization it acts for.
    pub org: OrgId,
    /// Counter of the current refresh token.
    pub counter: u64,
    /// When it ends, whatever is done with it.
    pub expires_at: Millis,
    /// When it began.
    pub created_at: Millis,
    /// When its refresh token was last used.
    pub last_used_at: Option<Millis>,
    /// The password's epoch that it began in; it is over in any later one.
    pub epoch: u64,
    /// Where it began.
    pub device: Device,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one is made per refresh, and read at once")]
pub enum Rotation {
    /// Here is the session, with the counter that the new token carries.
    Current(Session),
    /// An old token came back; the session has been ended and an audit row written.
    Replayed,
    /// There is no such session (any more).
    Gone,
}

impl Store {
    /// Writes a new session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_session(&self, session: &Session) -> Result<()> {
        let item = NewItem::at(&keys::session(&session.user, &session.id))
            .text("org", session.org.as_str())
            .text("session", session.id.as_str())
            .text("user", session.user.as_str())
            .number("counter", session.counter)
            .number("expires_at", session.expires_at)
            .number(TTL, session.expires_at.div_euclid(1000))
            .number("created_at", session.created_at)
            .number("epoch", session.epoch);
        let item = session.device.written_to(item);
        // No condition: the id is new, and the SDK's own retry of a write whose answer was lost must not
        // fail on the row that this very login wrote.
        let put = self.db.put_item().table_name(&*self.table).set_item(Some(item.build()));
        put.send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// Rotates the session's refresh token, whose counter was `presented`. A replay is written to the audit log
    /// with its `origin`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_session(
        &self,
        user: &UserId,
        id: &SessionId,
        presented: u64,
        origin: &Origin,
    ) -> Result<Rotation> {
        match self.turn(&keys::session(user, id), presented).await? {
            Turn::Current(item) => read_session(&item).map(Rotation::Current),
            Turn::Gone => Ok(Rotation::Gone),
            Turn::Replayed(item) => {
                let ended = self.end_with_row(&read_session(&item)?, "session.replayed", origin).await?;
                Ok(if ended { Rotation::Replayed } else { Rotation::Gone })
            }
        }
    }

    /// The next turn of the session at `key`, whose last refresh token carries `presented`.
    pub(crate) async fn turn(&self, key: &Key, presented: u64) -> Result<Turn> {
        let now = self.now();
        let answer = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET #counter = #counter + :one, last_used_at = :now")
            .condition_expression("#counter = :presented AND expires_at > :now")
            .expression_attribute_names("#counter", "counter")
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":presented", n(presented))
            .expression_attribute_values(":now", n(now))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let stored = match answer {
            Ok(output) => return Ok(Turn::Current(output.attributes.unwrap_or_default())),
            Err(error) => crate::meter::failed_condition(error)?,
        };
        let Some(item) = stored else { return Ok(Turn::Gone) };
        let reader = Reader(&item);
        let (counter, expires_at) = (reader.number::<u64>("counter")?, reader.number::<Millis>("expires_at")?);
        Ok(if expires_at <= now {
            Turn::Gone
        } else if counter == presented.saturating_add(1) {
            Turn::Current(item)
        } else {
            Turn::Replayed(item)
        })
    }

    /// Ends the oldest sessions of a person who has more than [`MOST_SESSIONS`], some of them: a session costs nothing
    /// but a sign-in, and whoever ends them all, like the erasure of an organization, has to get through.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trim_sessions(&self, user: &UserId) -> Result<()> {
        self.trim(&keys::user_partition(user), keys::SESSION_PREFIX).await
    }

    /// Ends the oldest of the sessions below `prefix`. Their ids sort by time.
    pub(crate) async fn trim(&self, pk: &str, prefix: &str) -> Result<()> {
        let to = prefix_end(prefix);
        let range = Range { limit: MOST_SESSIONS + TRIMMED, newest_first: true, ..Range::between(pk, prefix, &to) };
        let (items, _) = self.page(range).await?;
        for item in items.iter().skip(MOST_SESSIONS.unsigned_abs() as usize) {
            let key = Key { pk: pk.to_owned(), sk: Reader(item).text(keys::SK)?.to_owned() };
            let delete = self.db.delete_item().table_name(&*self.table).set_key(Some(key.attributes()));
            delete.send().await.map_err(StoreError::from_sdk)?;
        }
        Ok(())
    }

    /// Whether the session exists and has not expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, user: &UserId, id: &SessionId) -> Result<Option<Session>> {
        let stored = self.get(&keys::session(user, id), true).await?;
        let session = stored.map(|item| read_session(&item)).transpose()?;
        Ok(session.filter(|session| session.expires_at > self.now()))
    }

    /// Ends one session. Ending one that is gone is fine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_session(&self, user: &UserId, id: &SessionId) -> Result<()> {
        let delete = self.db.delete_item().table_name(&*self.table);
        let key = keys::session(user, id).attributes();
        delete.set_key(Some(key)).send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// The user's sessions, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self, user: &UserId) -> Result<Vec<Session>> {
        let now = self.now();
        let sessions = self.sessions_of_any_age(user).await?;
        Ok(sessions.into_iter().filter(|session| session.expires_at > now).collect())
    }

    /// The same with those that have expired and are still there.
    pub(crate) async fn sessions_of_any_age(&self, user: &UserId) -> Result<Vec<Session>> {
        let (pk, to) = (keys::user_partition(user), prefix_end(keys::SESSION_PREFIX));
        let range = Range { consistent: true, ..Range::between(&pk, keys::SESSION_PREFIX, &to) };
        let items = self.all(range).await?;
        items.iter().map(read_session).collect()
    }

    /// A page of the user's sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError`]; `BadCursor` for a cursor of another list.
    pub async fn sessions_page(&self, user: &UserId, limit: u16, cursor: Option<&str>) -> Result<Page<Session>> {
        let (pk, to) = (keys::user_partition(user), prefix_end(keys::SESSION_PREFIX));
        let between = Range::between(&pk, keys::SESSION_PREFIX, &to);
        let range = Range { cursor, limit: limit.into(), newest_first: true, consistent: true, ..between };
        let (items, next) = self.page_ahead(range).await?;
        let now = self.now();
        let sessions = items.iter().map(read_session).collect::<Result<Vec<_>>>()?;
        Ok(Page { items: sessions.into_iter().filter(|session| session.expires_at > now).collect(), next })
    }

    /// Ends a session on somebody's word, and writes that to the audit log. `false` when the user has no such
    /// session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_session(&self, user: &UserId, id: &SessionId, origin: &Origin) -> Result<bool> {
        let Some(session) = self.session(user, id).await? else { return Ok(false) };
        self.end_with_row(&session, "session.revoked", origin).await
    }

    /// Has the session act for `org` from here on. Whoever calls this has seen that the user belongs to `org`; every
    /// refresh looks again. `None` when the session has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn switch_session(&self, user: &UserId, id: &SessionId, org: &OrgId) -> Result<Option<Session>> {
        let now = self.now();
        let switched = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::session(user, id).attributes()))
            .update_expression("SET org = :org, last_used_at = :now")
            .condition_expression("attribute_exists(pk) AND expires_at > :now")
            .expression_attribute_values(":org", s(org.as_str()))
            .expression_attribute_values(":now", n(now))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        match switched {
            Ok(output) => read_session(&output.attributes.unwrap_or_default()).map(Some),
            Err(error) => crate::meter::failed_condition(error).map(|_| None),
        }
    }

    /// Ends a session and writes that to the audit log. `false` when somebody else has ended it.
    async fn end_with_row(&self, session: &Session, action: &'static str, origin: &Origin) -> Result<bool> {
        // The session's own row proved that it acts for this organization.
        let scope = TenantScope::of_session(session);
        let row = NewAudit {
            action,
            actor: AuditActor::User(session.user.clone()),
            target: Some(session.id.as_str()),
            changes: vec![],
            origin,
        };
        self.end_row(&keys::session(&session.user, &session.id), self.audit_write(&scope, &row)?).await
    }

    /// Both or neither: a session that ended by force without a trace would never be looked into.
    pub(crate) async fn end_row(&self, key: &Key, audit: TransactWriteItem) -> Result<bool> {
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .condition_expression("attribute_exists(pk)");
        let delete = TransactWriteItem::builder().delete(build(delete.build())?).build();
        Ok(matches!(self.transact(vec![delete, audit]).await?, Transacted::Done))
    }
}

/// What a presented counter means for the row of a session.
pub(crate) enum Turn {
    /// The row, with the counter that the next token carries.
    Current(Item),
    /// The row; an older token came back.
    Replayed(Item),
    /// There is no such row (any more).
    Gone,
}

impl Device {
    pub(crate) fn written_to(&self, item: NewItem) -> NewItem {
        item.optional("device_id", self.id.as_deref())
            .optional("device_name", self.name.as_deref())
            .optional("device_type", self.kind.as_deref())
            .optional("app_version", self.app_version.as_deref())
            .optional("ip", self.ip.as_deref())
            .optional("user_agent", self.user_agent.as_deref())
    }

    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self> {
        let text = |name| reader.optional_text(name).map(|text| text.map(ToOwned::to_owned));
        Ok(Self {
            id: text("device_id")?,
            name: text("device_name")?,
            kind: text("device_type")?,
            app_version: text("app_version")?,
            ip: text("ip")?,
            user_agent: text("user_agent")?,
        })
    }
}

fn read_session(item: &Item) -> Result<Session> {
    let reader = Reader(item);
    Ok(Session {
        id: reader.parsed("session")?,
        user: reader.parsed("user")?,
        org: reader.parsed("org")?,
        counter: reader.number("counter")?,
        expires_at: reader.number("expires_at")?,
        created_at: reader.number("created_at")?,
        last_used_at: reader.optional_number("last_used_at")?,
        epoch: reader.optional_number("epoch")?.unwrap_or_default(),
        device: Device::read(&reader)?,
    })
}
