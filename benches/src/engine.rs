//! The embedded engine alone: what one metered call makes it do, in this process, without HTTP.
//!
//! The store, the SDK and the engine are those of `tenantry`; a layer between SDK and engine takes the time, so that the
//! engine's share of a call can be told from theirs.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use tenantry_domain::{
    Amounts, Clock as _, KeyId, OrgId, RequestId, Resource, SystemClock, UserId,
    metering::Demand,
    plans::{DEFAULT_PLANS, Limit, Plans},
    usage::{Operation, Status, Tokens, UsageEvent},
};
use tenantry_host::dynamodb::Embedded;
use tenantry_store::{Admission, NewUser, Reservation, Store, TenantScope, User};

use crate::{Failure, process};

/// Calls of each measurement.
const CALLS: usize = 5_000;
/// On file each write waits for the disk.
const CALLS_ON_FILE: usize = 500;
/// Calls whose usage the aggregator writes together when it is busy.
const BATCH: usize = 98;

/// What one metered call costs by itself.
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    /// CPU time in the store, the SDK and the engine.
    pub(crate) cpu: Duration,
    /// How much of the time was spent in the engine; on file that is mostly waiting.
    pub(crate) engine: f64,
    /// How long it took, waiting included.
    pub(crate) took: Duration,
}

impl Cost {
    /// The engine's CPU time, when there was nothing to wait for.
    pub(crate) fn engine_cpu(&self) -> Duration {
        self.cpu.mul_f64(self.engine)
    }
}

/// The engine in memory with one and with 32 calls in flight, and on file with one.
pub(crate) async fn measure(scratch: &Path) -> Result<[Cost; 3], Failure> {
    let file = scratch.join("engine.sqlite");
    Ok([
        cost("in memory, 1 in flight", Embedded::in_memory()?, 1, CALLS).await?,
        cost("in memory, 32 in flight", Embedded::in_memory()?, 32, CALLS).await?,
        cost("on file, 1 in flight", Embedded::on_file(&file)?, 1, CALLS_ON_FILE).await?,
    ])
}

async fn cost(name: &'static str, engine: Embedded, in_flight: usize, calls: usize) -> Result<Cost, Failure> {
    let timed = Timed { engine, nanoseconds: Arc::default() };
    let client = timed.engine.client();
    let config = client.config().to_builder().http_client(SharedHttpClient::new(timed.clone())).build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let store = Store::new(client, "bench", Plans::parse(DEFAULT_PLANS)?, Arc::new(SystemClock));
    store.create_table().await?;
    let tenant = Tenant::make(&store).await?;

    let mut open = VecDeque::new();
    while open.len() + 1 < in_flight {
        open.push_back(tenant.reserve(&store).await?);
    }
    for _ in 0..BATCH {
        tenant.call(&store, &mut open).await?;
    }
    timed.nanoseconds.store(0, Ordering::Relaxed);
    // CPU time, because other programs on the machine do not change it much.
    let cpu = || process::cpu_time(std::process::id());
    let before = cpu()?;
    let started = Instant::now();
    let mut events = vec![];
    for _ in 0..calls {
        events.push(tenant.call(&store, &mut open).await?);
        if events.len() == BATCH {
            store.write_usage(&tenant.scope, &std::mem::take(&mut events)).await?;
        }
    }
    store.write_usage(&tenant.scope, &events).await?;
    let (took, cpu) = (started.elapsed(), cpu()?.saturating_sub(before));
    let engine = Duration::from_nanos(timed.nanoseconds.load(Ordering::Relaxed)).as_secs_f64() / took.as_secs_f64();
    let calls = u32::try_from(calls)?;
    Ok(Cost { name, cpu: cpu / calls, engine, took: took / calls })
}

/// Whose calls they are.
struct Tenant {
    scope: TenantScope,
    user: UserId,
    key: KeyId,
}

impl Tenant {
    async fn make(store: &Store) -> Result<Self, Failure> {
        let email = "bench@example.com".parse().map_err(|error| format!("{error}"))?;
        let user = User::new(UserId::new(), email, String::new(), None, SystemClock.now());
        let mut plan = store.plans().first().clone();
        plan.limits.messages = Limit::Of(1_000_000_000_000);
        plan.limits.llm_tokens = Limit::Of(1_000_000_000_000_000);
        plan.limits.api_calls = Limit::Of(1_000_000_000_000);
        plan.limits.requests_per_minute = Limit::Unlimited;
        plan.limits.in_flight = 1_000;
        let org = OrgId::new();
        store.create_user(&NewUser { user: &user, org: &org, org_name: "Bench", plan: &plan }).await?;
        #[allow(clippy::disallowed_methods, reason = "the organization was made a moment ago, by us")]
        let scope = TenantScope::authenticated(org);
        Ok(Self { scope, user: user.id, key: KeyId::new() })
    }

    async fn reserve(&self, store: &Store) -> Result<Box<Reservation>, Failure> {
        let demand = Demand { amounts: charge(257), credits: 0 };
        match store.reserve(&self.scope, &RequestId::new(), &demand, 330_000).await? {
            Admission::Admitted(reservation) => Ok(reservation),
            Admission::Refused(refusal) => Err(format!("refused: {refusal:?}").into()),
        }
    }

    /// One call begins and the oldest one ends, whose usage is returned.
    async fn call(&self, store: &Store, open: &mut VecDeque<Box<Reservation>>) -> Result<UsageEvent, Failure> {
        open.push_back(self.reserve(store).await?);
        let reservation = open.pop_front().ok_or("nothing is in flight")?;
        let charged = charge(64);
        store.settle(&reservation, &charged, 0).await?;
        Ok(UsageEvent {
            id: reservation.request().clone(),
            org: self.scope.org().clone(),
            at: store.now(),
            period: reservation.hold().period.index(),
            key: Some(self.key.clone()),
            member: Some(self.user.clone()),
            operation: Operation::Chat,
            model: "gpt-5-mini".into(),
            status: Status::Ok,
            tokens: Tokens { prompt: 24, cached: 0, completion: 40, reasoning: 0 },
            charged,
            credits: 0,
            cost: 86,
            price_version: 1,
            estimated: false,
            overrun: 0,
            streamed: false,
            latency_ms: 1,
            first_byte_ms: Some(1),
            request_id: reservation.request().to_string(),
            shard: reservation.hold().shard,
            own: None,
        })
    }
}

fn charge(tokens: u64) -> Amounts {
    Amounts::NONE.with(Resource::Messages, 1).with(Resource::ApiCalls, 1).with(Resource::LlmTokens, tokens)
}

/// The engine with a stop watch.
#[derive(Debug, Clone)]
struct Timed {
    engine: Embedded,
    nanoseconds: Arc<AtomicU64>,
}

impl HttpClient for Timed {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Timed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { engine, nanoseconds } = self.clone();
        HttpConnectorFuture::new(async move {
            let started = Instant::now();
            let answer = engine.call(request).await;
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            nanoseconds.fetch_add(took, Ordering::Relaxed);
            answer
        })
    }
}
