//! The usage queue: SQS on AWS, a durable queue of its own in `host`.

use std::{future::Future, pin::Pin, sync::Arc};

use tenantry_domain::usage::UsageEvent;

/// A future that an object-safe trait can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The queue refused an event; the caller writes it by the aggregator's own code path.
#[derive(Debug, thiserror::Error)]
#[error("the usage queue refused an event: {0}")]
pub struct QueueError(pub String);

/// Where usage events go. An event that was accepted is delivered at least once.
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
}

impl UsageQueue for SqsQueue {
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let body = serde_json::to_string(event).map_err(|error| QueueError(error.to_string()))?;
            let send = self.client.send_message().queue_url(&*self.url).message_body(body).send().await;
            send.map(|_| ()).map_err(|error| QueueError(aws_sdk_sqs::error::DisplayErrorContext(error).to_string()))
        })
    }
}
