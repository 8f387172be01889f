//! The audit log of a tenant: who did what to what, from where. Rows are only ever added; DynamoDB removes
//! them when their time is over.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{KeyId, Millis, RequestId, TenantUserId, UserId, time::rfc3339};

use crate::{
    Page, Store, TenantScope,
    db::{Range, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, s},
    keys,
    table::TTL,
};

/// How long a row is kept: 400 days, so that a year can be compared with the one before.
const KEPT: Millis = 400 * 24 * 60 * 60 * 1000;

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Address of the caller's side of the connection.
    pub ip: Option<String>,
    /// The program, as it calls itself.
    pub user_agent: Option<String>,
    /// The request's `x-request-id`.
    pub request_id: String,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditActor {
    /// A person.
    User(UserId),
    /// A program with an API key.
    Key(KeyId),
    /// An end customer of the tenant.
    TenantUser(TenantUserId),
    /// The platform itself, on a schedule.
    System,
    /// Whoever runs the platform: `operator:` and a name. Owners of the tenant read it.
    Operator(String),
}

impl AuditActor {
    /// The operator of this name.
    #[must_use]
    pub fn operator(name: &str) -> Self {
        Self::Operator(format!("operator:{name}"))
    }

    /// The id that rows carry.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::User(user) => user.as_str(),
            Self::Key(key) => key.as_str(),
            Self::TenantUser(user) => user.as_str(),
            Self::System => "system",
            Self::Operator(name) => name,
        }
    }
}

/// A value that something changed. Secrets, hashes and addresses of people do not belong here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field, as the API calls it.
    pub field: &'static str,
    /// What it was; none where it was not set.
    pub old: Option<String>,
    /// What it is; none where it is not set any more.
    pub new: Option<String>,
}

/// A row to be added.
#[derive(Debug, Clone)]
pub struct NewAudit<'a> {
    /// What was done, like `member.role_changed`: the thing, and the verb in the past.
    pub action: &'static str,
    /// Who did it.
    pub actor: AuditActor,
    /// The id of what it was done to.
    pub target: Option<&'a str>,
    /// What changed by it.
    pub changes: Vec<Change>,
    /// Where the request came from.
    pub origin: &'a Origin,
}

/// A row as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The row's own name.
    pub id: String,
    /// When it was done, RFC 3339.
    pub at: String,
    /// What was done.
    pub action: String,
    /// Who did it: the id of a person or a key, `system`, or `operator:` and a name.
    pub actor: String,
    /// The id of what it was done to.
    pub target: Option<String>,
    /// What changed by it: field, old value, new value.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
    /// Address of the caller's side of the connection.
    pub ip: Option<String>,
    /// The program, as it calls itself.
    pub user_agent: Option<String>,
    /// The request's `x-request-id`.
    pub request_id: String,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// From this time on.
    pub from: Option<Millis>,
    /// Before this time.
    pub to: Option<Millis>,
    /// Of this action, or of all that begin with it up to a dot: `member` for `member.removed`.
    pub action: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// To this target.
    pub target: Option<String>,
}

