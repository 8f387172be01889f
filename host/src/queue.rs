//! The queues of one process: durable like SQS, each in a SQLite file beside the data, or in memory.
//!
//! An accepted message survives the death of the process; it is taken out only when its consumer has
//! dealt with it. A message that fails five times goes to the dead letters, as SQS would do it.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, params};
use tenantry_domain::usage::UsageEvent;
use tenantry_store::Store;
use tenantry_usage_aggregator::aggregate;
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, Failures, Message, QueueError, UsageQueue},
};
use tokio::sync::{Notify, watch};

/// How long the consumer lets messages come together, so that one transaction serves many.
const WINDOW: Duration = Duration::from_millis(100);
/// Messages of one batch.
const BATCH: usize = 1_000;
/// Deliveries after which a message is dead.
const MAX_RECEIVES: u32 = 5;
/// Wait after a batch in which something failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What messages are delivered to.
pub trait Consumer: Send + Sync {
    /// Deals with a batch.
    fn consume<'a>(&'a self, batch: &'a [Message]) -> BoxFuture<'a, Failures>;
}

/// The usage queue's consumer is the aggregator.
impl Consumer for Store {
    fn consume<'a>(&'a self, batch: &'a [Message]) -> BoxFuture<'a, Failures> {
        Box::pin(aggregate(self, batch))
    }
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct LocalQueue {
    messages: Arc<Mutex<Connection>>,
    on_file: bool,
    arrived: Arc<Notify>,
    /// One consumer at a time: two would deliver the same batch.
    consuming: Arc<tokio::sync::Mutex<()>>,
}

impl LocalQueue {
    /// A queue in the file at `path`, or in memory.
    ///
    /// # Errors
    /// When SQLite refuses the file.
    pub fn open(path: Option<&Path>) -> Result<Self, rusqlite::Error> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        // FULL, like the data: an accepted event survives the machine too. Its hold is settled next, so
        // one that was lost would be charged and never recorded.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL, receives INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE IF NOT EXISTS dead_letters (id INTEGER PRIMARY KEY, body TEXT NOT NULL);",
        )?;
        let messages = Arc::new(Mutex::new(connection));
        Ok(Self { messages, on_file: path.is_some(), arrived: Arc::default(), consuming: Arc::default() })
    }

    /// Runs `work` where it may wait for the disk; the threads that serve requests must not.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, rusqlite::Error> {
        if !self.on_file {
            return work(self);
        }
        let queue = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&queue)).await;
        done.unwrap_or_else(|error| Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in as it is; [`UsageQueue::send`] and [`MailQueue::send`] are the typed ways.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn push(&self, body: &str) -> Result<(), rusqlite::Error> {
        self.lock().prepare_cached("INSERT INTO messages (body) VALUES (?1)")?.execute([body])?;
        self.arrived.notify_one();
        Ok(())
    }

    /// How many messages wait, and how many are dead.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn depth(&self) -> Result<(u64, u64), rusqlite::Error> {
        self.lock().query_row(
            "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM dead_letters)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    fn receive(&self) -> Result<Vec<Message>, rusqlite::Error> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT id, body FROM messages ORDER BY id LIMIT ?1")?;
        let rows = select
            .query_map([BATCH], |row| Ok(Message { id: row.get::<_, i64>(0)?.to_string(), body: row.get(1)? }))?;
        rows.collect()
    }

    /// Takes out what was written, and counts a delivery of what is poison. What failed for another
    /// reason stays as it is: an outage of the store, however long, makes no message dead.
    fn settle(&self, batch: &[Message], failures: &Failures) -> Result<(), rusqlite::Error> {
        let again: HashSet<&String> = failures.again.iter().collect();
        let poison: HashSet<&String> = failures.poison.iter().collect();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for message in batch.iter().filter(|message| !again.contains(&message.id)) {
            let statement = if poison.contains(&message.id) {
                "UPDATE messages SET receives = receives + 1 WHERE id = ?1"
            } else {
                "DELETE FROM messages WHERE id = ?1"
            };
            transaction.prepare_cached(statement)?.execute([&message.id])?;
        }
        if !poison.is_empty() {
            transaction.execute(
                "INSERT OR IGNORE INTO dead_letters (id, body) SELECT id, body FROM messages WHERE receives >= ?1",
                params![MAX_RECEIVES],
            )?;
            let dead = transaction.execute("DELETE FROM messages WHERE receives >= ?1", params![MAX_RECEIVES])?;
            if dead > 0 {
                tracing::error!(dead, "messages went to the dead letters");
            }
        }
        transaction.commit()
    }

    /// Delivers one batch to the aggregator. Returns how many messages it had and how many failed.
    ///
    /// # Errors
    /// When SQLite fails; the messages stay.
    pub async fn deliver(&self, store: &Store) -> Result<(usize, usize), rusqlite::Error> {
        self.deliver_to(store).await
    }

    /// Delivers what waits at this moment. Returns how many of these messages could not be dealt with.
    ///
    /// # Errors
    /// When SQLite fails; the messages stay.
    pub async fn deliver_what_waits(&self, consumer: &dyn Consumer) -> Result<u64, rusqlite::Error> {
        let last = self.off_thread(|queue| queue.last()).await?;
        let mut tries_left = MAX_RECEIVES;
        loop {
            let waiting = self.off_thread(move |queue| queue.waiting_up_to(last)).await?;
            if waiting == 0 || tries_left == 0 {
                return Ok(waiting);
            }
            let (_, failed) = self.deliver_to(consumer).await?;
            tries_left -= u32::from(failed > 0);
        }
    }

    fn last(&self) -> Result<i64, rusqlite::Error> {
        self.lock().query_row("SELECT coalesce(max(id), 0) FROM messages", [], |row| row.get(0))
    }

    fn waiting_up_to(&self, last: i64) -> Result<u64, rusqlite::Error> {
        self.lock().query_row("SELECT count(*) FROM messages WHERE id <= ?1", [last], |row| row.get(0))
    }

    /// Delivers one batch to `consumer`.
    ///
    /// # Errors
    /// When SQLite fails; the messages stay.
    pub async fn deliver_to(&self, consumer: &dyn Consumer) -> Result<(usize, usize), rusqlite::Error> {
        let _alone = self.consuming.lock().await;
        let batch = self.off_thread(Self::receive).await?;
        if batch.is_empty() {
            return Ok((0, 0));
        }
        let failures = consumer.consume(&batch).await;
        let counts = (batch.len(), failures.again.len() + failures.poison.len());
        self.off_thread(move |queue| queue.settle(&batch, &failures)).await?;
        Ok(counts)
    }

    /// Delivers to the aggregator until `stop` turns true and the queue is empty.
    pub async fn run(self, store: Store, stop: watch::Receiver<bool>) {
        self.run_to(&store, stop).await;
    }

    /// Delivers to `consumer` until `stop` turns true, or is dropped, and the queue is empty. What fails
    /// again and again then stays for the next start.
    pub async fn run_to(self, consumer: &dyn Consumer, mut stop: watch::Receiver<bool>) {
        let mut tries_left = MAX_RECEIVES;
        loop {
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            match self.deliver_to(consumer).await {
                Ok((0, _)) if stopping => return,
                Ok((0, _)) => {
                    // wait_for also ends when the platform is dropped.
                    tokio::select! {
                        () = self.arrived.notified() => {}
                        _ = stop.wait_for(|stop| *stop) => continue,
                    }
                    // Let the batch fill, unless there is no time left.
                    let _ = tokio::time::timeout(WINDOW, stop.wait_for(|stop| *stop)).await;
                    continue;
                }
                Ok((_, 0)) => continue,
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a queue cannot be read"),
            }
            if stopping {
                tries_left -= 1;
                if tries_left == 0 {
                    return;
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn push_json(&self, message: &impl serde::Serialize) -> Result<(), QueueError> {
        let body = serde_json::to_string(message).map_err(|error| QueueError(error.to_string()))?;
        self.off_thread(move |queue| queue.push(&body)).await.map_err(|error| QueueError(error.to_string()))
    }
}

impl UsageQueue for LocalQueue {
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.push_json(event))
    }
}

impl MailQueue for LocalQueue {
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.push_json(mail))
    }
}
