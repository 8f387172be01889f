//! The gateway: OpenAI's model endpoints over any vendor, metered.
//!
//! A request is checked (`request`), admitted by the meter and settled by it (`call`), sent to the vendor
//! of its model (`models`) and its answer passed on, whole (`answer`) or as it comes (`stream`). No vendor
//! is called without a reservation, and a reservation is settled by a task of its own, so a client that
//! leaves, or a handler that is dropped, changes nothing about the books.

mod answer;
mod call;
mod completions;
mod document;
mod embeddings;
mod errors;
mod limits;
mod models;
mod request;
mod stream;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::FromRef};
use tenantry_providers::Timing;
use tenantry_store::Store;
use tenantry_web::{
    ApiError, Code,
    auth::Authenticator,
    config::{self, ConfigError, Env},
    queue::UsageQueue,
    router::{ErrorShape, finish},
};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use models::Models;

/// Largest request body in bytes: what Lambda takes (6 MB), which also holds for `host`, so that what
/// works there works deployed.
pub const BODY_LIMIT: usize = 6 * 1024 * 1024;

/// Bodies up to this many bytes are counted where they are read: it takes a millisecond at most.
const COUNTED_AT_ONCE: usize = 32 * 1024;

/// Larger bodies that are counted, or wait for it, at the same time.
const LARGE_AT_ONCE: usize = 16;

/// How long the gateway waits for vendors.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For a whole call.
    pub call: Duration,
    /// For the first byte of a stream.
    pub first_byte: Duration,
    /// Between two bytes of a stream.
    pub idle: Duration,
}

impl Waits {
    /// From `UPSTREAM_TIMEOUT_SECONDS` (default 300). A hold outlives its call by [`Waits::HOLD_GRACE`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let seconds = env.parsed("UPSTREAM_TIMEOUT_SECONDS", 300_u64)?;
        if !(1..=870).contains(&seconds) {
            // Lambda ends a function after 900 s; the call must end, and be settled, before.
            return Err(ConfigError::new("UPSTREAM_TIMEOUT_SECONDS", "must be 1 to 870"));
        }
        let call = Duration::from_secs(seconds);
        Ok(Self { call, first_byte: call, idle: call.min(Duration::from_secs(120)) })
    }

    /// For a call that began at `started`.
    pub(crate) fn from(&self, started: Instant) -> Timing {
        Timing { first_byte: self.first_byte, idle: self.idle, deadline: started + self.call }
    }

    /// Time between the end of a call and the expiry of its hold, for telling the queue and settling.
    pub const HOLD_GRACE: Duration = Duration::from_secs(30);
}

/// What the gateway's handlers share.
#[derive(Clone)]
pub struct State(Arc<Shared>);

struct Shared {
    authenticator: Authenticator,
    store: Store,
    queue: Arc<dyn UsageQueue>,
    models: Models,
    waits: Waits,
    calls: TaskTracker,
    counting: Semaphore,
    waiting: Semaphore,
}

impl State {
    /// The parts put together.
    #[must_use]
    pub fn new(authenticator: Authenticator, queue: Arc<dyn UsageQueue>, models: Models, waits: Waits) -> Self {
        let store = authenticator.store.clone();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (calls, counting, waiting) = (TaskTracker::new(), Semaphore::new(cores), Semaphore::new(LARGE_AT_ONCE));
        Self(Arc::new(Shared { authenticator, store, queue, models, waits, calls, counting, waiting }))
    }

    /// The state of the Lambda function: `TABLE_NAME`, `JWT_JWKS`, `JWT_ISSUER`, `USAGE_QUEUE_URL`, the
    /// vendors' keys (see `infra/catalogue.toml`) and what [`Waits::from_env`] reads.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let store = config::store(env)?;
        let models = Models::from_env(env, store.plans())?;
        let authenticator = Authenticator::from_env(env, store)?;
        let queue = config::queue(env, "USAGE_QUEUE_URL")?;
        Ok(Self::new(authenticator, Arc::new(queue), models, Waits::from_env(env)?))
    }

    /// Counts the tokens of a body of `bytes` bytes. A large one takes up to a second and would hold up every
    /// stream of its thread, so it is counted elsewhere, as many at once as there are cores.
    pub(crate) async fn count(
        &self,
        bytes: usize,
        count: impl FnOnce() -> u64 + Send + 'static,
    ) -> Result<u64, ApiError> {
        if bytes <= COUNTED_AT_ONCE {
            return Ok(count());
        }
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(format!("counting tokens: {error}"));
        // Whoever waits keeps a large body in memory, admitted or not.
        let _place = self.0.waiting.try_acquire().map_err(|_| {
            ApiError::new(Code::Unavailable, "Too many large requests at this moment. Try again.")
                .retry_after(Duration::from_secs(1))
        })?;
        let _turn = self.0.counting.acquire().await.map_err(|error| failed(&error))?;
        tokio::task::spawn_blocking(count).await.map_err(|error| failed(&error))
    }

    /// The models that can be called.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.0.models
    }

    /// Resolves when no call is in flight any more. New ones may still come; stop serving first.
    pub async fn drained(&self) {
        self.0.calls.close();
        self.0.calls.wait().await;
    }
}

impl FromRef<State> for Authenticator {
    fn from_ref(state: &State) -> Self {
        state.0.authenticator.clone()
    }
}

/// The documented routes.
#[must_use]
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::default()
        .routes(routes!(models::list))
        .routes(routes!(models::retrieve))
        .routes(routes!(completions::create))
        .routes(routes!(embeddings::create))
}

/// The function's router.
pub fn router(state: State) -> Router {
    finish(routes(), state, ErrorShape::OpenAi, BODY_LIMIT)
}
