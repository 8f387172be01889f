//! Usage events from the queue into records and roll-ups, each event once.
//!
//! What comes when its organization was erased is dropped and counted (`UsageOfErasedDropped`).
//!
//! Delivery may be repeated, regrouped, late or cut off at any point: the record of an event is written
//! only where there is none, in one transaction with the roll-ups it adds to (see `store::usage`).

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use futures_util::{StreamExt as _, stream};
use tenantry_domain::{OrgId, usage::UsageEvent};
use tenantry_store::{Store, TenantScope};
use tenantry_web::{
    queue::{self, Failures, Message},
    telemetry,
};

/// Tenants whose usage is written at the same time.
const TENANTS_AT_ONCE: usize = 8;

/// Writes a batch. A message that is no usage event, or one that the store refuses, fails alone.
pub async fn aggregate(store: &Store, batch: &[Message]) -> Failures {
    let mut failures = Failures::default();
    let mut tenants: BTreeMap<OrgId, Vec<(UsageEvent, String)>> = BTreeMap::new();
    for message in batch {
        match serde_json::from_str::<UsageEvent>(&message.body) {
            Ok(event) => tenants.entry(event.org.clone()).or_default().push((event, message.id.clone())),
            Err(error) => {
                tracing::error!(message_id = message.id, %error, "not a usage event");
                failures.poison.push(message.id.clone());
            }
        }
    }
    let mut written =
        stream::iter(tenants).map(|(org, deliveries)| write(store, org, deliveries)).buffer_unordered(TENANTS_AT_ONCE);
    while let Some(more) = written.next().await {
        failures.again.extend(more.again);
        failures.poison.extend(more.poison);
    }
    failures
}

async fn write(store: &Store, org: OrgId, deliveries: Vec<(UsageEvent, String)>) -> Failures {
    // Only our own functions can send to the queue, and they write the tenant they authenticated.
    #[allow(clippy::disallowed_methods, reason = "the queue's consumer acts for the tenant of the event")]
    let scope = TenantScope::authenticated(org);
    let (events, ids): (Vec<_>, Vec<_>) = deliveries.into_iter().unzip();
    let report = match store.write_usage(&scope, &events).await {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(org = %scope.org(), %error, "usage was not written, and will be delivered again");
            return Failures { again: ids, poison: vec![] };
        }
    };
    if report.dropped > 0 {
        tracing::warn!(org = %scope.org(), events = report.dropped, "usage of an erased organization was dropped");
        telemetry::metric(store.now(), "UsageOfErasedDropped", report.dropped as u64);
    }
    if report.duplicates > 0 {
        tracing::info!(org = %scope.org(), written = report.written, duplicates = report.duplicates, "redelivered usage");
    }
    let refused = |event: &UsageEvent| report.rejected.contains(&event.id);
    let poison = events.iter().zip(ids).filter(|(event, _)| refused(event)).map(|(_, id)| id);
    Failures { again: vec![], poison: poison.collect() }
}

/// The Lambda handler: one SQS batch, with the failed messages named (`ReportBatchItemFailures`).
///
/// # Errors
/// When a message failed that has no id to name it by; then SQS delivers the whole batch again.
pub async fn handle(store: &Store, event: SqsEvent) -> Result<SqsBatchResponse, &'static str> {
    queue::answer(aggregate(store, &queue::messages(event)).await)
}
