//! Work that is done for every tenant on a schedule: beginning the month (`reset`), settling expired holds
//! (`sweep`, which also ends plans whose time is over, tells of limits that are nearly used up and looks after orders),
//! checking the books (`reconcile`), holding what was bought against what Stripe says (`payments`) and erasing what was
//! deleted (`erase`). And two things that the operator asks for: giving money back ([`refund`]), and more shards for a
//! tenant's meter.
//!
//! The schedule's event becomes one message per shard of the register ([`fan_out`]); a shard's message walks its
//! tenants and, when the time is up, sends itself on with a cursor ([`walk`]). A tenant that needs more, because it
//! failed, is too large or is to be looked at again, gets a message of its own ([`tenant`]), so that it holds up
//! nobody and, should it go on failing, lies among the dead letters by name. Every job may be done twice, late and at
//! the same time as itself.

mod events;
mod message;
mod refund;
mod tenant;
mod walk;

use std::{sync::Arc, time::Duration};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use futures_util::future::try_join_all;
use lambda_runtime::LambdaEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_commerce::{Commerce, CommerceError};
use tenantry_domain::{Millis, OrgId, sharding::MOST_SHARDS};
use tenantry_store::{Store, StoreError, TimeIsUp};
use tenantry_web::{
    config::{self, ConfigError, Env},
    mail::{MailQueue, SqsMailQueue},
    queue::{self, Failures, QueueError},
    telemetry,
};

pub use message::{Job, JobQueue, Message};
pub use refund::{Outcome, REFUND, RefundAnswer, RefundedOrder, refund};
pub use walk::Tally;

/// Alarmed upon: how often meter, records and roll-ups did not agree.
const DIFFERENCES: &str = "ReconciliationDifferences";
/// Tenants too large to be checked in one run of the function.
const UNCHECKED: &str = "ReconciliationUnchecked";

/// Alarmed upon: what was bought and what Stripe says did not agree, and nobody but a person can tell what is right.
const MISMATCHES: &str = "PaymentMismatches";
/// The same, repaired.
const REPAIRED: &str = "PaymentDifferences";
/// Alarmed upon: orders that were due and could not be looked at, or that were wanted and could not be made.
const ORDERS_FAILED: &str = "OrdersFailed";

/// A walk ends this long before the function's time does, to send itself on: what is under way then may be waiting for
/// vendors, several times one after the other.
const SPARE: Millis = 45_000;

/// Why a message is delivered again.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is to be done next could not be queued.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A vendor failed, or what it has and what we have do not agree.
    #[error(transparent)]
    Commerce(#[from] CommerceError),
    /// Events that were not delivered could not be handled either.
    #[error("{0} events that were not delivered failed")]
    Events(u64),
    /// So many tenants fail that it is not about them.
    #[error("{0} tenants of one walk failed")]
    ManyFailures(usize),
    /// The event is neither a job nor a batch of messages, nor anything that can be set.
    #[error("not an event of a schedule, of the job queue or of an operator: {0}")]
    Unknown(String),
    /// The answer to SQS.
    #[error("{0}")]
    Batch(&'static str),
}

/// What the jobs work on.
#[derive(Clone)]
pub struct State {
    store: Store,
    commerce: Commerce,
    queue: Arc<dyn JobQueue>,
    mails: Arc<dyn MailQueue>,
}

impl State {
    /// From parts that were made elsewhere, as `host` does.
    #[must_use]
    pub fn new(commerce: Commerce, queue: Arc<dyn JobQueue>, mails: Arc<dyn MailQueue>) -> Self {
        Self { store: commerce.store().clone(), commerce, queue, mails }
    }

    /// From `TABLE_NAME`, `JOB_QUEUE_URL`, `MAIL_QUEUE_URL` and the variables of the payment vendors that there are.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let commerce = Commerce::from_env(env, config::store(env)?)?;
        let mails = Arc::new(SqsMailQueue::new(config::queue(env, "MAIL_QUEUE_URL")?));
        Ok(Self::new(commerce, Arc::new(config::queue(env, "JOB_QUEUE_URL")?), mails))
    }
}

/// What the function answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To the schedule.
    FannedOut {
        /// How many messages were sent.
        messages: u8,
    },
    /// To an operator.
    Sharded {
        /// How many shards of the tenant's meter admit from now on.
        shards: u8,
    },
    /// To SQS.
    Batch(SqsBatchResponse),
    /// To the operator.
    Refund(RefundAnswer),
}

