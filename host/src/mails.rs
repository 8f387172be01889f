//! Mails of one process: ordered through a durable queue like all others, written by the mailer, and kept
//! instead of sent.

use std::{path::Path, sync::Arc};

use tenantry_domain::{Clock, Millis};
use tenantry_mailer::{Outbox, Site, State, deliver};
use tenantry_store::Store;
use tenantry_web::{
    config::Env,
    queue::{BoxFuture, Failures, Message},
};
use tokio::sync::watch;

use crate::{
    HostError,
    inbox::Inbox,
    queue::{Consumer, LocalQueue},
};

/// How long a mail stays claimed by a process that died over it.
const CLAIM: Millis = 60_000;

/// The mail queue, its consumer and the inbox that takes what is not sent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mails {
    queue: LocalQueue,
    inbox: Arc<Inbox>,
    state: State,
    store: Store,
}

impl Mails {
    pub(crate) fn open(
        folder: Option<&Path>,
        env: &Env,
        store: &Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HostError> {
        let file = folder.map(|folder| folder.join("mail.sqlite"));
        let queue = LocalQueue::open(file.as_deref()).map_err(|error| HostError::Database(error.to_string()))?;
        let inbox = Arc::new(Inbox::new(clock));
        let state = State::new(store.clone(), inbox.clone(), Site::from_env(env)?);
        Ok(Self { queue, inbox, state, store: store.clone() })
    }

    pub(crate) const fn queue(&self) -> &LocalQueue {
        &self.queue
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        self.inbox.outbox()
    }

    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    pub(crate) async fn deliver(&self) -> Result<(usize, usize), rusqlite::Error> {
        self.queue.deliver_to(self).await
    }

    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        self.queue.clone().run_to(&self, stop).await;
    }
}

impl Consumer for Mails {
    fn consume<'a>(&'a self, batch: &'a [Message]) -> BoxFuture<'a, Failures> {
        Box::pin(async move { deliver(&self.state, batch, self.store.now() + CLAIM).await.0 })
    }
}
