//! The queue of usage events, as SQS is: it delivers at least once, in any order, in batches of its own making, and again when
//! nobody said in time that a batch is done.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tenantry_domain::usage::UsageEvent;
use tenantry_store::Store;
use tenantry_usage_aggregator::aggregate;
use tenantry_web::queue::{BoxFuture, Message, QueueError, UsageQueue};
use tokio::time::{Instant, timeout};

use crate::{
    sabotage::Sabotage,
    world::{Fate, Pool, Process, World, lock, millis},
};

/// How long a message that was delivered is not delivered again.
const VISIBILITY: Duration = Duration::from_secs(40);
/// How long the aggregator may take.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Letter {
    id: u64,
    body: String,
    visible_at: Instant,
}

/// The messages that wait.
#[derive(Default)]
pub(crate) struct Letters(Mutex<(u64, Vec<Letter>)>);

impl Letters {
    pub(crate) fn put(&self, body: &str) {
        let mut letters = lock(&self.0);
        letters.0 += 1;
        let letter = Letter { id: letters.0, body: body.to_owned(), visible_at: Instant::now() };
        letters.1.push(letter);
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).1.is_empty()
    }

    /// Some of those that can be seen, in any order, which then cannot be seen for a while.
    fn take(&self, world: &World) -> Vec<Letter> {
        let (now, most) = (Instant::now(), world.dice(|dice| dice.usize(1..=12)));
        let mut letters = lock(&self.0);
        let mut visible: Vec<_> = letters.1.iter_mut().filter(|letter| letter.visible_at <= now).collect();
        world.dice(|dice| dice.shuffle(&mut visible));
        let take = |letter: &mut &mut Letter| {
            letter.visible_at = now + VISIBILITY;
            letter.clone()
        };
        visible.iter_mut().take(most).map(take).collect()
    }

    fn done(&self, batch: &[Letter], again: &[String]) {
        let mut letters = lock(&self.0);
        let is_done = |letter: &Letter| batch.iter().any(|done| done.id == letter.id);
        letters.1.retain(|letter| !is_done(letter) || again.contains(&letter.id.to_string()));
        for letter in letters.1.iter_mut().filter(|letter| is_done(letter)) {
            letter.visible_at = Instant::now() + Duration::from_secs(2);
        }
    }
}

/// A process's way to the queue.
pub(crate) struct Outgoing(pub(crate) Arc<Process>);

impl UsageQueue for Outgoing {
    fn send<'a>(&'a self, event: &'a UsageEvent) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let (process, world) = (&self.0, &self.0.world);
            let fate = process.fate();
            if fate == Fate::Dead {
                process.alive().await;
            }
            let faults = world.scenario.faults;
            if world.happens(faults.queue) {
                world.note(|| format!("{} queue: refused", process.name));
                return Err(QueueError("simulated".to_owned()));
            }
            let body = serde_json::to_string(event).expect("JSON");
            if world.saboteur.as_ref().is_some_and(|saboteur| saboteur.kind == Sabotage::EventAfterSettle) {
                // Said to be taken; it leaves when the call is settled.
                world.saboteur.iter().for_each(|saboteur| saboteur.hold_back(event.id.short(), &body, process));
                return Ok(());
            }
            if world.saboteur.as_ref().is_some_and(|saboteur| saboteur.kind == Sabotage::NeverSettle) {
                return Ok(());
            }
            if world.happens(faults.slow) {
                millis(world.dice(|dice| dice.u64(1..3_000))).await;
            }
            world.letters.put(&body);
            if world.happens(faults.again) {
                world.letters.put(&body);
            }
            world.note(|| format!("{} queue: an event", process.name));
            if fate == Fate::Dies {
                process.alive().await;
            }
            if world.happens(faults.queue) {
                world.note(|| format!("{} queue: took it, and the answer was lost", process.name));
                return Err(QueueError("simulated".to_owned()));
            }
            Ok(())
        })
    }
}

/// Delivers until nobody wants it any more.
pub(crate) async fn deliver(world: Arc<World>, aggregators: Arc<Pool<Store>>) {
    loop {
        millis(world.dice(|dice| dice.u64(100..4_000))).await;
        let batch = world.letters.take(&world);
        if batch.is_empty() {
            continue;
        }
        tokio::spawn(invoke(world.clone(), aggregators.clone(), batch));
    }
}

/// Delivers what there is, until there is nothing.
pub(crate) async fn drain(world: &Arc<World>, aggregators: &Arc<Pool<Store>>) {
    while !world.letters.is_empty() {
        millis(1_000).await;
        let batch = world.letters.take(world);
        if !batch.is_empty() {
            invoke(world.clone(), aggregators.clone(), batch).await;
        }
    }
}

async fn invoke(world: Arc<World>, aggregators: Arc<Pool<Store>>, batch: Vec<Letter>) {
    let messages: Vec<_> =
        batch.iter().map(|letter| Message { id: letter.id.to_string(), body: letter.body.clone() }).collect();
    if world.saboteur.as_ref().is_some_and(|saboteur| saboteur.was_delivered(&messages)) {
        world.letters.done(&batch, &[]);
        return;
    }
    // At least once can be twice at the same time.
    let copies = if world.happens(world.scenario.faults.again) { 2 } else { 1 };
    let deliveries = (0..copies).map(|_| {
        let ((process, store), world, messages) = (aggregators.any(&world), world.clone(), &messages);
        async move {
            let failures = timeout(FUNCTION_TIMEOUT, async {
                let failures = aggregate(&store, messages).await;
                process.alive().await;
                failures
            });
            let failures = failures.await.ok()?;
            world.note(|| format!("{} wrote {} events, {} again", process.name, messages.len(), failures.again.len()));
            assert!(failures.poison.is_empty(), "an event cannot be read");
            Some(failures.again)
        }
    });
    let answers = join_all(deliveries).await;
    if world.happens(world.scenario.faults.again) {
        world.note(|| "queue: nobody heard that the batch is done".to_owned());
        return;
    }
    // The last word counts, whatever others said.
    if let Some(Some(again)) = answers.last() {
        world.letters.done(&batch, again);
    }
}
