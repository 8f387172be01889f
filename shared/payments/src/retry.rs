//! How long a vendor is waited for, and how often it is asked.

use std::time::Duration;

use crate::error::Failed;

/// How patient a client is. Everything it repeats is idempotent by a number of ours: the order's, or the refund's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One request may take this long, from the connection to the last byte.
    pub attempt: Duration,
    /// A call is at most this many requests.
    pub attempts: u32,
    /// Between the first two requests; doubled each time.
    pub pause: Duration,
}

impl Default for Patience {
    /// Below the 29 seconds that API Gateway waits for a function.
    fn default() -> Self {
        Self { attempt: Duration::from_secs(7), attempts: 3, pause: Duration::from_millis(300) }
    }
}

impl Patience {
    /// Carries a call out, again while the vendor is unavailable and patience lasts.
    pub(crate) async fn retry<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let mut pause = self.pause;
        let mut left = self.attempts.max(1);
        loop {
            left -= 1;
            match call().await {
                Err(error) if left > 0 && error.is_transient() => {
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                result => return result,
            }
        }
    }
}
