//! The audit log of a tenant: who did what to what, from where. Rows are only ever added; DynamoDB removes
//! them when their time is over.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{KeyId, Millis, RequestId, UserId, time::rfc3339};

use crate::{
    Store, TenantScope,
    db::build,
    error::{Result, StoreError},
    item::{Item, NewItem, s},
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
    /// The platform itself, on a schedule.
    System,
}

impl AuditActor {
    /// The id that rows carry.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::User(user) => user.as_str(),
            Self::Key(key) => key.as_str(),
            Self::System => "system",
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

impl Store {
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
