//! Queues: SQS on AWS, durable queues of its own in `host`.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Serialize;
use tenantry_domain::usage::UsageEvent;

/// A future that an object-safe trait can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The queue refused a message; the sender has to do without it.
#[derive(Debug, thiserror::Error)]
#[error("the queue refused a message: {0}")]
pub struct QueueError(pub String);

/// Where usage events go. An event that was accepted is delivered at least once; for one that was not,
/// the caller takes the aggregator's own code path.
pub trait UsageQueue: Send + Sync + 'static {
    /// Accepts one event.
    ///
    /// # Errors
    /// [`QueueError`] when it was not accepted.
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>>;
}

/// SQS.
pub struct SqsQueue {
    client: aws_sdk_sqs::Client,
    url: Arc<str>,
}

impl SqsQueue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: aws_sdk_sqs::Client, url: &str) -> Self {
        Self { client, url: url.into() }
    }

    /// Sends `message` as JSON, to be delivered after `delay` (whole seconds, 15 minutes at most).
    ///
    /// # Errors
    /// [`QueueError`] when it was not accepted.
    pub async fn send_json<T: Serialize + Sync>(&self, message: &T, delay: Duration) -> Result<(), QueueError> {
        let body = serde_json::to_string(message).map_err(|error| QueueError(error.to_string()))?;
        let seconds = i32::try_from(delay.as_secs()).unwrap_or(i32::MAX);
        let send = self.client.send_message().queue_url(&*self.url).message_body(body);
        let send = if seconds > 0 { send.delay_seconds(seconds.min(900)) } else { send };
        match send.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(QueueError(aws_sdk_sqs::error::DisplayErrorContext(error).to_string())),
        }
    }
}

impl UsageQueue for SqsQueue {
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.send_json(event, Duration::ZERO))
    }
}

/// One message as a consumer gets it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The queue's name for the delivery.
    pub id: String,
    /// JSON.
    pub body: String,
}

/// The messages of a batch from SQS.
#[must_use]
pub fn messages(event: SqsEvent) -> Vec<Message> {
    let message = |record: SqsMessage| Message {
        id: record.message_id.unwrap_or_default(),
        body: record.body.unwrap_or_default(),
    };
    event.records.into_iter().map(message).collect()
}

/// The messages of a batch that were not dealt with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Nothing is wrong with them; deliver them again.
    pub again: Vec<String>,
    /// They will fail however often they are delivered.
    pub poison: Vec<String>,
}

/// The answer that has the messages that failed delivered again, and no other (`ReportBatchItemFailures`).
/// SQS makes no difference between them, and gives them up after some deliveries.
///
/// # Errors
/// When a message failed that has no id to name it by; then SQS delivers the whole batch again.
pub fn answer(failures: Failures) -> Result<SqsBatchResponse, &'static str> {
    let Failures { again: mut failed, poison } = failures;
    failed.extend(poison);
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
