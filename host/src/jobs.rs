//! The job queue of one process. It lives in memory: a job that is lost comes again with its schedule.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tenantry_commerce::Commerce;
use tenantry_domain::Millis;
use tenantry_quota_reset::{Job, JobQueue, Message, State, fan_out, run};
use tenantry_store::Store;
use tenantry_web::{
    mail::MailQueue,
    queue::{BoxFuture, QueueError},
};

/// The jobs that wait, each with the time from which it may be done.
struct LocalJobs {
    store: Store,
    waiting: Mutex<Vec<(Millis, Message)>>,
}

impl JobQueue for LocalJobs {
    fn send<'a>(&'a self, message: &'a Message, delay: Duration) -> BoxFuture<'a, Result<(), QueueError>> {
        let due = self.store.now() + Millis::try_from(delay.as_millis()).unwrap_or(Millis::MAX / 2);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((due, message.clone()));
        Box::pin(async { Ok(()) })
    }
}

/// The scheduled jobs, with their queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Jobs {
    state: State,
    queue: Arc<LocalJobs>,
}

impl Jobs {
    pub(crate) fn new(commerce: Commerce, mails: Arc<dyn MailQueue>) -> Self {
        let queue = Arc::new(LocalJobs { store: commerce.store().clone(), waiting: Mutex::default() });
        Self { state: State::new(commerce, queue.clone(), mails), queue }
    }

    /// What they work on.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn now(&self) -> Millis {
        self.queue.store.now()
    }

    /// Does `job` for every tenant, and what else is due.
    pub(crate) async fn run(&self, job: Job) {
        if let Err(error) = fan_out(&self.state, job).await {
            tracing::warn!(?job, %error, "a job was not begun");
        }
        self.run_due().await;
    }

    /// Does what is due.
    pub(crate) async fn run_due(&self) {
        let now = self.now();
        let due: Vec<_> = {
            let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |(due, _)| *due <= now).collect()
        };
        for (_, message) in due {
            // A tenant that failed has a message of its own by now, and is not tried a third time.
            if let Err(error) = run(&self.state, &message, &|| false).await {
                tracing::warn!(?message, %error, "a job failed");
            }
        }
    }
}
