//! Usage events from the queue into records and roll-ups, each event once.
//!
//! Delivery may be repeated, regrouped, late or cut off at any point: the record of an event is written
//! only where there is none, in one transaction with the roll-ups it adds to (see `store::usage`).

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use tenantry_domain::{OrgId, usage::UsageEvent};
use tenantry_store::{Store, TenantScope};

/// One message of a queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// The queue's name for the delivery.
    pub id: String,
    /// A [`UsageEvent`] as JSON.
    pub body: String,
}

/// Writes a batch; returns the ids of the messages that have to be delivered again. A message that is
/// no usage event fails alone.
pub async fn aggregate(store: &Store, batch: &[Message]) -> Vec<String> {
    let mut failed = vec![];
    let mut tenants: BTreeMap<OrgId, (Vec<UsageEvent>, Vec<&str>)> = BTreeMap::new();
    for message in batch {
        match serde_json::from_str::<UsageEvent>(&message.body) {
            Ok(event) => {
                let (events, ids) = tenants.entry(event.org.clone()).or_default();
                events.push(event);
                ids.push(&message.id);
            }
            Err(error) => {
                tracing::error!(message = message.id, %error, "not a usage event");
                failed.push(message.id.clone());
            }
        }
    }
    for (org, (events, ids)) in tenants {
        // Only our own functions can send to the queue, and they write the tenant they authenticated.
        #[allow(clippy::disallowed_methods, reason = "the queue's consumer acts for the tenant of the event")]
        let scope = TenantScope::authenticated(org);
        match store.write_usage(&scope, &events).await {
            Ok(report) if report.duplicates > 0 => {
                tracing::info!(org = %scope.org(), written = report.written, duplicates = report.duplicates, "redelivered usage");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(org = %scope.org(), %error, "usage was not written, and will be delivered again");
                failed.extend(ids.into_iter().map(ToOwned::to_owned));
            }
        }
    }
    failed
}

/// The Lambda handler: one SQS batch, with the failed messages named (`ReportBatchItemFailures`).
///
/// # Errors
/// When a message failed that has no id to name it by; then SQS delivers the whole batch again.
pub async fn handle(store: &Store, event: SqsEvent) -> Result<SqsBatchResponse, &'static str> {
    let message = |record: SqsMessage| Message {
        id: record.message_id.unwrap_or_default(),
        body: record.body.unwrap_or_default(),
    };
    let batch: Vec<_> = event.records.into_iter().map(message).collect();
    let failed = aggregate(store, &batch).await;
    if failed.iter().any(String::is_empty) {
        return Err("a message without an id failed");
    }
    let failures = failed.into_iter().map(|id| {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = id;
        failure
    });
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures.collect();
    Ok(response)
}
