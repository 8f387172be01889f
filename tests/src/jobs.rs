//! Scheduled jobs on a stage of their own: many tenants without passwords, and a job queue that a test looks into.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_commerce::Commerce;
use tenantry_domain::{Email, OrgId, UserId};
use tenantry_quota_reset::{Job, JobQueue, Message, State, Tally, fan_out, run};
use tenantry_store::{NewUser, Store, TenantScope, User};
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};

use crate::platform::Platform;

/// A job queue in memory. Delays are kept, not waited for.
#[derive(Default)]
pub struct Inbox(Mutex<VecDeque<(Message, Duration)>>);

impl JobQueue for Inbox {
    fn send<'a>(&'a self, message: &'a Message, delay: Duration) -> BoxFuture<'a, Result<(), QueueError>> {
        // Through JSON, as on the way through SQS.
        let text = serde_json::to_string(message).expect("a message");
        assert!(text.len() < 256 * 1024, "a message of {} bytes", text.len());
        self.0.lock().expect("a lock").push_back((serde_json::from_str(&text).expect("a message"), delay));
        Box::pin(async { Ok(()) })
    }
}

/// The jobs of one function, with their queue.
#[derive(Clone)]
pub struct Jobs {
    /// What the function works on.
    pub state: State,
    inbox: Arc<Inbox>,
    mails: Arc<Ordered>,
}

/// The mails that were ordered, each once: the mailer sends one of an id.
#[derive(Default)]
pub struct Ordered(Mutex<Vec<Mail>>);

impl MailQueue for Ordered {
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        let mut mails = self.0.lock().expect("a lock");
        if mails.iter().all(|known| known.id != mail.id) {
            mails.push(mail.clone());
        }
        Box::pin(async { Ok(()) })
    }
}

impl Ordered {
    /// Those that were ordered since it was last asked.
    #[must_use]
    pub fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut *self.0.lock().expect("a lock"))
    }
}

impl Jobs {
    /// Over the data of `store`.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self::with(Commerce::new(store.clone()))
    }

    /// The same with payments.
    #[must_use]
    pub fn with(commerce: Commerce) -> Self {
        let inbox = Arc::new(Inbox::default());
        let mails = Arc::<Ordered>::default();
        Self { state: State::new(commerce, inbox.clone(), mails.clone()), inbox, mails }
    }

    /// The mails that were ordered since it was last asked.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.take()
    }

    /// The message that has waited longest.
    pub fn next(&self) -> Option<(Message, Duration)> {
        self.inbox.0.lock().expect("a lock").pop_front()
    }

    /// How many messages wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.0.lock().expect("a lock").len()
    }

    /// Does `job` for every tenant, with all messages that come of it. Returns what came of each.
    pub async fn all(&self, job: Job, time_is_up: bool) -> Vec<Tally> {
        fan_out(&self.state, job).await.expect("a queue");
        let mut tallies = vec![];
        while let Some((message, _)) = self.next() {
            tallies.push(run(&self.state, &message, &|| time_is_up).await.expect("a job that works"));
        }
        tallies
    }
}

/// Tenants on `plan`, without the work of hashing passwords.
pub async fn tenants(store: &Store, plan: &str, count: usize) -> Vec<TenantScope> {
    let plan = store.plans().find(plan).expect("a plan").clone();
    let mut scopes = vec![];
    for _ in 0..count {
        let (id, org) = (UserId::new(), OrgId::new());
        let email: Email = format!("{}@example.com", id.short()).parse().expect("an address");
        let (password_hash, created_at) = ("none".to_owned(), store.now());
        let user = User::new(id, email, password_hash, None, created_at);
        let new = NewUser { user: &user, org: &org, org_name: "test", plan: &plan };
        assert!(store.create_user(&new).await.expect("a store"));
        scopes.push(store.tenant(&org).await.expect("a store").expect("registered a moment ago"));
    }
    scopes
}

/// A raw row.
pub type Row = HashMap<String, AttributeValue>;

impl Platform {
    /// The tenant's raw rows whose sort key begins with `prefix`.
    pub async fn rows(&self, scope: &TenantScope, prefix: &str) -> Vec<Row> {
        let query = self.host().database().query().table_name(tenantry_host::TABLE);
        let query = query
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", AttributeValue::S(format!("T#{}", scope.org())))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.into()));
        query.send().await.expect("rows").items.unwrap_or_default()
    }

    /// Puts a row in as it is.
    pub async fn put_row(&self, row: Row) {
        let put = self.host().database().put_item().table_name(tenantry_host::TABLE).set_item(Some(row));
        put.send().await.expect("a row that is put");
    }

    /// Takes a row out.
    pub async fn delete_row(&self, row: &Row) {
        let key = HashMap::from(["pk", "sk"].map(|name| (name.to_owned(), row[name].clone())));
        let delete = self.host().database().delete_item().table_name(tenantry_host::TABLE).set_key(Some(key));
        delete.send().await.expect("a row that goes");
    }
}
