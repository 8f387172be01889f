//! Everything that is stored: one DynamoDB table, one file per aggregate.
//!
//! - Every key is made in `keys.rs`, nowhere else; the raw client is private to this crate.
//! - Every function that touches a tenant's data takes a [`TenantScope`], which only authentication makes.
//! - Times and ids come from the caller or the [`Clock`]; this crate writes them as they are.

mod accounts;
mod api_keys;
mod audit;
mod billing_account;
mod budgets;
mod credit_watch;
mod db;
mod devices;
mod erasure;
mod error;
mod expiry;
mod export;
mod idempotency;
mod invites;
mod item;
mod keys;
mod ledger;
mod mails;
mod members;
mod meter;
mod one_time;
mod orders;
mod organizations;
mod own;
mod reconcile;
mod register;
mod scope;
mod sessions;
mod table;
mod tenant_sessions;
mod tenant_users;
mod throttle;
mod usage;
mod users;
mod version;
mod warnings;
mod webhooks;

use std::sync::Arc;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use tenantry_domain::{Clock, Millis, plans::Plans};

pub use accounts::ProfileChanges;
pub use api_keys::{ApiKey, ApiKeyChange, NewApiKey};
pub use audit::{AuditActor, AuditFilter, AuditRow, Change, NewAudit, Origin};
pub use billing_account::AccountEvent;
pub use devices::Seen;
pub use erasure::Erased;
pub use error::{Result, StoreError};
pub use expiry::UNKNOWN_MODEL;
pub use export::Exported;
pub use idempotency::{Claim, IdempotencyClaim, KeyedRequest};
pub use invites::{Accepted, Invite, Invited};
pub use ledger::{Booked, NewLedgerRow};
pub use mails::MailClaim;
pub use members::{Member, MemberChange, OfMember};
pub use meter::{Admission, Planned, Refused, Reservation, SettleOutcome, Terms, WithinBudget};
pub use orders::{DueOrder, OrderChanged};
pub use organizations::{MemberOf, Membership, Organization, OrganizationChange};
pub use own::{MOST_RESOURCES, OwnRecorded, RecordKey};
pub use reconcile::{Difference, Look, Repair, Suspicion, TimeIsUp};
pub use register::Due;
pub use scope::TenantScope;
pub use sessions::{Device, MOST_SESSIONS, Rotation, Session};
pub use tenant_sessions::{TenantRotation, TenantSession};
pub use tenant_users::{TenantUser, TenantUserChange};
pub use throttle::{Admitted, GuessRule, WindowRule};
pub use usage::{Page, RollUp, RollUpKey, Sums, WriteReport};
pub use users::{NewUser, User};
pub use version::{Changed, Precondition, Version};
pub use warnings::LimitWarning;
pub use webhooks::{ClaimedEvent, EventClaim};

/// The store: cheap to clone, one per process.
#[derive(Clone)]
pub struct Store {
    db: aws_sdk_dynamodb::Client,
    /// The same without the SDK's retries.
    once: aws_sdk_dynamodb::Client,
    table: Arc<str>,
    plans: Plans,
    clock: Arc<dyn Clock>,
    guesses: Arc<meter::Guesses>,
    key_cache: Arc<api_keys::KeyCache>,
    budget_cache: Arc<budgets::BudgetCache>,
}

impl Store {
    /// A store over `table`, which [`create_table`](Self::create_table) or the deploy template made.
    #[must_use]
    pub fn new(db: aws_sdk_dynamodb::Client, table: &str, plans: Plans, clock: Arc<dyn Clock>) -> Self {
        let (guesses, key_cache, budget_cache) = (Arc::default(), Arc::default(), Arc::default());
        let once = db.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let once = aws_sdk_dynamodb::Client::from_conf(once);
        Self { db, once, table: table.into(), plans, clock, guesses, key_cache, budget_cache }
    }

    /// The same clock, for others who speak of the same moments.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The clock that every time stamp is read from.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The plans that meters are filled from.
    #[must_use]
    pub const fn plans(&self) -> &Plans {
        &self.plans
    }
}
