//! The usage queue of one process: durable like SQS, in a SQLite file beside the data, or in memory.
//!
//! An accepted event survives the death of the process; it is taken out only when the aggregator has
//! written it. A message that fails five times goes to the dead letters, as SQS would do it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, params};
use tenantry_domain::usage::UsageEvent;
use tenantry_store::Store;
use tenantry_usage_aggregator::{Message, aggregate};
use tenantry_web::queue::{BoxFuture, QueueError, UsageQueue};
use tokio::sync::{Notify, watch};

/// How long the consumer lets messages come together, so that one transaction serves many.
const WINDOW: Duration = Duration::from_millis(100);
/// Messages of one batch.
const BATCH: usize = 1_000;
/// Deliveries after which a message is dead.
const MAX_RECEIVES: u32 = 5;
/// Wait after a batch in which something failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct LocalQueue {
    messages: Arc<Mutex<Connection>>,
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
        // NORMAL: a commit survives the process; only a crash of the machine can lose the last ones,
        // and then their holds expire and are charged as held.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL, receives INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE IF NOT EXISTS dead_letters (id INTEGER PRIMARY KEY, body TEXT NOT NULL);",
        )?;
        Ok(Self { messages: Arc::new(Mutex::new(connection)), arrived: Arc::default(), consuming: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in as it is; [`UsageQueue::send`] is the typed way.
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

    /// Takes out what was written; counts a delivery of what was not.
    fn settle(&self, batch: &[Message], failed: &[String]) -> Result<(), rusqlite::Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for message in batch {
            if failed.contains(&message.id) {
                transaction
                    .prepare_cached("UPDATE messages SET receives = receives + 1 WHERE id = ?1")?
                    .execute([&message.id])?;
            } else {
                transaction.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([&message.id])?;
            }
        }
        if !failed.is_empty() {
            transaction.execute(
                "INSERT OR IGNORE INTO dead_letters (id, body) SELECT id, body FROM messages WHERE receives >= ?1",
                params![MAX_RECEIVES],
            )?;
            let dead = transaction.execute("DELETE FROM messages WHERE receives >= ?1", params![MAX_RECEIVES])?;
            if dead > 0 {
                tracing::error!(dead, "usage events went to the dead letters");
            }
        }
        transaction.commit()
    }

    /// Delivers one batch to the aggregator. Returns how many messages it had and how many failed.
    ///
    /// # Errors
    /// When SQLite fails; the messages stay.
    pub async fn deliver(&self, store: &Store) -> Result<(usize, usize), rusqlite::Error> {
        let _alone = self.consuming.lock().await;
        let batch = self.receive()?;
        if batch.is_empty() {
            return Ok((0, 0));
        }
        let failed = aggregate(store, &batch).await;
        self.settle(&batch, &failed)?;
        Ok((batch.len(), failed.len()))
    }

    /// Delivers until `stop` turns true and the queue is empty.
    pub async fn run(self, store: Store, mut stop: watch::Receiver<bool>) {
        loop {
            match self.deliver(&store).await {
                Ok((0, _)) if *stop.borrow() => return,
                Ok((0, _)) => {
                    tokio::select! {
                        () = self.arrived.notified() => {}
                        _ = stop.changed() => continue,
                    }
                    // Let the batch fill, unless there is no time left.
                    let _ = tokio::time::timeout(WINDOW, stop.changed()).await;
                }
                Ok((_, 0)) => {}
                Ok(_) => tokio::time::sleep(RETRY_AFTER).await,
                Err(error) => {
                    tracing::error!(%error, "the usage queue cannot be read");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

impl UsageQueue for LocalQueue {
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let body = serde_json::to_string(event).map_err(|error| QueueError(error.to_string()))?;
            self.push(&body).map_err(|error| QueueError(error.to_string()))
        })
    }
}