impl AuditFilter {
    fn fits(&self, row: &AuditRow) -> bool {
        let action = self.action.as_deref().is_none_or(|action| {
            row.action.strip_prefix(action).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        action
            && self.actor.as_deref().is_none_or(|actor| actor == row.actor)
            && self.target.as_deref().is_none_or(|target| Some(target) == row.target.as_deref())
    }
}

/// How many rows are looked at for one page. A page of rare rows may be short, or empty, and still have a next one.
const LOOKED_AT: usize = 1000;

impl Store {
    /// The rows that fit, newest first.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadCursor`] for a cursor of another list.
    pub async fn audit_log(
        &self,
        scope: &TenantScope,
        filter: &AuditFilter,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<AuditRow>> {
        let pk = keys::tenant(scope);
        let from = keys::audits_from(filter.from.unwrap_or(0));
        let to = filter.to.map_or_else(|| prefix_end(keys::AUDIT_PREFIX), keys::audits_from);
        let (mut rows, mut looked_at, mut position) = (vec![], 0, cursor.map(ToOwned::to_owned));
        if from >= to {
            return Ok(Page { items: rows, next: None });
        }
        loop {
            let range = Range {
                cursor: position.as_deref(),
                limit: 200,
                newest_first: true,
                consistent: true,
                ..Range::between(&pk, &from, &to)
            };
            let (items, next) = self.page(range).await?;
            looked_at += items.len();
            for item in &items {
                let row = read_audit(item)?;
                if !filter.fits(&row) {
                    continue;
                }
                if rows.len() == usize::from(limit) {
                    // One more is there: the page ends with the row before it.
                    return Ok(Page { items: rows, next: position });
                }
                rows.push(row);
                if rows.len() == usize::from(limit) {
                    position = item.get(keys::SK).and_then(|sk| sk.as_s().ok()).cloned();
                }
            }
            let Some(next) = next else { return Ok(Page { items: rows, next: None }) };
            if rows.len() == usize::from(limit) {
                return Ok(Page { items: rows, next: position });
            }
            if looked_at >= LOOKED_AT {
                return Ok(Page { items: rows, next: Some(next) });
            }
            position = Some(next);
        }
    }

    /// The row as part of a transaction: it stands in the log exactly when what it tells of has happened.
    pub(crate) fn audit_write(&self, scope: &TenantScope, row: &NewAudit<'_>) -> Result<TransactWriteItem> {
        let put = Put::builder().table_name(&*self.table).set_item(Some(self.audit_item(scope, row)));
        Ok(TransactWriteItem::builder().put(build(put.build())?).build())
    }

    /// Adds a row about something that needs no transaction of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_audit(&self, scope: &TenantScope, row: &NewAudit<'_>) -> Result<()> {
        let put = self.db.put_item().table_name(&*self.table).set_item(Some(self.audit_item(scope, row)));
        put.send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    fn audit_item(&self, scope: &TenantScope, row: &NewAudit<'_>) -> Item {
        let now = self.now();
        // Rows of one millisecond stay in the order in which they were made.
        let id = RequestId::at(now);
        let item = NewItem::at(&keys::audit(scope, now, id.short()))
            .text("org", scope.org().as_str())
            .text("action", row.action)
            .text("actor", row.actor.as_str())
            .optional("target", row.target)
            .text("at", rfc3339(now))
            .optional("ip", row.origin.ip.as_deref())
            .optional("user_agent", row.origin.user_agent.as_deref())
            .text("request_id", &row.origin.request_id)
            .number(TTL, (now + KEPT).div_euclid(1000));
        if row.changes.is_empty() {
            return item.build();
        }
        item.set("changes", AttributeValue::L(row.changes.iter().map(change).collect())).build()
    }
}

fn change(change: &Change) -> AttributeValue {
    let mut map = Item::from([("field".to_owned(), s(change.field))]);
    for (name, value) in [("old", &change.old), ("new", &change.new)] {
        map.extend(value.as_ref().map(|value| (name.to_owned(), s(value))));
    }
    AttributeValue::M(map)
}

pub(crate) fn read_audit(item: &Item) -> Result<AuditRow> {
    let reader = Reader(item);
    let text = |name| reader.optional_text(name).map(|text| text.map(ToOwned::to_owned));
    let mut changes = vec![];
    for change in item.get("changes").and_then(|changes| changes.as_l().ok()).into_iter().flatten() {
        let change = change.as_m().map_err(|_| reader.corrupt("changes are not what a row has there"))?;
        let change = Reader(change);
        let part = |name| change.optional_text(name).map(|text| text.map(ToOwned::to_owned));
        changes.push((change.text("field")?.to_owned(), part("old")?, part("new")?));
    }
    let id = reader.text(keys::SK)?.rsplit('#').next().unwrap_or_default();
    Ok(AuditRow {
        id: id.to_owned(),
        at: reader.text("at")?.to_owned(),
        action: reader.text("action")?.to_owned(),
        actor: reader.text("actor")?.to_owned(),
        target: text("target")?,
        changes,
        ip: text("ip")?,
        user_agent: text("user_agent")?,
        request_id: text("request_id")?.unwrap_or_default(),
    })
}