/// The Lambda handler, for the schedule's `{"job"}`, for batches of the job queue, and for what the operator asks: refunds, and
/// `{"tenant", "shards"}`.
///
/// # Errors
/// [`JobError`]; the whole event is delivered again then.
pub async fn handle(state: &State, event: LambdaEvent<Value>) -> Result<Answer, JobError> {
    #[derive(Deserialize)]
    struct Scheduled {
        job: Job,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sharded {
        tenant: OrgId,
        shards: u8,
    }

    let LambdaEvent { payload, context } = event;
    if refund::is_asked_for(&payload) {
        return Ok(Answer::Refund(refund(state, payload, &context.request_id).await));
    }
    let unknown = |error: serde_json::Error| JobError::Unknown(error.to_string());
    if payload.get("shards").is_some() {
        let Sharded { tenant, shards } = serde_json::from_value(payload).map_err(unknown)?;
        return Ok(Answer::Sharded { shards: set_shards(state, &tenant, shards).await? });
    }
    if payload.get("Records").is_none() {
        let Scheduled { job } = serde_json::from_value(payload).map_err(unknown)?;
        return Ok(Answer::FannedOut { messages: fan_out(state, job).await? });
    }
    let batch = queue::messages(serde_json::from_value::<SqsEvent>(payload).map_err(unknown)?);
    let stop_at = Millis::try_from(context.deadline).unwrap_or(Millis::MAX) - SPARE;
    let (failures, tally) = work(state, &batch, &|| state.store.now() >= stop_at).await;
    if tally.reconciled {
        let now = state.store.now();
        telemetry::metric(now, DIFFERENCES, tally.differences);
        telemetry::metric(now, UNCHECKED, tally.unchecked);
    }
    if tally.payments {
        let now = state.store.now();
        telemetry::metric(now, REPAIRED, tally.repaired);
        telemetry::metric(now, MISMATCHES, tally.mismatches);
    }
    if tally.orders_failed > 0 {
        telemetry::metric(state.store.now(), ORDERS_FAILED, tally.orders_failed);
    }
    queue::answer(failures).map(Answer::Batch).map_err(JobError::Batch)
}

/// Gives a tenant's meter so many shards, while its requests come and go. Returns how many admit from now on, which are fewer
/// where its plan allows fewer requests.
///
/// # Errors
/// [`JobError`]; doing it again is harmless.
pub async fn set_shards(state: &State, tenant: &OrgId, shards: u8) -> Result<u8, JobError> {
    if !(1..=MOST_SHARDS).contains(&shards) {
        return Err(JobError::Unknown(format!("a meter has 1 to {MOST_SHARDS} shards")));
    }
    let scope = state.store.tenant(tenant).await?;
    let scope = scope.ok_or_else(|| JobError::Unknown(format!("there is no tenant {tenant}")))?;
    let active = state.store.set_meter_shards(&scope, shards).await?;
    tracing::info!(org = %tenant, shards, active, "a meter is shared out anew");
    Ok(active)
}

/// Sends one message per shard, and one for what Stripe could not deliver. Returns how many.
///
/// # Errors
/// [`JobError`]; some may have been sent, and sending all again is harmless.
pub async fn fan_out(state: &State, job: Job) -> Result<u8, JobError> {
    let send = async |shard| state.queue.send(&Message::Shard { job, shard, cursor: None }, Duration::ZERO).await;
    try_join_all((0..Store::shards()).map(send)).await?;
    if job == Job::Payments && state.commerce.stripe().is_ok() {
        let since = state.store.now() - events::SINCE;
        state.queue.send(&Message::Events { job, since, after: None }, Duration::ZERO).await?;
        return Ok(Store::shards() + 1);
    }
    Ok(Store::shards())
}

/// Works through a batch. Returns what failed, and what came of the rest.
pub async fn work(state: &State, batch: &[queue::Message], time_is_up: TimeIsUp<'_>) -> (Failures, Tally) {
    let (mut failures, mut total) = (Failures::default(), Tally::default());
    for (index, message) in batch.iter().enumerate() {
        // Every delivery gets something done, or a walk would never end.
        if index > 0 && time_is_up() {
            failures.again.push(message.id.clone());
            continue;
        }
        let done = match serde_json::from_str(&message.body) {
            Ok(job) => run(state, &job, time_is_up).await,
            Err(error) => Err(JobError::Unknown(error.to_string())),
        };
        match done {
            Ok(tally) => total.add(tally),
            Err(error) => {
                tracing::error!(message_id = message.id, %error, "a job failed");
                failures.again.push(message.id.clone());
            }
        }
    }
    (failures, total)
}

/// Does what one message asks for.
///
/// # Errors
/// [`JobError`]; doing it again is harmless.
pub async fn run(state: &State, message: &Message, time_is_up: TimeIsUp<'_>) -> Result<Tally, JobError> {
    match message {
        Message::Tenant { job, tenant, suspicion } => {
            tenant::alone(state, *job, tenant, suspicion.as_ref(), time_is_up).await
        }
        Message::Shard { job, shard, cursor } => walk::walk(state, *job, *shard, cursor.clone(), time_is_up).await,
        Message::Events { job, since, after } => events::catch_up(state, *job, *since, after.clone(), time_is_up).await,
    }
}
