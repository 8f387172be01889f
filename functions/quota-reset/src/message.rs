//! The messages of the job queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_domain::{Millis, OrgId};
use tenantry_store::Suspicion;
use tenantry_web::queue::{BoxFuture, QueueError, SqsQueue};

/// What is to be done for every tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Begin the month where nobody has yet.
    Reset,
    /// Settle expired holds.
    Sweep,
    /// Check the books, and repair roll-ups.
    Reconcile,
    /// Erase organizations that were deleted, once their grace is over.
    Erase,
    /// Hold what was bought against what Stripe says.
    Payments,
}

/// A message of the job queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// For one tenant.
    Tenant {
        /// What to do.
        job: Job,
        /// For whom.
        tenant: OrgId,
        /// What a first look at its books found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suspicion: Option<Suspicion>,
    },
    /// For the tenants of one shard.
    Shard {
        /// What to do.
        job: Job,
        /// The shard.
        shard: u8,
        /// The tenant behind which to begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<OrgId>,
    },
    /// For the events that Stripe could not deliver.
    Events {
        /// What to do.
        job: Job,
        /// From when on.
        since: Millis,
        /// The event behind which to begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
}

/// Where the messages go.
pub trait JobQueue: Send + Sync + 'static {
    /// Accepts one message, to be delivered after `delay`.
    ///
    /// # Errors
    /// [`QueueError`] when it was not accepted.
    fn send<'a>(&'a self, message: &'a Message, delay: Duration) -> BoxFuture<'a, Result<(), QueueError>>;
}

impl JobQueue for SqsQueue {
    fn send<'a>(&'a self, message: &'a Message, delay: Duration) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.send_json(message, delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_contracts_json() {
        let org = OrgId::new();
        for (json, message) in [
            (
                serde_json::json!({"job": "reset", "shard": 3}),
                Message::Shard { job: Job::Reset, shard: 3, cursor: None },
            ),
            (
                serde_json::json!({"job": "sweep", "shard": 15, "cursor": org}),
                Message::Shard { job: Job::Sweep, shard: 15, cursor: Some(org.clone()) },
            ),
            (
                serde_json::json!({"job": "reconcile", "tenant": org}),
                Message::Tenant { job: Job::Reconcile, tenant: org, suspicion: None },
            ),
            (
                serde_json::json!({"job": "payments", "since": 5, "after": "evt_1"}),
                Message::Events { job: Job::Payments, since: 5, after: Some("evt_1".to_owned()) },
            ),
        ] {
            assert_eq!(serde_json::to_value(&message).unwrap(), json);
            assert_eq!(serde_json::from_value::<Message>(json).unwrap(), message);
        }
        for text in [r#"{"job":"reset"}"#, r#"{"job":"other","shard":1}"#, r#"{"job":"reset","shard":256}"#] {
            assert!(serde_json::from_str::<Message>(text).is_err(), "{text}");
        }
    }
}
